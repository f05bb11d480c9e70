//! Rules together: each part that differs needs its own, and no rule covers for another.

use hickory_proto::{op::ResponseCode, rr::RecordType};
use serde_json::json;

use super::{
    explained,
    parts::{
        Kind::{AskedCase, DataCase, Missing, More, OwnerCase, Ttl, Weight},
        Part::{self, Authoritative, Code, DnssecOk, Flags, In, QuestionCase},
        Section::{Additionals, Answers, Authorities},
    },
    plain::{Line, Opt, Plain},
};
use crate::{
    cluster::Known,
    questions::{Edns, Question},
    setups::{SETUPS, Setup},
};

const CLUSTER_SOA: &str = "cluster.local. ? SOA ns.dns.cluster.local. hostmaster.cluster.local.";
const MIXED_SOA: &str = "Cluster.LOCAL. ? SOA ns.dns.cluster.local. hostmaster.cluster.local.";
const CHAOS: u16 = 3;
const NOTIFY: u8 = 4;

fn setup(name: &str) -> &'static Setup {
    SETUPS.iter().find(|setup| setup.name == name).unwrap()
}

/// Services `web` and `alias` in `demo`, and nothing else.
fn known() -> Known {
    let mut known = Known::default();
    for (name, kind) in [("web", "ClusterIP"), ("alias", "ExternalName")] {
        known.put_service("demo", name, json!({"spec": {"type": kind}}));
    }
    known
}

fn with_edns(question: Question, options: &[u16]) -> Question {
    let options = options.iter().map(|code| (*code, vec![])).collect();
    let edns = Edns { size: 1232, version: 0, dnssec_ok: false, options };
    Question { edns: Some(edns), ..question }
}

/// `OWNER TTL TYPE DATA`.
fn line(text: &str) -> Line {
    let words: Vec<_> = text.splitn(4, ' ').collect();
    let [owner, ttl, rtype, data] = words[..] else { panic!("{text}") };
    Line { owner: owner.into(), ttl: ttl.parse().ok(), rtype: rtype.into(), data: data.into() }
}

/// A reply to a question for this name, with records of its three sections.
fn reply(name: &str, code: ResponseCode, sections: [&[&str]; 3]) -> Plain {
    let [answers, authorities, additionals] =
        sections.map(|lines| lines.iter().map(|text| line(text)).collect());
    Plain {
        code,
        authoritative: true,
        flags: [false, false, true],
        edns: None,
        question: vec![format!("{name} IN A")],
        answers,
        authorities,
        additionals,
    }
}

fn denial(name: &str, code: ResponseCode, soa: &str) -> Plain {
    reply(name, code, [&[], &[soa], &[]])
}

fn refusal(name: &str, code: ResponseCode) -> Plain {
    Plain { authoritative: false, ..reply(name, code, [&[], &[], &[]]) }
}

fn opt(dnssec_ok: bool) -> Option<Opt> {
    Some(Opt { version: 0, dnssec_ok, options: vec![] })
}

fn judged(
    setup: &Setup,
    question: &Question,
    theirs: &Plain,
    ours: &Plain,
) -> Result<Vec<&'static str>, Vec<Part>> {
    let told = explained(setup, &known(), question, [theirs, ours]);
    told.map_err(|left| left.into_iter().collect())
}

/// A walk along the search path of `demo` that has found nothing.
const WALKED: [&str; 2] = ["_TCP.Web.demo.svc.Cluster.LOCAL.", "_TCP.Web.demo.svc.cluster.local."];

#[test]
fn a_walk_that_renames_is_told_beside_what_else_differs() {
    let [asked, renamed] = WALKED;
    let plain = Question::plain(asked, RecordType::A);
    let theirs = denial(renamed, ResponseCode::NXDomain, CLUSTER_SOA);
    let chaos = Question { class: CHAOS, ..plain.clone() };
    let notify = Question { opcode: NOTIFY, ..plain.clone() };
    for (question, ours, wanted) in [
        (&plain, denial(asked, ResponseCode::NXDomain, CLUSTER_SOA), vec!["owner-case"]),
        (&plain, denial(asked, ResponseCode::NXDomain, MIXED_SOA), vec!["owner-case"]),
        (&plain, denial(asked, ResponseCode::NoError, MIXED_SOA), vec!["ent-exists", "owner-case"]),
        (&chaos, refusal(asked, ResponseCode::Refused), vec!["other-classes", "owner-case"]),
        (&notify, refusal(asked, ResponseCode::NotImp), vec!["notify", "owner-case"]),
    ] {
        let told = judged(setup("autopath"), question, &theirs, &ours);
        assert_eq!(told, Ok(wanted), "{question}: {ours:?}");
    }
}

#[test]
fn a_walk_that_renames_excuses_nothing_else() {
    let [asked, renamed] = WALKED;
    let question = Question::plain(asked, RecordType::A);
    let theirs = denial(renamed, ResponseCode::NXDomain, CLUSTER_SOA);
    let ours = denial(asked, ResponseCode::NXDomain, MIXED_SOA);
    let other = denial("web.demo.svc.cluster.local.", ResponseCode::NXDomain, MIXED_SOA);
    let denied = ResponseCode::NXDomain;
    for (setup_name, ours, left) in [
        (
            "autopath",
            refusal(asked, ResponseCode::Refused),
            vec![Code, Authoritative, In(Authorities, Missing)],
        ),
        ("autopath", reply(asked, denied, [&[], &[], &[]]), vec![In(Authorities, Missing)]),
        ("autopath", Plain { flags: [true, false, true], ..ours.clone() }, vec![Flags]),
        ("autopath", Plain { edns: opt(true), ..ours.clone() }, vec![Part::Edns, DnssecOk]),
        ("autopath", other, vec![Part::Question]),
        // Nobody walks there.
        ("kubeadm", denial(asked, denied, CLUSTER_SOA), vec![QuestionCase]),
    ] {
        let told = judged(setup(setup_name), &question, &theirs, &ours);
        assert_eq!(told, Err(left), "{setup_name}: {ours:?}");
    }
    // Ours is the one that has changed the name. What its SOA is of is written as what was meant.
    let told = judged(setup("autopath"), &question, &ours, &theirs);
    assert_eq!(told, Err(vec![QuestionCase]));
}

const ASKED: &str = "_http._tcp.WEB.demo.svc.cluster.local.";

/// A server's name below a Service's; so long that few have room in 512 bytes.
fn server(host: &str, service: &str) -> String {
    format!("{}.{service}.demo.svc.cluster.local.", host.repeat(60))
}

/// A reply about two servers.
fn servers(question: &Question, service: &str, weight: u8, additionals: &[String]) -> Plain {
    let record = |host| format!("{ASKED} 5 SRV 0 {weight} 8080 {}", server(host, service));
    let answers = ["a", "b"].map(record);
    let [answers, additionals] = [&answers[..], additionals]
        .map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
    let edns = question.edns.as_ref().and_then(|_| opt(false));
    Plain { edns, ..reply(ASKED, ResponseCode::NoError, [&answers, &[], &additionals]) }
}

#[test]
fn differences_in_one_section_are_told_one_by_one() {
    let plain = Question::plain(ASKED, RecordType::SRV);
    let roomy = with_edns(plain.clone(), &[]);
    let address = |host, service, ttl: u8, last: u8| {
        format!("{} {ttl} A 10.1.0.{last}", server(host, service))
    };
    let (a, b) = (address("a", "web", 5, 1), address("b", "web", 5, 2));
    let also_b = address("b", "web", 5, 3);
    let late_b = address("b", "web", 9, 2);
    let nobody = "x.test. 5 A 10.1.0.9".to_owned();
    let cut = In(Additionals, Missing);
    for (question, weight, ours, wanted) in [
        (&roomy, 50, vec![&a, &b], Ok(vec!["target-case"])),
        (&roomy, 33, vec![&a, &b], Ok(vec!["target-case", "srv-weight"])),
        (&roomy, 50, vec![&a, &b, &also_b], Ok(vec!["target-case", "additional-all"])),
        (&plain, 50, vec![&a], Ok(vec!["target-case", "additional-room"])),
        (
            &plain,
            33,
            vec![&a, &also_b],
            Ok(vec!["target-case", "srv-weight", "additional-room", "additional-all"]),
        ),
        (&roomy, 33, vec![&a], Err(vec![cut])),
        (&roomy, 50, vec![&nobody, &a, &b], Err(vec![In(Additionals, More)])),
        (&roomy, 50, vec![&a, &late_b], Err(vec![In(Additionals, Ttl)])),
    ] {
        let ours: Vec<_> = ours.into_iter().cloned().collect();
        let there = [address("a", "WEB", 5, 1), address("b", "WEB", 5, 2)];
        let theirs = servers(question, "WEB", weight, &there);
        let ours = servers(question, "web", 50, &ours);
        assert_eq!(judged(setup("kubeadm"), question, &theirs, &ours), wanted, "{ours:?}");
    }
}

#[test]
fn weights_are_a_hundred_s_parts_and_the_same_for_all() {
    let question = Question::plain(ASKED, RecordType::SRV);
    let left = || Err(vec![In(Answers, Weight)]);
    for (theirs, ours, wanted) in [
        (33, 50, Ok(vec!["srv-weight"])),
        (50, 33, Ok(vec!["srv-weight"])),
        (50, 51, left()),
        (0, 0, Ok(vec![])),
        (1, 0, left()),
    ] {
        let [theirs, ours] = [theirs, ours].map(|weight| servers(&question, "web", weight, &[]));
        assert_eq!(judged(setup("kubeadm"), &question, &theirs, &ours), wanted, "{ours:?}");
    }
    // Each of a reply has the same.
    let theirs = servers(&question, "web", 33, &[]);
    let mut ours = servers(&question, "web", 50, &[]);
    ours.answers[1] = theirs.answers[1].clone();
    assert_eq!(judged(setup("kubeadm"), &question, &theirs, &ours), left());
    // What a walk puts in front of them has none.
    for (weight, wanted) in [(50, Ok(vec!["srv-weight"])), (51, left())] {
        let [theirs, ours] = [33, weight].map(|weight| {
            let mut found = servers(&question, "web", weight, &[]);
            found.answers.insert(0, line(&format!("web.demo. 5 CNAME {ASKED}")));
            found
        });
        assert_eq!(judged(setup("autopath"), &question, &theirs, &ours), wanted, "{ours:?}");
    }
}

#[test]
fn a_server_or_an_address_that_only_one_tells_is_no_matter_of_letter_case_or_weight() {
    let question = Question::plain(ASKED, RecordType::SRV);
    let theirs = servers(&question, "WEB", 50, &[]);
    let mut ours = servers(&question, "web", 50, &[]);
    ours.answers.pop();
    let left = vec![In(Answers, Missing)];
    assert_eq!(judged(setup("kubeadm"), &question, &theirs, &ours), Err(left.clone()));
    let mut theirs = theirs;
    theirs.answers.pop();
    theirs.answers.push(line(&format!("{ASKED} 5 SRV 0 50 9 {}", server("a", "WEB"))));
    let left = [left, vec![In(Answers, More)]].concat();
    let ours = servers(&question, "web", 50, &[]);
    assert_eq!(judged(setup("kubeadm"), &question, &theirs, &ours), Err(left));
}

#[test]
fn targets_are_lower_case_here_and_not_there() {
    let question = Question::plain(ASKED, RecordType::SRV);
    let mixed = servers(&question, "WEB", 50, &[]);
    let lower = servers(&question, "web", 50, &[]);
    assert_eq!(judged(setup("kubeadm"), &question, &mixed, &lower), Ok(vec!["target-case"]));
    let told = judged(setup("kubeadm"), &question, &lower, &mixed);
    assert_eq!(told, Err(vec![In(Answers, DataCase)]));
}

#[test]
fn an_identifier_that_sets_do_is_told_beside_what_else_differs() {
    let name = "_tcp.web.demo.svc.cluster.local.";
    let plain = Question::plain(name, RecordType::A);
    let (asks, does_not) = (with_edns(plain.clone(), &[3]), with_edns(plain, &[]));
    let denied = denial(name, ResponseCode::NXDomain, CLUSTER_SOA);
    let empty = denial(name, ResponseCode::NoError, CLUSTER_SOA);
    let theirs = Plain { edns: opt(true), ..denied.clone() };
    let with_opt = |plain: &Plain| Plain { edns: opt(false), ..plain.clone() };
    for (question, ours, wanted) in [
        (&asks, with_opt(&denied), Ok(vec!["nsid-do"])),
        (&asks, with_opt(&empty), Ok(vec!["ent-exists", "nsid-do"])),
        (&asks, empty.clone(), Err(vec![Part::Edns])),
        (&does_not, with_opt(&empty), Err(vec![DnssecOk])),
    ] {
        let told = judged(setup("small-plugins"), question, &theirs, &ours);
        assert_eq!(told, wanted, "{question}: {ours:?}");
    }
}

#[test]
fn names_are_as_whoever_asked_first_wrote_them_and_live_on() {
    let asked = "Alias.demo.svc.cluster.local.";
    let question = Question::plain(asked, RecordType::A);
    let address = |owner: &str, ttl: u8| format!("{owner} {ttl} A 10.96.0.1");
    let of = |line: &str| reply(asked, ResponseCode::NoError, [&[line], &[], &[]]);
    let theirs = of(&address("ALIAS.demo.svc.cluster.local.", 7));
    let case = In(Answers, AskedCase);
    for (setup_name, ours, wanted) in [
        ("cached", of(&address(asked, 30)), Ok(vec!["owner-case", "zone-cached"])),
        ("cached", of(&address(asked, 7)), Ok(vec!["owner-case"])),
        // Less than what is kept has left.
        ("cached", of(&address(asked, 6)), Err(vec![In(Answers, Ttl)])),
        // Not as in the question.
        ("cached", of(&address("alias.demo.svc.cluster.local.", 7)), Err(vec![case])),
        ("kubeadm", of(&address(asked, 30)), Err(vec![In(Answers, Ttl), case])),
    ] {
        let told = judged(setup(setup_name), &question, &theirs, &ours);
        assert_eq!(told, wanted, "{setup_name}: {ours:?}");
    }
}

#[test]
fn flags_of_other_opcodes_are_told_and_no_others() {
    const STATUS: u8 = 2;
    let name = "web.demo.svc.cluster.local.";
    let asked = |opcode, ad| Question {
        opcode,
        flags: [true, ad, false],
        ..Question::plain(name, RecordType::A)
    };
    let bare = |flags| Plain { flags, question: vec![], ..refusal(name, ResponseCode::NotImp) };
    let answered = |flags| Plain { flags, ..denial(name, ResponseCode::NXDomain, CLUSTER_SOA) };
    let ours = refusal(name, ResponseCode::NotImp);
    for (question, theirs, wanted) in [
        (asked(STATUS, true), bare([true, false, true]), Ok(vec!["opcode-reply"])),
        (asked(STATUS, false), bare([false, false, true]), Ok(vec!["opcode-reply"])),
        (asked(STATUS, false), bare([true, false, true]), Err(vec![Flags])),
        (asked(NOTIFY, false), answered([false; 3]), Ok(vec!["notify"])),
        (asked(NOTIFY, false), answered([true, false, true]), Err(vec![Flags])),
    ] {
        assert_eq!(judged(setup("kubeadm"), &question, &theirs, &ours), wanted, "{question}");
    }
}

#[test]
fn one_time_to_live_is_told_beside_weights() {
    let name = "web.demo.example.org.";
    let question = Question::plain(name, RecordType::SRV);
    let of = |ttl: u8, weight: u8| {
        let line = format!("{name} {ttl} SRV 0 {weight} 8080 a.{name}");
        reply(name, ResponseCode::NoError, [&[line.as_str()], &[], &[]])
    };
    for (setup_name, ours, wanted) in [
        ("outside", of(9, 50), Ok(vec!["external-names"])),
        ("outside", of(9, 100), Ok(vec!["external-names", "srv-weight"])),
        ("outside", of(8, 100), Err(vec![In(Answers, Ttl)])),
        ("kubeadm", of(9, 50), Err(vec![In(Answers, Ttl)])),
    ] {
        let told = judged(setup(setup_name), &question, &of(5, 50), &ours);
        assert_eq!(told, wanted, "{setup_name}: {ours:?}");
    }
}

#[test]
fn an_alias_that_is_told_there_is_told_here() {
    let name = "alias.demo.svc.cluster.local.";
    let question = Question::plain(name, RecordType::A);
    let alias = format!("{name} 5 CNAME nope.example.");
    let of = |code, has_alias: bool, authorities: &[&str]| {
        let answers: &[&str] = if has_alias { &[&alias] } else { &[] };
        reply(name, code, [answers, authorities, &[]])
    };
    let (found, denied) = (ResponseCode::NoError, ResponseCode::NXDomain);
    let theirs = of(found, true, &[]);
    for (ours, wanted) in [
        (of(found, true, &[CLUSTER_SOA]), Ok(vec!["alias-nodata"])),
        (of(denied, true, &[CLUSTER_SOA]), Ok(vec!["alias-code"])),
        (of(ResponseCode::ServFail, false, &[]), Ok(vec!["alias-code"])),
        (of(found, false, &[CLUSTER_SOA]), Err(vec![In(Answers, Missing), In(Authorities, More)])),
        (of(denied, true, &[]), Err(vec![Code])),
    ] {
        assert_eq!(judged(setup("kubeadm"), &question, &theirs, &ours), wanted, "{ours:?}");
    }
}

#[test]
fn where_an_alias_leads_its_zone_is_written_as_there() {
    let name = "Alias.demo.svc.Cluster.LOCAL.";
    let question = Question::plain(name, RecordType::HINFO);
    let alias = format!("{name} 5 CNAME web.demo.svc.cluster.local.");
    let ours = reply(name, ResponseCode::NXDomain, [&[alias.as_str()], &[CLUSTER_SOA], &[]]);
    let theirs = denial(name, ResponseCode::NoError, MIXED_SOA);
    let told = judged(setup("kubeadm"), &question, &theirs, &ours);
    assert_eq!(told, Ok(vec!["alias-any-type"]));
    // No alias there.
    let other = "Web.demo.svc.Cluster.LOCAL.";
    let question = Question::plain(other, RecordType::HINFO);
    let [theirs, ours] =
        [MIXED_SOA, CLUSTER_SOA].map(|soa| denial(other, ResponseCode::NoError, soa));
    let told = judged(setup("kubeadm"), &question, &theirs, &ours);
    assert_eq!(told, Err(vec![In(Authorities, OwnerCase)]));
}

#[test]
fn a_name_that_is_none_here_is_passed_on_where_all_are() {
    let name = "_._tcp.web.demo.svc.cluster.local.";
    let question = Question::plain(name, RecordType::ANY);
    let theirs = denial(name, ResponseCode::NoError, CLUSTER_SOA);
    let hinfo = format!("{name} 8482 HINFO RFC8482 ");
    let ours = reply(name, ResponseCode::NoError, [&[hinfo.as_str()], &[], &[]]);
    let told = judged(setup("pods-disabled"), &question, &theirs, &ours);
    assert_eq!(told, Ok(vec!["empty-port"]));
    let told = judged(setup("kubeadm"), &question, &theirs, &ours);
    assert_eq!(told, Err(vec![In(Answers, More), In(Authorities, Missing)]));
}

#[test]
fn one_or_two_labels_in_front_of_a_pod_change_nothing_there() {
    for (front, is_allowed) in [("x", true), ("a.b", true), ("a.b.c", false)] {
        let name = format!("{front}.1-2-3-4.demo.pod.cluster.local.");
        let question = Question::plain(&name, RecordType::A);
        let answer = format!("{name} 30 A 1.2.3.4");
        let theirs = reply(&name, ResponseCode::NoError, [&[&answer], &[], &[]]);
        let ours = denial(&name, ResponseCode::NXDomain, CLUSTER_SOA);
        let told = judged(setup("kubeadm"), &question, &theirs, &ours).ok();
        assert_eq!(told, is_allowed.then(|| vec!["pod-below"]), "{name}");
        // The other way about nothing is.
        assert!(judged(setup("kubeadm"), &question, &ours, &theirs).is_err(), "{name}");
    }
}

/// Any answer was excused where both had an alias, and every search by a client's path has one.
#[test]
fn an_alias_that_a_walk_adds_excuses_no_other_answer() {
    let (asked, found) = ("db.prod.demo.svc.cluster.local.", "db.prod.svc.cluster.local.");
    let walked = format!("{asked} 5 CNAME {found}");
    let address = format!("{found} 5 A 10.96.0.7");
    let own = "alias.demo.svc.cluster.local.";
    let alias = format!("{own} 5 CNAME www.example.");
    let (again, there) = (format!("{own} 60 CNAME www.example."), "www.example. 60 A 192.0.2.1");
    let gone = format!("{own} 5 CNAME nope.example.");
    let (yes, no) = (ResponseCode::NoError, ResponseCode::NXDomain);
    let soa = ". ? SOA ns.example. admin.example.";
    let of = |name: &str, code, answers: &[&str], authorities: &[&str]| {
        reply(name, code, [answers, authorities, &[]])
    };
    let whole = of(asked, yes, &[&walked, &address], &[]);
    let twice = of(own, yes, &[&again, &alias, there], &[]);
    for (theirs, ours, is_allowed) in [
        (&twice, of(own, yes, &[&alias, there], &[]), true),
        (&twice, of(own, yes, &[&alias], &[]), false),
        (&twice, of(own, no, &[&alias, there], &[]), false),
        (&twice, of(own, yes, &[there], &[]), false),
        (&whole, of(asked, yes, &[&walked], &[]), false),
        (&whole, of(asked, no, &[&walked], &[]), false),
        (&whole, of(asked, no, &[&walked], &[CLUSTER_SOA]), false),
        (&of(asked, yes, &[&walked, &gone], &[]), of(asked, no, &[&walked, &gone], &[soa]), true),
        (&of(asked, yes, &[&walked, &gone], &[]), of(asked, no, &[&walked, &gone], &[]), false),
        (&of(asked, yes, &[&walked, &gone], &[]), of(asked, no, &[&walked], &[soa]), false),
    ] {
        let name = theirs.question[0].split(' ').next().unwrap();
        let question = Question::plain(name, RecordType::A);
        let told = judged(setup("autopath"), &question, theirs, &ours).ok();
        assert_eq!(told, is_allowed.then(|| vec!["autopath-alias"]), "{theirs:?} {ours:?}");
    }
}

#[test]
fn a_reverse_zones_own_name_differs_in_its_servers_and_text_alone() {
    let zone = "ip6.arpa.";
    let soa = "ip6.arpa. ? SOA ns.dns.ip6.arpa. hostmaster.ip6.arpa.";
    let server = |name: &str| format!("{zone} 30 NS {name}");
    let (there, here) = (server("ns.dns.ip6.arpa."), server("ns.dns.cluster.local."));
    let [theirs, ours] = [&there, &here].map(|line| {
        let lines = [line.as_str()];
        reply(zone, ResponseCode::NoError, [&lines, &[], &[]])
    });
    let denied = denial(zone, ResponseCode::NXDomain, soa);
    let empty = denial(zone, ResponseCode::NoError, soa);
    // Nobody is as good as no other server, and of the right one no address is known here.
    let nobody = reply(zone, ResponseCode::NoError, [&[], &[], &[]]);
    let glue = ["ns.dns.cluster.local. 30 A 192.0.2.66"];
    let glued = reply(zone, ResponseCode::NoError, [&[here.as_str()], &[], &glue]);
    for (rtype, theirs, ours, rule) in [
        (RecordType::NS, &theirs, &nobody, None),
        (RecordType::NS, &theirs, &glued, None),
        (RecordType::NS, &theirs, &ours, Some("name-server")),
        (RecordType::TXT, &denied, &empty, Some("ent-exists")),
        (RecordType::NS, &theirs, &denied, None),
        (RecordType::PTR, &empty, &denied, None),
        (RecordType::SOA, &theirs, &denied, None),
    ] {
        let question = Question::plain(zone, rtype);
        let told = judged(setup("kubeadm"), &question, theirs, ours).ok();
        assert_eq!(told, rule.map(|rule| vec![rule]), "{rtype} {ours:?}");
    }
}

#[test]
fn what_a_kept_alias_leads_to_is_written_as_in_the_question() {
    let asked = "Alias.eXample.";
    let question = Question::plain(asked, RecordType::SRV);
    let of = |target: &str| {
        let line = format!("{asked} ? CNAME {target}");
        reply(asked, ResponseCode::NoError, [&[line.as_str()], &[], &[]])
    };
    let case = In(Answers, DataCase);
    for (setup_name, target, wanted) in [
        ("cached", "www.eXample.", Ok(vec!["owner-case"])),
        ("cached", "www.examplE.", Err(vec![case])),
        ("kubeadm", "www.eXample.", Err(vec![case])),
    ] {
        let told = judged(setup(setup_name), &question, &of("www.example."), &of(target));
        assert_eq!(told, wanted, "{setup_name} {target}");
    }
}
