use std::net::Ipv4Addr;

use super::*;
use crate::{Upstreams, corefile::Corefile};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn snapshot() -> Arc<Snapshot> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("objects.yaml");
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
";
    std::fs::write(&path, text).unwrap();
    let loaded =
        fairlead_state::source::directory::load(&[path], None, std::collections::BTreeSet::new());
    loaded.unwrap().snapshot
}

#[test]
fn answers_are_those_of_the_server_with_their_origin() {
    let upstreams = Upstreams::Addresses(vec!["192.0.2.53:53".parse().unwrap()]);
    let config = DnsConfig { upstreams, ..DnsConfig::default() };
    let explainer = Explainer::new(&config, Some(&snapshot())).unwrap();
    let forwarded = By::Upstreams(vec!["192.0.2.53:53".to_owned()]);
    for (name, record, code, by, addresses) in [
        ("web.shop.svc.cluster.local", "A", "NOERROR", By::Kubernetes, 1),
        ("WEB.shop.svc.cluster.local.", "A", "NOERROR", By::Kubernetes, 1),
        ("web.shop.svc.cluster.local", "AAAA", "NOERROR", By::Kubernetes, 0),
        ("wbe.shop.svc.cluster.local", "A", "NXDOMAIN", By::Kubernetes, 0),
        ("elsewhere.shop.svc.cluster.local", "A", "NOERROR", By::Kubernetes, 1),
        ("example.com", "A", "forwarded", forwarded.clone(), 0),
        ("1.2.0.192.in-addr.arpa", "PTR", "forwarded", forwarded.clone(), 0),
    ] {
        let found = explainer.explain(name, record, CLIENT).unwrap();
        assert_eq!((found.code, &found.by), (code, &by), "{name} {record}");
        assert_eq!(found.addresses.len(), addresses, "{name} {record}: {found:?}");
    }
    let refused = |name, record| explainer.explain(name, record, CLIENT).unwrap_err();
    assert_eq!(refused("a..b", "A"), BadQuestion::Name(BadName::EmptyLabel));
    assert_eq!(refused("a.b", "FOO"), BadQuestion::Type("FOO".to_owned()), "no A instead");
    let lower = explainer.explain("web.shop.svc.cluster.local", "aaaa", CLIENT).unwrap();
    assert_eq!(lower.record, "AAAA");
    assert_eq!(explainer.domain(), "cluster.local.");
}

#[test]
fn hosts_and_acl_of_a_corefile_are_named() {
    let text = "shop.example {
        hosts {
            192.0.2.7 www.shop.example
        }
        acl {
            block net 192.0.2.0/24
        }
    }";
    let corefile = Corefile::parse(std::path::Path::new("Corefile"), text, &|_| None).unwrap();
    let config = DnsConfig { corefile: Some(Arc::new(corefile)), ..DnsConfig::default() };
    let explainer = Explainer::new(&config, None).unwrap();
    let ask = |name: &str, from: IpAddr| explainer.explain(name, "A", from).unwrap();
    let known = ask("www.shop.example", CLIENT);
    assert_eq!((known.code, known.by, known.addresses.len()), ("NOERROR", By::Hosts, 1));
    assert_eq!(known.zone.as_deref(), Some("shop.example."));
    let barred = ask("www.shop.example", "192.0.2.1".parse().unwrap());
    assert_eq!((barred.code, barred.by), ("REFUSED", By::Acl));
    let unserved = ask("other.example", CLIENT);
    assert_eq!((unserved.code, unserved.by, unserved.zone), ("REFUSED", By::Nobody, None));
}

#[test]
fn names_that_a_plugin_decides_are_said_to_be_its() {
    let text = ".:53 {
        rewrite name old.example new.example
        template ANY AAAA { rcode NXDOMAIN }
        forward . 192.0.2.53
    }";
    let corefile = Corefile::parse(std::path::Path::new("Corefile"), text, &|_| None).unwrap();
    let config = DnsConfig { corefile: Some(Arc::new(corefile)), ..DnsConfig::default() };
    let explainer = Explainer::new(&config, None).unwrap();
    for (name, record, code, by) in [
        ("old.example", "A", "plugin", By::Plugin),
        ("other.example", "AAAA", "NXDOMAIN", By::Plugin),
        ("other.example", "A", "forwarded", By::Upstreams(vec!["192.0.2.53:53".into()])),
    ] {
        let found = explainer.explain(name, record, CLIENT).unwrap();
        assert_eq!((found.code, found.by), (code, by), "{name} {record}");
    }
}
