//! `header`, `nsid`, `dns64`, `whoami`, `view` and the rarer rules of `rewrite`: what CoreDNS
//! answers by the same Corefile.

use std::sync::{Arc, Mutex};

use hickory_proto::{
    op::{Edns, Message, ResponseCode},
    rr::{
        DNSClass, RData, RecordType,
        rdata::opt::{ClientSubnet, EdnsCode, EdnsOption, NSIDPayload},
    },
};

use crate::{
    contract::objects,
    forward::{address, knows, reply_to, upstream},
    world::{World, ip, query, tcp, text, udp, udp_bytes},
};

const WEB: &str = "web.demo.svc.cluster.local.";
const A: RecordType = RecordType::A;
const AAAA: RecordType = RecordType::AAAA;

#[tokio::test]
async fn header_changes_flags_of_replies_on_every_path() {
    let corefile = format!(
        ".:53 {{\n header {{\n response clear ra\n response set aa rd\n }}\n \
         kubernetes cluster.local\n cache\n forward . {}\n}}\n",
        upstream(knows).await
    );
    let world = World::by(&corefile, objects()).await;
    let slow = world.running.counts().slow_queries;
    for name in [WEB, "www.example.", "www.example."] {
        let mut asked = query(name, A);
        asked.metadata.recursion_desired = true;
        for reply in [udp(world.v4(), &asked).await, tcp(world.v4(), &asked).await] {
            let flags = reply.metadata;
            assert_eq!(
                (flags.authoritative, flags.recursion_available, flags.recursion_desired),
                (true, false, true),
                "{name}"
            );
            assert!(!reply.answers.is_empty(), "{reply}");
        }
    }
    assert_eq!(world.running.counts().slow_queries, slow + 1, "the first question for a name");
    world.end().await;
}

#[tokio::test]
async fn header_changes_flags_of_questions_before_they_are_answered() {
    // Without RD this upstream would not look further.
    let upstream = upstream(|asked| {
        let wants = asked.metadata.recursion_desired;
        let code = if wants { ResponseCode::NoError } else { ResponseCode::Refused };
        vec![reply_to(asked, code)]
    })
    .await;
    for (rule, wanted) in [
        ("query set rd", ResponseCode::NoError),
        ("query clear rd", ResponseCode::Refused),
        ("response set aa", ResponseCode::Refused),
    ] {
        let corefile = format!(".:53 {{\n header {{\n {rule}\n }}\n forward . {upstream}\n}}\n");
        let world = World::by(&corefile, vec![]).await;
        let mut asked = query("www.example.", A);
        asked.metadata.recursion_desired = false;
        let reply = udp(world.v4(), &asked).await;
        assert_eq!(reply.metadata.response_code, wanted, "{rule}");
        world.end().await;
    }
}

fn nsid(reply: &Message) -> Option<Vec<u8>> {
    match reply.edns.as_ref()?.option(EdnsCode::NSID)? {
        EdnsOption::NSID(id) => Some(id.as_ref().to_vec()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nsid_names_the_server_to_those_who_ask() {
    let corefile = format!(
        ".:53 {{\n nsid Use The Force\n kubernetes cluster.local\n forward . {}\n}}\n",
        upstream(knows).await
    );
    let world = World::by(&corefile, objects()).await;
    for name in [WEB, "www.example.", "nope.demo.svc.cluster.local."] {
        let mut asked = query(name, A);
        asked.edns = Some(hickory_proto::op::Edns::new());
        assert_eq!(nsid(&udp(world.v4(), &asked).await), None, "{name}");
        let option = EdnsOption::NSID(NSIDPayload::new([]).unwrap());
        asked.edns.as_mut().unwrap().options_mut().insert(option);
        for reply in [udp(world.v4(), &asked).await, tcp(world.v4(), &asked).await] {
            assert_eq!(nsid(&reply).as_deref(), Some(&b"Use The Force"[..]), "{name}");
        }
    }
    world.end().await;
    let world = World::by(".:53 {\n nsid\n whoami\n}\n", vec![]).await;
    let mut asked = query("example.", A);
    let option = EdnsOption::NSID(NSIDPayload::new([]).unwrap());
    asked.edns = Some(hickory_proto::op::Edns::new());
    asked.edns.as_mut().unwrap().options_mut().insert(option);
    let name = nsid(&udp(world.v4(), &asked).await).unwrap();
    let hostname = std::fs::read("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(name, hostname.trim_ascii());
    world.end().await;
}

#[tokio::test]
async fn whoami_says_who_asks_when_nobody_else_answers() {
    let corefile = format!(
        ".:53 {{\n whoami\n kubernetes cluster.local\n forward example {}\n}}\n",
        upstream(knows).await
    );
    let world = World::by(&corefile, objects()).await;
    assert_eq!(world.ask(WEB, A).await.answers.len(), 1);
    assert_eq!(world.ask("www.example.", A).await.answers.len(), 2);
    let asked = query("Who.Am.I.", RecordType::TXT);
    for (server, proto, kind, address) in [
        (world.v4(), "_udp", "A", "127.0.0.1"),
        (world.v6(), "_udp", "AAAA", "::1"),
        (world.v4(), "_tcp", "A", "127.0.0.1"),
    ] {
        let reply = match proto {
            "_udp" => udp(server, &asked).await,
            _ => tcp(server, &asked).await,
        };
        assert!(reply.answers.is_empty() && reply.metadata.authoritative, "{reply}");
        let [who, port] = &reply.additionals[..] else { panic!("{reply}") };
        assert_eq!(text(std::slice::from_ref(who)), [format!("Who.Am.I. {kind} {address}")]);
        assert_eq!(port.name.to_ascii(), format!("{proto}.Who.Am.I."));
        let RData::SRV(srv) = &port.data else { panic!("{port}") };
        assert!(srv.port > 0 && srv.target.is_root(), "{port}");
    }
    world.end().await;
}

#[tokio::test]
async fn dns64_makes_ipv6_addresses_where_there_are_none() {
    let options = [
        // By IPv4 only if allowed.
        ("dns64", false, false),
        ("dns64 {\n allow_ipv4\n }", true, false),
        ("dns64 {\n allow_ipv4\n translate_all\n }", true, true),
    ];
    for (plugin, by_ipv4, translates_all) in options {
        let corefile = format!(
            ".:53 {{\n {plugin}\n kubernetes cluster.local\n cache\n forward . {}\n}}\n",
            upstream(knows).await
        );
        let world = World::by(&corefile, objects()).await;
        let made = |name: &str, last: &str| vec![format!("{name} AAAA 64:ff9b::{last}")];
        for (server, is_translated) in [(world.v6(), true), (world.v4(), by_ipv4)] {
            let only_v4 = "single.demo.svc.cluster.local.";
            let reply = udp(server, &query(only_v4, AAAA)).await;
            let wanted = if is_translated { made(only_v4, "a60:2") } else { vec![] };
            assert_eq!(text(&reply.answers), wanted, "{plugin} {server}");
            // Of upstreams, and from the cache.
            for _ in 0..2 {
                let reply = udp(server, &query("www.example.", AAAA)).await;
                let mut wanted = vec!["www.example. CNAME web.example.".to_owned()];
                if is_translated {
                    wanted.extend(made("web.example.", "c000:201"));
                }
                wanted.sort();
                assert_eq!(text(&reply.answers), wanted, "{plugin} {server}");
            }
            // No name stays no name; IPv4 is asked for as ever.
            let none = udp(server, &query("nope.demo.svc.cluster.local.", AAAA)).await;
            assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
            let four = udp(server, &query(WEB, A)).await;
            assert_eq!(text(&four.answers), [format!("{WEB} A 10.96.0.1")]);
            // Its own addresses go before.
            let reply = udp(server, &query(WEB, AAAA)).await;
            let own = vec![format!("{WEB} AAAA fd00::a1")];
            let wanted = match translates_all && is_translated {
                true => made(WEB, "a60:1"),
                false => own,
            };
            assert_eq!(text(&reply.answers), wanted, "{plugin} {server}");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn loadbalance_prefers_networks_in_their_order() {
    let to = upstream(|asked| {
        let mut reply = reply_to(asked, ResponseCode::NoError);
        reply.answers = (1..=4).map(|last| address("www.example.", 60, last)).collect();
        vec![reply]
    })
    .await;
    let corefile = format!(
        ".:53 {{\n loadbalance round_robin {{\n prefer 192.0.2.3/32 10.1.0.2/31\n prefer 192.0.2.4/32\n }}\n \
         kubernetes cluster.local\n cache\n forward . {to}\n}}\n"
    );
    let world = World::by(&corefile, objects()).await;
    for _ in 0..10 {
        // First from the upstream, then from the cache.
        let reply = world.ask("www.example.", RecordType::A).await;
        let order: Vec<_> = reply.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(order[..2], ["192.0.2.3", "192.0.2.4"], "{reply}");
        assert_eq!(order.len(), 4);
        let reply = world.ask("db.demo.svc.cluster.local.", RecordType::A).await;
        let order: Vec<_> = reply.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(order, ["10.1.0.2", "10.1.0.1"], "{reply}");
    }
    world.end().await;
}

#[tokio::test]
async fn the_first_view_that_holds_answers() {
    let hosts = |last: u8| format!("hosts {{\n 192.0.2.{last} a.test b.test\n }}");
    let corefile = format!(
        ".:53 {{\n view six {{\n expr incidr(client_ip(), '::1/128')\n }}\n {}\n}}\n\
         .:53 {{\n view b {{\n expr name() == 'b.test.' && proto() == 'udp'\n }}\n {}\n}}\n\
         .:53 {{\n {}\n}}\n\
         test:53 {{\n view none {{\n expr false\n }}\n {}\n}}\n",
        hosts(6),
        hosts(2),
        hosts(1),
        hosts(9),
    );
    let world = World::by(&corefile, vec![]).await;
    let first = |reply: &Message| text(&reply.answers).concat();
    let cases = [
        (udp(world.v4(), &query("a.test.", A)).await, "a.test. A 192.0.2.1"),
        (udp(world.v4(), &query("B.test.", A)).await, "B.test. A 192.0.2.2"),
        (tcp(world.v4(), &query("b.test.", A)).await, "b.test. A 192.0.2.1"),
        (udp(world.v6(), &query("b.test.", A)).await, "b.test. A 192.0.2.6"),
    ];
    for (reply, wanted) in cases {
        assert_eq!(first(&reply), wanted);
    }
    world.end().await;
}

#[tokio::test]
async fn rewrite_class_serves_another_class_as_in() {
    let corefile = ".:53 {\n rewrite class CH IN\n kubernetes cluster.local\n}\n";
    for (corefile, class, wanted) in [
        (corefile, DNSClass::CH, ResponseCode::NoError),
        (corefile, DNSClass::HS, ResponseCode::Refused),
        (".:53 {\n kubernetes cluster.local\n}\n", DNSClass::CH, ResponseCode::Refused),
    ] {
        let world = World::by(corefile, objects()).await;
        let name = "Web.demo.SVC.cluster.local.";
        let mut asked = query(name, A);
        asked.queries[0].set_query_class(class);
        let reply = udp(world.v4(), &asked).await;
        assert_eq!(reply.metadata.response_code, wanted, "{class}");
        let answers = usize::from(wanted == ResponseCode::NoError);
        let owners: Vec<_> = reply.answers.iter().map(|record| record.name.to_ascii()).collect();
        assert_eq!(owners, vec![name; answers], "{class}");
        world.end().await;
    }
}

#[tokio::test]
async fn rewrite_cname_leads_an_alias_elsewhere() {
    let corefile = format!(
        ".:53 {{\n rewrite cname suffix b.example. other.test.\n \
         hosts {{\n 192.0.2.77 weother.test\n fallthrough\n }}\n forward . {}\n}}\n",
        upstream(knows).await
    );
    let world = World::by(&corefile, vec![]).await;
    let reply = world.ask("www.example.", A).await;
    assert_eq!(
        text(&reply.answers),
        ["weother.test. A 192.0.2.77", "www.example. CNAME weother.test."]
    );
    // A rule that leads to itself ends.
    let corefile = format!(
        ".:53 {{\n rewrite cname web.example www.example\n forward . {}\n}}\n",
        upstream(knows).await
    );
    let again = World::by(&corefile, vec![]).await;
    assert!(!again.ask("www.example.", A).await.answers.is_empty());
    again.end().await;
    world.end().await;
}

#[tokio::test]
async fn a_client_network_of_no_family_is_none_found_by_fuzzing() {
    let to = upstream(knows).await;
    // dig's `+subnet=0` (RFC 7871 §7.1.2): forwarded, logged, rewritten, and from the zone.
    let corefile = format!(
        ".:53 {{\n kubernetes cluster.local\n log\n rewrite name exact old.example www.example\n forward . {to}\n}}\n"
    );
    let world = World::by(&corefile, objects()).await;
    for name in ["www.example.", "old.example.", "web.demo.svc.cluster.local."] {
        let mut asked = query(name, A);
        asked.edns = Some(hickory_proto::op::Edns::new());
        let none = EdnsOption::Unknown(8, vec![0, 0, 0, 0]);
        asked.edns.as_mut().unwrap().options_mut().insert(none);
        let bytes = asked.to_vec().unwrap();
        assert!(Message::from_vec(&bytes).is_err(), "hickory takes it as it is: no need of ours");
        let reply = Message::from_vec(&udp_bytes(world.v4(), &bytes).await).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name}");
        assert!(!reply.answers.is_empty(), "{name}");
    }
    world.end().await;
}

#[tokio::test]
async fn rewrite_edns0_tells_upstreams_the_clients_network() {
    let seen = Arc::<Mutex<Vec<Option<String>>>>::default();
    let noted = seen.clone();
    let to = upstream(move |asked| {
        let option = asked.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Subnet));
        let told = option.map(|option| match option {
            EdnsOption::Subnet(net) => format!("{}/{}", net.addr(), net.source_prefix()),
            other => panic!("{other:?}"),
        });
        noted.lock().unwrap().push(told);
        knows(asked)
    })
    .await;
    let mut own = query("www.example.", A);
    own.edns = Some(hickory_proto::op::Edns::new());
    let subnet = ClientSubnet::new(ip("203.0.113.0"), 24, 0);
    own.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Subnet(subnet));
    let without = query("www.example.", A);
    let (v4, v6) = (Some("127.0.0.0/8".to_owned()), Some("::/64".to_owned()));
    // What is asked by IPv4, by IPv6, and by IPv4 with an option of the client's.
    let cases = [
        ("set 8 64", [v4.clone(), v6.clone(), v4.clone()]),
        ("append 8 64", [v4.clone(), v6, None]),
        ("replace 8 64", [None, None, v4]),
        ("unset", [None, None, None]),
    ];
    for (rule, wanted) in cases {
        let corefile =
            format!(".:53 {{\n rewrite edns0 subnet {rule}\n cache\n forward . {to}\n}}\n");
        let world = World::by(&corefile, vec![]).await;
        seen.lock().unwrap().clear();
        for (server, asked) in [(world.v4(), &without), (world.v6(), &without), (world.v4(), &own)]
        {
            let reply = udp(server, asked).await;
            assert_eq!(reply.answers.len(), 2, "{rule}");
        }
        // Each network's answer is kept for itself.
        let mut told: Vec<_> = seen.lock().unwrap().clone();
        let mut wanted = wanted.to_vec();
        told.sort();
        wanted.sort();
        wanted.dedup();
        assert_eq!(told, wanted, "{rule}");
        world.end().await;
    }
}

#[tokio::test]
async fn minimal_leaves_nothing_beside_the_answer_but_what_a_denial_needs() {
    let rest = |minimal: &str| {
        format!(
            ".:53 {{\n {minimal}\n kubernetes cluster.local\n template IN A tmpl.test {{\n \
             answer \"{{{{ .Name }}}} 60 IN A 192.0.2.1\"\n \
             authority \"tmpl.test. 60 IN NS ns.tmpl.test.\"\n \
             additional \"ns.tmpl.test. 60 IN A 192.0.2.2\"\n }}\n template IN A none.test {{\n \
             authority \"none.test. 60 IN SOA ns.none.test. h.none.test. (1 60 60 60 60)\"\n \
             additional \"ns.none.test. 60 IN A 192.0.2.2\"\n }}\n template IN A below.test {{\n \
             authority \"below.test. 60 IN NS ns.below.test.\"\n \
             additional \"ns.below.test. 60 IN A 192.0.2.2\"\n }}\n whoami\n}}\n"
        )
    };
    // Answers, authorities and additional records, without `minimal` and with it.
    let cases = [
        ("db.demo.svc.cluster.local.", RecordType::SRV, [3, 0, 3], [3, 0, 0]),
        ("web.demo.svc.cluster.local.", RecordType::SRV, [2, 0, 2], [2, 0, 0]),
        ("cluster.local.", RecordType::NS, [1, 0, 1], [1, 0, 0]),
        ("web.demo.svc.cluster.local.", RecordType::A, [1, 0, 0], [1, 0, 0]),
        ("nope.demo.svc.cluster.local.", RecordType::A, [0, 1, 0], [0, 1, 0]),
        ("web.demo.svc.cluster.local.", RecordType::MX, [0, 1, 0], [0, 1, 0]),
        ("x.tmpl.test.", RecordType::A, [1, 1, 1], [1, 0, 0]),
        // A denial and a referral.
        ("x.none.test.", RecordType::A, [0, 1, 1], [0, 1, 1]),
        ("x.below.test.", RecordType::A, [0, 1, 1], [0, 1, 1]),
        // All that `whoami` says is beside the answer.
        ("who.example.", RecordType::A, [0, 0, 2], [0, 0, 0]),
    ];
    for (minimal, place) in [("", 0), ("minimal", 1)] {
        let world = World::by(&rest(minimal), objects()).await;
        for (name, rtype, without, with) in cases {
            let mut asked = query(name, rtype);
            asked.edns = Some(Edns::new());
            for reply in [udp(world.v4(), &asked).await, tcp(world.v4(), &asked).await] {
                let Message { answers, authorities, additionals, .. } = &reply;
                let seen = [answers, authorities, additionals].map(Vec::len);
                assert_eq!(seen, [without, with][place], "{minimal} {name} {rtype} {reply}");
                // OPT is no record of that section (RFC 6891 §6.1.1).
                assert!(reply.edns.is_some(), "{reply}");
            }
        }
        world.end().await;
    }
    let world = World::by(&rest("minimal"), objects()).await;
    let reply = world.ask("db.demo.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!(reply.additionals.len(), 0);
    assert_eq!(world.running.counts().slow_queries, 0, "none of it needs the slow path");
    world.end().await;
}
