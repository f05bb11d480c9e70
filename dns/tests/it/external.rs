//! `k8s_external`: Services, and endpoints, by their addresses outside of the cluster.

use std::sync::Arc;

use fairlead_state::{
    Change, Store,
    model::{IpMode, Kind, LoadBalancerIp, Object, Service, ServiceExtras},
};
use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::{
    contract::objects,
    forward::{knows, upstream},
    world::{World, by, ip, service, slice, text},
};

const A: RecordType = RecordType::A;
const AAAA: RecordType = RecordType::AAAA;

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
    // Owners were in lower case, whatever the client's was.
    for name in ["SHOP.Demo.example.ORG.", "_HTTP._tcp.shop.demo.example.org."] {
        let reply = world.ask(name, A).await;
        let owners: Vec<_> = reply.answers.iter().map(|record| record.name.to_ascii()).collect();
        assert_eq!(owners, [name, name], "{reply}");
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
    things.push(service("demo", "bare", &[], &[]));
    things.push(slice("demo", "bare", "bare-1", &[], &[("10.1.0.7", "bare-0", true)]));
    let zone = "demo.example.org.";
    let yes = ResponseCode::NoError;
    let no = ResponseCode::NXDomain;
    let one = format!("db-0.db.{zone} SRV 0 100 15432 db-0.db.{zone}");
    let cases: [(&str, RecordType, ResponseCode, &[&str]); 17] = [
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
        // Without a port it has an address, and nothing to be served at.
        ("bare", A, yes, &["A 10.1.0.7"]),
        ("bare-0.bare", A, yes, &["A 10.1.0.7"]),
        ("bare", RecordType::SRV, yes, &[]),
        ("_http._tcp.bare", A, no, &[]),
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

/// A Service whose balancer has a host name.
fn named(name: &str, ips: &[&str], balancer: &str) -> Object {
    let Object::Service(service) = outside(name, ips, &[]) else { unreachable!("a Service") };
    let extras =
        ServiceExtras { load_balancer_name: Some(balancer.into()), ..(*service.extras).clone() };
    Object::Service(Arc::new(Service { extras: extras.into(), ..(*service).clone() }))
}

/// As for whoever asks from outside: a refusal would make resolvers look elsewhere for the whole zone.
#[tokio::test]
async fn without_upstreams_the_name_of_a_balancer_is_all_that_is_said() {
    let corefile =
        "example.org:53 {\n kubernetes cluster.local\n k8s_external example.org {\n ttl 7\n }\n}\n";
    let mut things = objects();
    things.push(named("shop", &[], "www.example"));
    let world = World::by(corefile, things).await;
    for rtype in [A, AAAA] {
        let reply = world.ask("shop.demo.example.org.", rtype).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{rtype}: {reply}");
        assert_eq!(text(&reply.answers), ["shop.demo.example.org. CNAME www.example."], "{rtype}");
    }
    world.end().await;
}

#[tokio::test]
async fn k8s_external_leads_to_a_balancer_that_has_a_name_and_no_address() {
    let corefile = format!(
        ".:53 {{\n kubernetes cluster.local\n k8s_external example.org {{\n ttl 7\n }}\n forward . {}\n}}\n",
        upstream(knows).await
    );
    let mut things = objects();
    things.push(named("shop", &[], "www.example"));
    things.push(named("lost", &[], "nope.example"));
    things.push(named("both", &["203.0.113.1"], "www.example"));
    things.push(named("odd", &[], "203.0.113.9"));
    things.push(named("bad", &[], "no..name"));
    let world = World::by(&corefile, things).await;
    let (yes, no) = (ResponseCode::NoError, ResponseCode::NXDomain);
    let shop = "shop.demo.example.org.";
    let port = "_http._tcp.shop.demo.example.org.";
    let mixed = "SHOP.demo.example.ORG.";
    let end = || ["www.example. CNAME web.example.", "web.example. A 192.0.2.1"].map(str::to_owned);
    let alias = |name: &str| vec![format!("{name} CNAME www.example.")];
    let cases = [
        (shop, A, yes, [alias(shop), end().to_vec()].concat()),
        (mixed, A, yes, [alias(mixed), end().to_vec()].concat()),
        (port, A, yes, [alias(port), end().to_vec()].concat()),
        (shop, AAAA, yes, [alias(shop), end()[..1].to_vec()].concat()),
        (shop, RecordType::CNAME, yes, alias(shop)),
        (shop, RecordType::TXT, yes, vec![]),
        (
            shop,
            RecordType::SRV,
            yes,
            [80, 81].map(|port| format!("{shop} SRV 0 50 {port} www.example.")).to_vec(),
        ),
        (port, RecordType::SRV, yes, vec![format!("{port} SRV 0 100 80 www.example.")]),
        ("_nope._tcp.shop.demo.example.org.", A, no, vec![]),
        (
            "lost.demo.example.org.",
            A,
            no,
            vec!["lost.demo.example.org. CNAME nope.example.".to_owned()],
        ),
        ("both.demo.example.org.", A, yes, vec!["both.demo.example.org. A 203.0.113.1".into()]),
        ("odd.demo.example.org.", A, yes, vec!["odd.demo.example.org. A 203.0.113.9".into()]),
        ("bad.demo.example.org.", A, no, vec![]),
    ];
    for (name, rtype, code, mut answers) in cases {
        answers.sort();
        let reply = world.ask(name, rtype).await;
        assert_eq!(reply.metadata.response_code, code, "{name} {rtype}: {reply}");
        assert_eq!(text(&reply.answers), answers, "{name} {rtype}");
        assert!(
            reply.answers.iter().all(|record| record.name.to_ascii() != name || record.ttl == 7)
        );
    }
    world.end().await;
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
    let kept = snapshots.borrow().clone().unwrap();
    world.standing_in(kept).await;
    let reply = world.ask("shop.demo.example.org.", A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let inside = world.ask("shop.demo.svc.cluster.local.", A).await;
    assert_eq!(inside.answers.len(), 1, "{inside}");
    world.end().await;
}
