//! `header`, `nsid`, `dns64`, `whoami`, `view` and the rarer rules of `rewrite`: what CoreDNS
//! answers by the same Corefile.

use std::sync::{Arc, Mutex};

use fairlead_state::{
    Change, Store,
    model::{IpMode, Kind, LoadBalancerIp, Object, Service, ServiceExtras},
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        DNSClass, RData, RecordType,
        rdata::opt::{ClientSubnet, EdnsCode, EdnsOption, NSIDPayload},
    },
};
use tokio::time::timeout;

use crate::{
    contract::objects,
    forward::{address, knows, reply_to, upstream},
    world::{PATIENCE, World, by, ip, query, service, tcp, text, udp, udp_bytes},
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

/// A Service with addresses outside of the cluster.
fn outside(name: &str, ips: &[&str], balancer: &[&str]) -> Object {
    let Object::Service(inside) = service("demo", name, &["10.96.0.9"], &[("http", 80), ("", 81)])
    else {
        unreachable!("a Service")
    };
    let balanced =
        balancer.iter().map(|address| LoadBalancerIp { ip: ip(address), mode: IpMode::Vip });
    let extras = ServiceExtras {
        external_ips: ips.iter().map(|address| ip(address)).collect(),
        load_balancer_ips: balanced.collect(),
        ..ServiceExtras::default()
    };
    Object::Service(Arc::new(Service { extras: extras.into(), ..(*inside).clone() }))
}

#[tokio::test]
async fn k8s_external_shows_services_by_their_addresses_outside() {
    let corefile = format!(
        ".:53 {{\n kubernetes cluster.local\n k8s_external example.org ext.example {{\n ttl 7\n \
         fallthrough ext.example\n }}\n hosts {{\n 192.0.2.5 host.example.org\n fallthrough\n }}\n \
         forward . {}\n}}\n",
        upstream(knows).await
    );
    let mut things = objects();
    things.push(outside("shop", &["203.0.113.1"], &["203.0.113.2", "2001:db8::2"]));
    let world = World::by(&corefile, things).await;
    let yes = ResponseCode::NoError;
    let no = ResponseCode::NXDomain;
    let shop = "shop.demo.example.org.";
    let srv = |name: &str, ports: &[u16], weight: u16| -> Vec<String> {
        ports.iter().map(|port| format!("{name} SRV 0 {weight} {port} {shop}")).collect()
    };
    let four = |name: &str| ["1", "2"].map(|last| format!("{name} A 203.0.113.{last}")).to_vec();
    let named = "_http._tcp.shop.demo.example.org.";
    let cases = [
        (shop, A, yes, four(shop)),
        (shop, AAAA, yes, vec![format!("{shop} AAAA 2001:db8::2")]),
        (shop, RecordType::SRV, yes, srv(shop, &[80, 81], 16)),
        (shop, RecordType::TXT, yes, vec![]),
        (shop, RecordType::ANY, yes, vec![]),
        (named, RecordType::SRV, yes, srv(named, &[80], 33)),
        (named, A, yes, four(named)),
        ("_tcp.shop.demo.example.org.", A, yes, vec![]),
        ("_udp.shop.demo.example.org.", A, no, vec![]),
        ("_nope._tcp.shop.demo.example.org.", RecordType::SRV, no, vec![]),
        // In the cluster alone.
        ("web.demo.example.org.", A, no, vec![]),
        ("demo.example.org.", A, yes, vec![]),
        ("nope.example.org.", A, no, vec![]),
        ("x.shop.demo.example.org.", A, no, vec![]),
        ("example.org.", A, yes, vec![]),
        ("example.org.", RecordType::NS, yes, vec!["example.org. NS ns1.dns.example.org.".into()]),
        (
            "example.org.",
            RecordType::SOA,
            yes,
            vec!["example.org. SOA ns1.dns.example.org. hostmaster.dns.example.org.".into()],
        ),
        ("dns.example.org.", A, yes, vec![]),
        ("ns1.dns.example.org.", A, yes, vec![]),
        ("ns2.dns.example.org.", A, no, vec![]),
        ("host.example.org.", A, yes, vec!["host.example.org. A 192.0.2.5".into()]),
        ("shop.demo.ext.example.", A, yes, four("shop.demo.ext.example.")),
        // Passed on to the upstream.
        ("www.ext.example.", A, no, vec![]),
    ];
    for (name, rtype, code, answers) in cases {
        let reply = world.ask(name, rtype).await;
        assert_eq!(reply.metadata.response_code, code, "{name} {rtype}");
        assert_eq!(text(&reply.answers), answers, "{name} {rtype}");
        if answers.is_empty() && !name.ends_with("ext.example.") {
            let soa = text(&reply.authorities).concat();
            assert!(soa.starts_with("example.org. SOA ns1.dns"), "{name} {rtype}: {soa}");
        }
    }
    let reply = world.ask(named, RecordType::SRV).await;
    assert_eq!(reply.additionals.len(), 3);
    assert!(reply.answers.iter().chain(&reply.additionals).all(|record| record.ttl == 7));
    world.end().await;
}

#[tokio::test]
async fn k8s_external_shows_endpoints_with_headless() {
    let mut things = objects();
    things.push(outside("shop", &["203.0.113.1"], &[]));
    let zone = "demo.example.org.";
    let yes = ResponseCode::NoError;
    let no = ResponseCode::NXDomain;
    let one = format!("db-0.db.{zone} SRV 0 100 15432 db-0.db.{zone}");
    let cases: [(&str, RecordType, ResponseCode, &[&str]); 13] = [
        ("db", A, yes, &["A 10.1.0.1", "A 10.1.0.2"]),
        ("db", AAAA, yes, &["AAAA fd00:1::"]),
        ("db", RecordType::TXT, yes, &[]),
        ("db-0.db", A, yes, &["A 10.1.0.1"]),
        ("_pg._tcp.db", A, yes, &["A 10.1.0.1", "A 10.1.0.2"]),
        ("_tcp.db", A, yes, &[]),
        ("_udp.db", A, no, &[]),
        ("_nope._tcp.db", A, no, &[]),
        // Not ready.
        ("db-2.db", A, no, &[]),
        ("idle", A, no, &[]),
        // A Service with an address inside is not shown, its endpoints are.
        ("single", A, no, &[]),
        ("10-1-0-9.single", A, yes, &["A 10.1.0.9"]),
        ("shop", A, yes, &["A 203.0.113.1"]),
    ];
    for headless in [true, false] {
        let option = if headless { "headless" } else { "ttl 5" };
        let corefile = format!(
            ".:53 {{\n kubernetes cluster.local\n k8s_external example.org {{\n {option}\n }}\n}}\n"
        );
        let world = World::by(&corefile, things.clone()).await;
        for (name, rtype, code, answers) in cases {
            let name = format!("{name}.{zone}");
            let is_shown = headless || name.starts_with("shop");
            let reply = world.ask(&name, rtype).await;
            let wanted: Vec<_> = answers.iter().map(|data| format!("{name} {data}")).collect();
            let (code, wanted) = if is_shown { (code, wanted) } else { (no, vec![]) };
            assert_eq!(reply.metadata.response_code, code, "{name} {rtype} {option}");
            assert_eq!(text(&reply.answers), wanted, "{name} {rtype} {option}");
        }
        if headless {
            let reply = world.ask(&format!("_pg._tcp.db.{zone}"), RecordType::SRV).await;
            assert_eq!((reply.answers.len(), reply.additionals.len()), (3, 3), "{reply}");
            let reply = world.ask(&format!("db-0.db.{zone}"), RecordType::SRV).await;
            assert_eq!(text(&reply.answers), [one.as_str()]);
        }
        world.end().await;
    }
}

#[tokio::test]
async fn k8s_external_denies_nothing_before_the_first_snapshot() {
    let corefile = ".:53 {\n kubernetes cluster.local\n k8s_external example.org\n}\n";
    let world = World::unsynced(&by(corefile));
    let reply = world.ask("shop.demo.example.org.", A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    // What an earlier run kept tells nothing of addresses outside.
    let (mut earlier, snapshots) = Store::new([Kind::Service]);
    let objects = vec![service("demo", "shop", &["10.96.0.77"], &[("http", 80)])];
    earlier.apply(vec![Change::Replace { kind: Kind::Service, objects, refused: vec![] }]);
    world.running.stand_in(snapshots.borrow().clone().unwrap());
    let stands_in = async {
        while !world.running.stands_in() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, stands_in).await.expect("names stand in");
    let reply = world.ask("shop.demo.example.org.", A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let inside = world.ask("shop.demo.svc.cluster.local.", A).await;
    assert_eq!(inside.answers.len(), 1, "{inside}");
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
