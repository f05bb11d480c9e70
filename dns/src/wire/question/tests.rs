use hickory_proto::{
    op::{Edns as HickoryEdns, Message, Query},
    rr::{Name, RecordType, rdata::opt::EdnsOption},
    serialize::binary::BinEncodable,
};
use proptest::prelude::*;

use super::*;

fn plain(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::query();
    message.queries.push(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

#[test]
fn only_plain_questions_take_the_fast_path() {
    let good = plain("web.demo.svc.cluster.local.", RecordType::A);
    let mut with_edns = good.clone();
    with_edns.edns = Some(HickoryEdns::new());
    let mut with_cookie = with_edns.clone();
    let cookie = EdnsOption::Unknown(10, vec![7; 8]);
    with_cookie.edns.as_mut().unwrap().options_mut().insert(cookie);
    let mut version_1 = with_edns.clone();
    version_1.edns.as_mut().unwrap().set_version(1);
    let changed = |message: &Message, at: usize, value: u8| {
        let mut bytes = message.to_vec().unwrap();
        bytes[at] = value;
        bytes
    };
    let longer = |message: &Message| [message.to_vec().unwrap(), vec![0]].concat();
    let axfr = plain("cluster.local.", RecordType::AXFR);
    let any = plain("cluster.local.", RecordType::ANY);
    let end = good.to_vec().unwrap().len();
    let cases = [
        ("A", good.to_vec().unwrap(), Shape::Plain),
        ("EDNS", with_edns.to_vec().unwrap(), Shape::Plain),
        ("EDNS with an option", with_cookie.to_vec().unwrap(), Shape::Plain),
        ("ANY", any.to_vec().unwrap(), Shape::Plain),
        ("the root", plain(".", RecordType::NS).to_vec().unwrap(), Shape::Plain),
        ("EDNS 1", version_1.to_vec().unwrap(), Shape::Odd),
        ("AXFR", axfr.to_vec().unwrap(), Shape::Odd),
        ("class CH", changed(&good, end - 1, 3), Shape::Odd),
        ("opcode", changed(&good, 2, 0x28), Shape::Odd),
        ("TC", changed(&good, 2, 0x02), Shape::Odd),
        ("two questions", changed(&good, 5, 2), Shape::Odd),
        ("an answer", changed(&good, 7, 1), Shape::Odd),
        ("a missing record", changed(&good, 11, 1), Shape::Odd),
        ("a byte too many", longer(&good), Shape::Odd),
        ("a byte too many after OPT", longer(&with_edns), Shape::Odd),
        ("compression", changed(&good, 12, 0xc0), Shape::Odd),
        ("a reply", changed(&good, 2, 0x80), Shape::Drop(DropReason::NotAQuery)),
        ("eleven bytes", vec![0; 11], Shape::Drop(DropReason::Short)),
        ("nothing", vec![], Shape::Drop(DropReason::Short)),
    ];
    for (what, bytes, shape) in cases {
        assert_eq!(Question::new().read(&bytes), shape, "{what}");
    }
}

#[test]
fn an_option_that_is_cut_is_a_format_error_coredns_says_so_too() {
    const ADDITIONAL_AT: usize = 11;
    let query = |name: &str, options: &[u8]| {
        let mut bytes = plain(name, RecordType::A).to_vec().unwrap();
        let [hi, lo] = u16::try_from(options.len()).unwrap().to_be_bytes();
        bytes[ADDITIONAL_AT] = 1;
        [&bytes[..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, hi, lo], options].concat()
    };
    let cases: [(&[u8], bool); 6] = [
        (&[], false),
        (&[0, 3, 0, 0], false),
        (&[0, 10, 0, 1, 7, 0, 3, 0, 0], false),
        (&[0, 3, 0, 5, 7], true),
        (&[0, 10, 0, 1, 7, 0, 3], true),
        (&[0], true),
    ];
    for (options, is_cut) in cases {
        for name in [".", "web.demo.svc.cluster.local."] {
            let bytes = query(name, options);
            assert_eq!(has_cut_option(&bytes), is_cut, "{name} {options:?}");
            let shape = if is_cut { Shape::Odd } else { Shape::Plain };
            assert_eq!(Question::new().read(&bytes), shape, "{name} {options:?}");
            // What is no OPT record at the end is another's affair.
            assert!(!has_cut_option(&bytes[..bytes.len() - options.len() - 1]), "{options:?}");
        }
    }
    assert!(!has_cut_option(&plain("web.", RecordType::A).to_vec().unwrap()));
    assert!(!has_cut_option(&[]));
}

/// Names as clients send them, wild ones included.
fn names() -> impl Strategy<Value = Name> {
    let label = proptest::collection::vec(any::<u8>(), 1..20);
    proptest::collection::vec(label, 0..8)
        .prop_filter_map("a name", |labels| Name::from_labels(labels).ok())
}

proptest! {
    #[test]
    fn whatever_is_plain_hickory_reads_the_same(
        name in names(),
        rtype in any::<u16>(),
        edns in proptest::option::of((any::<u16>(), any::<bool>())),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut message = Message::query();
        message.queries.push(Query::query(name, RecordType::from(rtype)));
        message.edns = edns.map(|(payload, dnssec_ok)| {
            let mut edns = HickoryEdns::new();
            edns.set_max_payload(payload);
            edns.set_dnssec_ok(dnssec_ok);
            edns
        });
        let mut bytes = message.to_vec().unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut question = Question::new();
        if question.read(&bytes) == Shape::Plain {
            let theirs = Message::from_vec(&bytes).unwrap();
            let asked = &theirs.queries[0];
            let lower = asked.name().to_lowercase().to_bytes().unwrap();
            prop_assert_eq!(question.name.as_bytes(), lower);
            prop_assert_eq!(question.qtype, u16::from(asked.query_type()));
            prop_assert_eq!(question.edns.is_some(), theirs.edns.is_some());
            if let (Some(ours), Some(theirs)) = (question.edns, &theirs.edns) {
                prop_assert_eq!(ours.dnssec_ok, theirs.flags().dnssec_ok);
                prop_assert_eq!(ours.payload_bytes.max(512), theirs.max_payload().max(512));
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        Question::new().read(&bytes);
    }
}

#[test]
fn a_client_network_that_is_none_is_a_format_error_found_by_mutating_questions() {
    let cases: [(&[u8], bool); 9] = [
        (&[0, 1, 24, 0, 192, 0, 2], true),
        (&[0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0], true),
        (&[0, 1, 0, 0], true),
        (&[0, 0, 0, 0], true),
        (&[0, 0, 8, 0, 192], false),
        // Which family? Longer than an address, shorter than it says, nothing.
        (&[0, 165, 24, 0, 192, 0, 2], false),
        (&[0, 1, 33, 0, 192, 0, 2, 1, 0], false),
        (&[0, 1, 24, 0, 192], false),
        (&[], false),
    ];
    for (data, good) in cases {
        assert_eq!(is_subnet(data), good, "{data:?}");
    }
}
