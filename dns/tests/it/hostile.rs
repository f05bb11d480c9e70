//! Messages nobody sends by accident.

use std::time::Instant;

use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use proptest::prelude::*;

use crate::{
    contract::objects,
    world::{PATIENCE, World, query, tcp, udp, udp_bytes},
};

const WEB: &str = "web.demo.svc.cluster.local.";

#[tokio::test]
async fn queries_that_are_refused_say_why() {
    let world = World::with(objects(), vec![]).await;
    let change = |change: fn(&mut Message)| {
        let mut message = query(WEB, RecordType::A);
        change(&mut message);
        message
    };
    let cases = [
        ("CHAOS", ResponseCode::Refused, change(|m| m.queries[0].query_class = DNSClass::CH)),
        ("AXFR", ResponseCode::Refused, change(|m| m.queries[0].query_type = RecordType::AXFR)),
        ("IXFR", ResponseCode::Refused, change(|m| m.queries[0].query_type = RecordType::IXFR)),
        ("UPDATE", ResponseCode::NotImp, change(|m| m.metadata.op_code = OpCode::Update)),
        ("NOTIFY", ResponseCode::NotImp, change(|m| m.metadata.op_code = OpCode::Notify)),
        ("STATUS", ResponseCode::NotImp, change(|m| m.metadata.op_code = OpCode::Status)),
        ("no question", ResponseCode::FormErr, change(|m| m.queries.clear())),
        (
            "two questions",
            ResponseCode::FormErr,
            change(|m| {
                m.queries.push(Query::query(Name::from_ascii(WEB).unwrap(), RecordType::MX));
            }),
        ),
    ];
    for (what, code, message) in cases {
        let reply = udp(world.v4(), &message).await;
        assert_eq!(reply.metadata.response_code, code, "{what} by UDP");
        assert!(reply.answers.is_empty(), "{what}");
        assert_eq!(tcp(world.v4(), &message).await.metadata.response_code, code, "{what} by TCP");
    }
    world.end().await;
}

#[tokio::test]
async fn malformed_queries_get_a_format_error_or_nothing() {
    let world = World::with(objects(), vec![]).await;
    let plain = query(WEB, RecordType::A).to_vec().unwrap();
    let cut = &plain[..plain.len() - 3];
    let mut endless = plain[..12].to_vec();
    // A name that points at itself.
    endless.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1]);
    let mut counts_lie = plain.clone();
    counts_lie[11] = 9;
    let mut two_opts = plain.clone();
    two_opts[11] = 2;
    two_opts.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0].repeat(2));
    let mut cut_option = plain.clone();
    cut_option[11] = 1;
    // NSID of five bytes, and one of them.
    cut_option.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 3, 0, 5, 7]);
    let cases: [(&str, &[u8]); 6] = [
        ("cut", cut),
        ("an option that is cut (RFC 6891 §6.1.2)", &cut_option),
        ("endless name", &endless),
        ("counts that lie", &counts_lie),
        ("two OPT records (RFC 6891 §6.1.1)", &two_opts),
        ("header only", &[&plain[..12]].concat()),
    ];
    for (what, bytes) in cases {
        let reply = udp_bytes(world.v4(), bytes).await;
        assert_eq!(reply[..2], bytes[..2], "{what}: id");
        assert_eq!(reply[3] & 0x0f, 1, "{what}: format error");
    }
    world.end().await;
}

#[tokio::test]
async fn odd_but_valid_queries_are_answered_from_the_zone() {
    let world = World::with(objects(), vec![]).await;
    // Trailing bytes after the question are nobody's business but not plain.
    let mut padded = query(WEB, RecordType::A).to_vec().unwrap();
    padded.extend_from_slice(&[0; 7]);
    let reply = Message::from_vec(&udp_bytes(world.v4(), &padded).await).unwrap();
    assert_eq!(reply.answers.len(), 1, "{reply}");
    // A record in a section where queries have none.
    let mut extra = query(WEB, RecordType::A);
    extra.additionals.push(hickory_proto::rr::Record::from_rdata(
        Name::root(),
        0,
        hickory_proto::rr::RData::A(std::net::Ipv4Addr::LOCALHOST.into()),
    ));
    assert_eq!(udp(world.v4(), &extra).await.answers.len(), 1);
    world.end().await;
}

/// Plain queries with some bytes changed, cut or added.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let valid = query(WEB, RecordType::A).to_vec().unwrap();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (changes, 0..=valid.len(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(
        move |(changes, keep, tail)| {
            let mut bytes = valid.clone();
            for (place, value) in changes {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            bytes.truncate(keep.max(12));
            bytes.extend(tail);
            bytes
        },
    )
}

#[test]
fn mangled_queries_never_hurt_and_never_get_a_wrong_reply() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::with(objects(), vec![]));
    let server = world.v4();
    let probe = query("dns-version.cluster.local.", RecordType::TXT).to_vec().unwrap();
    let handled = || {
        let counts = world.running.counts();
        let ended = counts.replies.iter().sum::<u64>() + counts.dropped.iter().sum::<u64>();
        (counts.udp_queries, ended)
    };
    let ask = |bytes: &[u8]| -> Option<Vec<u8>> {
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (sent_before, _) = handled();
        client.send(bytes).unwrap();
        let begun = Instant::now();
        // The slow path takes its time; the counters say when it is done.
        while handled().0 == sent_before || handled().1 < handled().0 {
            assert!(begun.elapsed() < PATIENCE, "neither answered nor dropped: {bytes:x?}");
            std::thread::yield_now();
        }
        client.send(&probe).unwrap();
        let mut buffer = [0; 4096];
        let mut reply = None;
        loop {
            let received = client.recv(&mut buffer).expect("the probe is answered");
            if buffer[..2] == probe[..2] {
                return reply;
            }
            reply = Some(buffer[..received].to_vec());
        }
    };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(512));
    let result = runner.run(&mangled(), |bytes| {
        prop_assume!(bytes[..2] != probe[..2]);
        if let Some(reply) = ask(&bytes) {
            prop_assert_eq!(&reply[..2], &bytes[..2]);
            prop_assert!(reply[2] & 0x80 != 0);
            let reply =
                Message::from_vec(&reply).map_err(|e| TestCaseError::fail(e.to_string()))?;
            // Only the very name may be answered, whatever the bytes were.
            for answer in &reply.answers {
                prop_assert_eq!(&answer.name, reply.queries[0].name());
            }
        }
        Ok(())
    });
    assert_eq!(world.running.counts().panics, 0);
    runtime.block_on(world.end());
    result.unwrap();
}
