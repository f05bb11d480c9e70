//! The contract: kubernetes/dns docs/specification.md and the answers of a live CoreDNS, row by
//! row.

use fairlead_dns::{DnsConfig, Upstreams};
use fairlead_state::{Change, model::Object};
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};

use crate::world::{World, external, namespace, service, slice, text};

/// The cluster of the tables below.
pub fn objects() -> Vec<Object> {
    let web = [("http", 80), ("metrics", 9090)];
    vec![
        namespace("demo"),
        namespace("empty"),
        namespace("kube-system"),
        service("kube-system", "kube-dns", &["10.96.0.10"], &[("dns", 53)]),
        service("demo", "web", &["10.96.0.1", "fd00::a1"], &web),
        service("demo", "single", &["10.96.0.2"], &[("", 80)]),
        service("demo", "Upper", &["10.96.0.3"], &[("HTTP", 80)]),
        service("orphan", "svc", &["10.96.0.4"], &[]),
        slice("demo", "single", "single-1", &[("", 8080)], &[("10.1.0.9", "", true)]),
        service("demo", "db", &[], &[("pg", 5432)]),
        slice(
            "demo",
            "db",
            "db-v4",
            &[("pg", 15432)],
            &[("10.1.0.1", "db-0", true), ("10.1.0.2", "", true), ("10.1.0.3", "db-2", false)],
        ),
        slice("demo", "db", "db-v6", &[("pg", 15432)], &[("fd00:1::", "", true)]),
        service("demo", "idle", &[], &[("pg", 5432)]),
        slice("demo", "idle", "idle-1", &[("pg", 1)], &[("10.1.0.8", "idle-0", false)]),
        external("demo", "inside", "web.demo.svc.cluster.local"),
        external("demo", "again", "inside.demo.svc.cluster.local"),
        external("demo", "loop", "loop.demo.svc.cluster.local"),
        external("demo", "address", "192.0.2.1"),
    ]
}

async fn world() -> World {
    World::with(objects(), vec![]).await
}

/// `NoError`, and the answers as text.
pub type Row = (&'static str, RecordType, ResponseCode, &'static [&'static str]);

pub async fn check(world: &World, rows: &[Row]) {
    for (name, rtype, code, answers) in rows {
        let reply = world.ask(name, *rtype).await;
        let what = format!("{name} {rtype}: {reply}");
        assert_eq!(reply.metadata.response_code, *code, "{what}");
        assert_eq!(text(&reply.answers), *answers, "{what}");
        assert!(reply.metadata.authoritative, "{what}");
        if answers.is_empty() {
            let soa = "ns.dns.cluster.local. hostmaster.cluster.local.";
            assert_eq!(
                text(&reply.authorities).first().map(|line| line.to_lowercase()),
                Some(format!("cluster.local. soa {soa}")),
                "{what}"
            );
        }
    }
}

pub const YES: ResponseCode = ResponseCode::NoError;
pub const NO: ResponseCode = ResponseCode::NXDomain;

#[tokio::test]
async fn records_of_services() {
    use RecordType::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
    let world = world().await;
    let rows: &[Row] = &[
        // §2.2, and no RFC 8020 violation: the name exists for every type.
        ("dns-version.cluster.local.", TXT, YES, &["dns-version.cluster.local. TXT 1.1.0"]),
        ("dns-version.cluster.local.", A, YES, &[]),
        // §2.3.1: one record per ClusterIP of the family.
        ("web.demo.svc.cluster.local.", A, YES, &["web.demo.svc.cluster.local. A 10.96.0.1"]),
        ("web.demo.svc.cluster.local.", AAAA, YES, &["web.demo.svc.cluster.local. AAAA fd00::a1"]),
        ("single.demo.svc.cluster.local.", AAAA, YES, &[]),
        ("upper.demo.svc.cluster.local.", A, YES, &["upper.demo.svc.cluster.local. A 10.96.0.3"]),
        ("svc.orphan.svc.cluster.local.", A, YES, &["svc.orphan.svc.cluster.local. A 10.96.0.4"]),
        // §2.3.2: named ports; weights count addresses (two families: 50).
        (
            "_http._tcp.web.demo.svc.cluster.local.",
            SRV,
            YES,
            &["_http._tcp.web.demo.svc.cluster.local. SRV 0 50 80 web.demo.svc.cluster.local."],
        ),
        (
            "_http._tcp.upper.demo.svc.cluster.local.",
            SRV,
            YES,
            &[
                "_http._tcp.upper.demo.svc.cluster.local. SRV 0 100 80 upper.demo.svc.cluster.local.",
            ],
        ),
        ("_http._udp.web.demo.svc.cluster.local.", SRV, NO, &[]),
        ("_nope._tcp.web.demo.svc.cluster.local.", SRV, NO, &[]),
        // CoreDNS takes an empty port for any port; the specification knows no such name.
        ("_._tcp.web.demo.svc.cluster.local.", SRV, NO, &[]),
        // The bare name has all ports, unnamed ones included (coredns#823).
        (
            "web.demo.svc.cluster.local.",
            SRV,
            YES,
            &[
                "web.demo.svc.cluster.local. SRV 0 25 80 web.demo.svc.cluster.local.",
                "web.demo.svc.cluster.local. SRV 0 25 9090 web.demo.svc.cluster.local.",
            ],
        ),
        (
            "single.demo.svc.cluster.local.",
            SRV,
            YES,
            &["single.demo.svc.cluster.local. SRV 0 100 80 single.demo.svc.cluster.local."],
        ),
        (
            "_http._tcp.web.demo.svc.cluster.local.",
            A,
            YES,
            &["_http._tcp.web.demo.svc.cluster.local. A 10.96.0.1"],
        ),
        ("_tcp.web.demo.svc.cluster.local.", A, YES, &[]),
        // §2.3.3, and endpoints of ClusterIP Services too, as CoreDNS.
        (
            "1.0.96.10.in-addr.arpa.",
            PTR,
            YES,
            &["1.0.96.10.in-addr.arpa. PTR web.demo.svc.cluster.local."],
        ),
        (
            "9.0.1.10.in-addr.arpa.",
            PTR,
            YES,
            &["9.0.1.10.in-addr.arpa. PTR 10-1-0-9.single.demo.svc.cluster.local."],
        ),
        (
            "10-1-0-9.single.demo.svc.cluster.local.",
            A,
            YES,
            &["10-1-0-9.single.demo.svc.cluster.local. A 10.1.0.9"],
        ),
        // An endpoint's own name has SRV records of its ports.
        (
            "10-1-0-9.single.demo.svc.cluster.local.",
            SRV,
            YES,
            &[
                "10-1-0-9.single.demo.svc.cluster.local. SRV 0 100 8080 10-1-0-9.single.demo.svc.cluster.local.",
            ],
        ),
        (
            "1.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            YES,
            &["1.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR \
                 web.demo.svc.cluster.local."],
        ),
        // §2.5: an alias is followed inside the zone; an address is no name.
        (
            "again.demo.svc.cluster.local.",
            A,
            YES,
            &[
                "again.demo.svc.cluster.local. CNAME inside.demo.svc.cluster.local.",
                "inside.demo.svc.cluster.local. CNAME web.demo.svc.cluster.local.",
                "web.demo.svc.cluster.local. A 10.96.0.1",
            ],
        ),
        (
            "inside.demo.svc.cluster.local.",
            CNAME,
            YES,
            &["inside.demo.svc.cluster.local. CNAME web.demo.svc.cluster.local."],
        ),
        ("address.demo.svc.cluster.local.", A, NO, &[]),
        (
            "cluster.local.",
            SOA,
            YES,
            &["cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local."],
        ),
        (
            "cluster.local.",
            RecordType::NS,
            YES,
            &["cluster.local. NS kube-dns.kube-system.svc.cluster.local."],
        ),
        ("ns.dns.cluster.local.", A, YES, &["ns.dns.cluster.local. A 10.96.0.10"]),
    ];
    check(&world, rows).await;
    let endpoint = world.ask("10-1-0-9.single.demo.svc.cluster.local.", SRV).await;
    assert_eq!(text(&endpoint.additionals), ["10-1-0-9.single.demo.svc.cluster.local. A 10.1.0.9"]);
    let looping = world.ask("loop.demo.svc.cluster.local.", A).await;
    assert_eq!(looping.metadata.response_code, ResponseCode::ServFail);
    world.end().await;
}

#[tokio::test]
async fn records_of_headless_services() {
    use RecordType::{A, AAAA, PTR, SRV};
    let world = world().await;
    let rows: &[Row] = &[
        // §2.4.1: ready endpoints only.
        (
            "db.demo.svc.cluster.local.",
            A,
            YES,
            &["db.demo.svc.cluster.local. A 10.1.0.1", "db.demo.svc.cluster.local. A 10.1.0.2"],
        ),
        ("db.demo.svc.cluster.local.", AAAA, YES, &["db.demo.svc.cluster.local. AAAA fd00:1::"]),
        (
            "db-0.db.demo.svc.cluster.local.",
            A,
            YES,
            &["db-0.db.demo.svc.cluster.local. A 10.1.0.1"],
        ),
        ("db-0.db.demo.svc.cluster.local.", AAAA, YES, &[]),
        ("db-2.db.demo.svc.cluster.local.", A, NO, &[]),
        (
            "10-1-0-2.db.demo.svc.cluster.local.",
            A,
            YES,
            &["10-1-0-2.db.demo.svc.cluster.local. A 10.1.0.2"],
        ),
        // A name must not end in a dash.
        (
            "fd00-1--0.db.demo.svc.cluster.local.",
            AAAA,
            YES,
            &["fd00-1--0.db.demo.svc.cluster.local. AAAA fd00:1::"],
        ),
        // §2.4.2: the endpoints' own port.
        (
            "_pg._tcp.db.demo.svc.cluster.local.",
            SRV,
            YES,
            &[
                "_pg._tcp.db.demo.svc.cluster.local. SRV 0 33 15432 10-1-0-2.db.demo.svc.cluster.local.",
                "_pg._tcp.db.demo.svc.cluster.local. SRV 0 33 15432 db-0.db.demo.svc.cluster.local.",
                "_pg._tcp.db.demo.svc.cluster.local. SRV 0 33 15432 fd00-1--0.db.demo.svc.cluster.local.",
            ],
        ),
        // §2.4.3.
        (
            "1.0.1.10.in-addr.arpa.",
            PTR,
            YES,
            &["1.0.1.10.in-addr.arpa. PTR db-0.db.demo.svc.cluster.local."],
        ),
        // No ready endpoint: no such name, in both families.
        ("idle.demo.svc.cluster.local.", A, NO, &[]),
        ("idle.demo.svc.cluster.local.", AAAA, NO, &[]),
        ("idle-0.idle.demo.svc.cluster.local.", A, NO, &[]),
    ];
    check(&world, rows).await;
    let srv = world.ask("_pg._tcp.db.demo.svc.cluster.local.", SRV).await;
    let additional = [
        "10-1-0-2.db.demo.svc.cluster.local. A 10.1.0.2",
        "db-0.db.demo.svc.cluster.local. A 10.1.0.1",
        "fd00-1--0.db.demo.svc.cluster.local. AAAA fd00:1::",
    ];
    assert_eq!(text(&srv.additionals), additional);
    world.end().await;
}

#[tokio::test]
async fn no_such_name_and_no_such_record() {
    use RecordType::{A, AAAA, ANY, HTTPS, MX, TXT};
    let world = world().await;
    let rows: &[Row] = &[
        // Empty non-terminals.
        ("cluster.local.", A, YES, &[]),
        ("svc.cluster.local.", A, YES, &[]),
        ("pod.cluster.local.", A, YES, &[]),
        ("demo.svc.cluster.local.", A, YES, &[]),
        ("empty.svc.cluster.local.", A, YES, &[]),
        ("demo.pod.cluster.local.", A, YES, &[]),
        // A namespace without an object exists as long as a Service in it does.
        ("orphan.svc.cluster.local.", A, YES, &[]),
        ("nope.svc.cluster.local.", A, NO, &[]),
        ("nope.pod.cluster.local.", A, NO, &[]),
        ("foo.cluster.local.", A, NO, &[]),
        ("nope.demo.svc.cluster.local.", A, NO, &[]),
        ("a.b.c.web.demo.svc.cluster.local.", A, NO, &[]),
        ("www.example.com.demo.svc.cluster.local.", A, NO, &[]),
        ("www.example.com.svc.cluster.local.", A, NO, &[]),
        ("www.example.com.cluster.local.", A, NO, &[]),
        // An existing name's other types.
        ("web.demo.svc.cluster.local.", MX, YES, &[]),
        ("web.demo.svc.cluster.local.", HTTPS, YES, &[]),
        ("web.demo.svc.cluster.local.", ANY, YES, &[]),
        ("web.demo.svc.cluster.local.", TXT, YES, &[]),
        ("nope.demo.svc.cluster.local.", ANY, NO, &[]),
        // Pods by their address, unchecked, in namespaces that exist.
        ("1-2-3-4.demo.pod.cluster.local.", A, YES, &["1-2-3-4.demo.pod.cluster.local. A 1.2.3.4"]),
        ("1-2-3-4.demo.pod.cluster.local.", AAAA, YES, &[]),
        (
            "fd00--1.demo.pod.cluster.local.",
            AAAA,
            YES,
            &["fd00--1.demo.pod.cluster.local. AAAA fd00::1"],
        ),
        ("fd00--1.demo.pod.cluster.local.", A, YES, &[]),
        ("1-2-3-4.nope.pod.cluster.local.", A, NO, &[]),
        ("1-2-3.demo.pod.cluster.local.", A, NO, &[]),
        ("1-2-3-256.demo.pod.cluster.local.", A, NO, &[]),
        ("pod-0.demo.pod.cluster.local.", A, NO, &[]),
        ("x.1-2-3-4.demo.pod.cluster.local.", A, NO, &[]),
        // Wildcards of kube-dns' time.
        ("*.demo.svc.cluster.local.", A, NO, &[]),
        ("any.demo.svc.cluster.local.", A, NO, &[]),
        ("web.*.svc.cluster.local.", A, NO, &[]),
    ];
    check(&world, rows).await;
    world.end().await;
}

#[tokio::test]
async fn before_the_first_snapshot_nothing_is_denied() {
    let world = World::unsynced(&DnsConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        upstreams: Upstreams::Addresses(vec![]),
        ..DnsConfig::default()
    });
    let cases = [
        ("web.demo.svc.cluster.local.", RecordType::A, ResponseCode::ServFail),
        ("foo.cluster.local.", RecordType::A, ResponseCode::ServFail),
        ("1.0.96.10.in-addr.arpa.", RecordType::PTR, ResponseCode::ServFail),
        ("dns-version.cluster.local.", RecordType::TXT, ResponseCode::NoError),
        ("cluster.local.", RecordType::SOA, ResponseCode::NoError),
    ];
    for (name, rtype, code) in cases {
        let reply = world.ask(name, rtype).await;
        assert_eq!(reply.metadata.response_code, code, "{name}");
    }
    let world = world.synced(objects()).await;
    let reply = world.ask("nope.demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, NO);
    world.end().await;
}

#[tokio::test]
async fn a_change_is_answered_at_once_and_leaves_nothing_behind() {
    let mut world = world().await;
    let ask = async |world: &World| {
        let reply = world.ask("db.demo.svc.cluster.local.", RecordType::A).await;
        (reply.metadata.response_code, reply.answers.len())
    };
    assert_eq!(ask(&world).await, (YES, 2));
    let grown = slice(
        "demo",
        "db",
        "db-v4",
        &[("pg", 15432)],
        &[("10.1.0.1", "db-0", true), ("10.1.0.2", "", true), ("10.1.0.3", "db-2", true)],
    );
    world.apply(vec![Change::Upsert(grown)]).await;
    assert_eq!(ask(&world).await, (YES, 3));
    let gone = objects().into_iter().filter(|o| *o.key().name == *"db");
    world.apply(gone.map(|o| Change::Delete(o.reference())).collect()).await;
    assert_eq!(ask(&world).await, (NO, 0));
    let reverse = world.ask("1.0.1.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(reverse.metadata.response_code, ResponseCode::Refused, "not ours any more");
    world.end().await;
}

#[tokio::test]
async fn ttls_are_those_configured_and_short_for_denials() {
    let world = world().await;
    let hit = world.ask("web.demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(hit.answers[0].ttl, 30);
    let miss = world.ask("nope.demo.svc.cluster.local.", RecordType::A).await;
    let RData::SOA(soa) = &miss.authorities[0].data else { panic!("{miss}") };
    assert_eq!((miss.authorities[0].ttl, soa.minimum), (1, 1));
    world.end().await;
}
