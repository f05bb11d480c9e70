use std::sync::Arc;

use fairlead_state::{
    Change, Kind, Object, Store,
    decode::{Decoded, Decoder},
};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};

use crate::{KINDS, config::IngressConfig, routes::Planner, tls::Fallback};

const HOSTS: usize = 100;

fn object(kind: Kind, document: &Value) -> Object {
    let item = Decoder::new(false).json(kind, &document.to_string(), &"here".into()).unwrap();
    match item.decoded {
        Decoded::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

fn class() -> Object {
    let spec = json!({"controller": "fairlead.io/ingress"});
    object(Kind::IngressClass, &json!({"metadata": {"name": "fairlead"}, "spec": spec}))
}

/// Of this host, with the certificate of that Secret.
fn ingress(host: usize, service: &str, secret: usize) -> Object {
    let (name, secret) = (format!("h{host}.example"), format!("t{secret}"));
    let backend = json!({"service": {"name": service, "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let document = json!({
        "metadata": {"name": format!("i{host}"), "namespace": "default"},
        "spec": {
            "ingressClassName": "fairlead",
            "tls": [{"hosts": [name], "secretName": secret}],
            "rules": [{"host": name, "http": {"paths": [path]}}],
        },
    });
    object(Kind::Ingress, &document)
}

fn secret(number: usize) -> Object {
    let made = rcgen::generate_simple_self_signed(["*.example".to_owned()]).unwrap();
    let document = json!({
        "metadata": {"name": format!("t{number}"), "namespace": "default"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
    });
    object(Kind::Secret, &document)
}

fn slice(port: u16) -> Object {
    let document = json!({
        "metadata": {
            "name": "web-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"port": port}],
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    object(Kind::EndpointSlice, &document)
}

/// A certificate that is parsed again is another one in memory.
fn shown(planner: &Planner) -> Vec<Arc<CertifiedKey>> {
    let names = (0..HOSTS).map(|host| format!("h{host}.example"));
    names.map(|name| planner.certificates().find(Some(&name)).clone()).collect()
}

#[test]
fn of_a_hundred_certificates_a_change_parses_those_that_changed() {
    let (mut store, snapshots) = Store::new(KINDS);
    store.apply(KINDS.map(|kind| Change::Replace { kind, objects: vec![], refused: vec![] }));
    let hosts = (0..HOSTS).flat_map(|host| [ingress(host, "web", host), secret(host)]);
    store.apply([class()].into_iter().chain(hosts).map(Change::Upsert));
    let mut planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    let mut before = shown(&planner);
    assert_eq!(planner.certificates().len(), HOSTS);
    for (what, change, parsed) in [
        ("endpoints", slice(80), &[][..]),
        ("an Ingress that leads elsewhere", ingress(7, "other", 7), &[]),
        ("a Secret", secret(3), &[3]),
        ("an Ingress that shows another's certificate", ingress(5, "web", 6), &[5]),
        ("a Secret that two show", secret(6), &[5, 6]),
        // What nobody names is not kept, so that it is read when somebody does.
        ("an Ingress that shows its own again", ingress(5, "web", 5), &[5]),
    ] {
        store.apply([Change::Upsert(change)]);
        planner.apply(snapshots.borrow().as_ref().unwrap());
        let after = shown(&planner);
        let changed = (0..HOSTS).filter(|host| !Arc::ptr_eq(&before[*host], &after[*host]));
        assert_eq!(changed.collect::<Vec<_>>(), parsed, "{what}");
        before = after;
    }
}
