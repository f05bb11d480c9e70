//! `multicluster`: Services of the cluster set (KEP-1645, and the answers of CoreDNS).

use std::sync::Arc;

use fairlead_state::{
    Change,
    model::{
        EndpointPort, EndpointSlice, Import, Key, Kind, Object, ObjectRef, Protocol, ServiceImport,
    },
};
use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::{
    contract::{NO, YES, objects},
    world::{World, ip, slice, text},
};

/// An EndpointSlice of the cluster set: port, address, hostname (may be empty), ready.
fn imported(service: &str, cluster: &str, port: u16, endpoints: &[(&str, &str, bool)]) -> Object {
    let Object::EndpointSlice(slice) =
        slice("demo", "", &format!("{service}-{cluster}"), &[("http", port)], endpoints)
    else {
        panic!("a slice")
    };
    let import = Import { service: service.into(), cluster: cluster.into() };
    Object::EndpointSlice(Arc::new(EndpointSlice {
        import: Some(import.into()),
        ..(*slice).clone()
    }))
}

fn import(name: &str, ips: &[&str], port: u16) -> Object {
    let port =
        EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port, app_protocol: None };
    Object::ServiceImport(Arc::new(ServiceImport {
        key: Key::new("demo", name),
        headless: ips.is_empty(),
        ips: ips.iter().map(|text| ip(text)).collect(),
        ports: [port].into(),
    }))
}

#[tokio::test]
async fn services_of_the_cluster_set() {
    use RecordType::{A, AAAA, PTR, SRV, TXT};
    let things = [
        import("web", &["10.42.0.1", "fd42::1"], 80),
        imported("web", "c1", 8080, &[("10.1.0.1", "", true)]),
        import("db", &[], 5432),
        imported("db", "c1", 5432, &[("10.1.0.1", "db-0", true), ("10.1.0.2", "db-1", false)]),
        imported("db", "c2", 5433, &[("10.2.0.1", "db-0", true)]),
        import("idle", &[], 80),
        // Nobody has imported it.
        imported("gone", "c1", 80, &[("10.1.0.9", "", true)]),
    ];
    let corefile = ".:53 {\n kubernetes cluster.local clusterset.local {\n multicluster clusterset.local\n \
                    pods insecure\n }\n}\n";
    let mut world = World::by(corefile, [objects(), things.to_vec()].concat()).await;
    let rows: &[(&str, RecordType, ResponseCode, &[&str])] = &[
        ("web.demo", A, YES, &["web.demo A 10.42.0.1"]),
        ("web.demo", AAAA, YES, &["web.demo AAAA fd42::1"]),
        ("web.demo", TXT, YES, &[]),
        ("web.demo", SRV, YES, &["web.demo SRV 0 50 80 web.demo"]),
        ("_http._tcp.web.demo", SRV, YES, &["_http._tcp.web.demo SRV 0 50 80 web.demo"]),
        ("_http._tcp.web.demo", A, YES, &["_http._tcp.web.demo A 10.42.0.1"]),
        ("_tcp.web.demo", A, YES, &[]),
        ("_nope._tcp.web.demo", SRV, NO, &[]),
        ("10-1-0-1.c1.web.demo", A, YES, &["10-1-0-1.c1.web.demo A 10.1.0.1"]),
        ("c1.web.demo", A, YES, &[]),
        ("c2.web.demo", A, NO, &[]),
        ("db.demo", A, YES, &["db.demo A 10.1.0.1", "db.demo A 10.2.0.1"]),
        (
            "_http._tcp.db.demo",
            SRV,
            YES,
            &[
                "_http._tcp.db.demo SRV 0 50 5432 db-0.c1.db.demo",
                "_http._tcp.db.demo SRV 0 50 5433 db-0.c2.db.demo",
            ],
        ),
        ("db-0.c2.db.demo", A, YES, &["db-0.c2.db.demo A 10.2.0.1"]),
        ("DB-0.C2.Db.demo", A, YES, &["DB-0.C2.Db.demo A 10.2.0.1"]),
        ("db-1.c1.db.demo", A, NO, &[]),
        ("db-0.db.demo", A, NO, &[]),
        ("idle.demo", A, NO, &[]),
        ("gone.demo", A, NO, &[]),
        ("demo", A, YES, &[]),
        ("nope", A, NO, &[]),
    ];
    for (name, rtype, code, answers) in rows {
        let full = |text: &str| {
            let [first, last] = [text.split(' ').next().unwrap(), text.rsplit(' ').next().unwrap()];
            let text = text.replacen(first, &format!("{first}.svc.clusterset.local."), 1);
            if last.ends_with("demo") { format!("{text}.svc.clusterset.local.") } else { text }
        };
        let reply = world.ask(&format!("{name}.svc.clusterset.local."), *rtype).await;
        assert_eq!(reply.metadata.response_code, *code, "{name} {rtype}: {reply}");
        let wanted: Vec<_> = answers.iter().map(|text| full(text)).collect();
        assert_eq!(text(&reply.answers), wanted, "{name} {rtype}");
        if answers.is_empty() {
            assert_eq!(reply.authorities[0].name.to_ascii(), "clusterset.local.", "{name}");
        }
    }
    let version = world.ask("dns-version.clusterset.local.", TXT).await;
    assert_eq!(text(&version.answers), ["dns-version.clusterset.local. TXT 1.1.0"]);
    // The Service of this cluster is another one, and addresses have no names in the set.
    let own = world.ask("db.demo.svc.cluster.local.", A).await;
    assert!(text(&own.answers).contains(&"db.demo.svc.cluster.local. A 10.1.0.2".to_owned()));
    let address = world.ask("1.0.42.10.in-addr.arpa.", PTR).await;
    assert_eq!(address.answers.len(), 0);
    // A cluster leaves, then the import.
    let slice = ObjectRef { kind: Kind::EndpointSlice, key: Key::new("demo", "db-c2") };
    world.apply(vec![Change::Delete(slice)]).await;
    assert_eq!(world.ask("db.demo.svc.clusterset.local.", A).await.answers.len(), 1);
    let import = ObjectRef { kind: Kind::ServiceImport, key: Key::new("demo", "db") };
    world.apply(vec![Change::Delete(import)]).await;
    let gone = world.ask("db.demo.svc.clusterset.local.", A).await;
    assert_eq!(gone.metadata.response_code, NO);
    world.end().await;
}
