//! Objects as kubectl prints them: more fields than are read, and in any order.

use std::{collections::BTreeSet, path::Path};

use fairlead_state::{Key, source::directory::load};

#[test]
fn what_kubectl_stores_is_read_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubectl.yaml");
    let loaded = load(&[path], Some("node-1".into()), BTreeSet::new()).unwrap();
    assert_eq!(loaded.problems, Vec::<String>::new());
    let snapshot = loaded.snapshot;
    assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
    let hello = Key::new("shop", "hello");
    let service = snapshot.services().get(&hello).unwrap();
    assert_eq!(service.cluster_ips.len(), 2);
    assert_eq!(service.ports[0].node_port, Some(30080));
    let slice = snapshot.slices_of(&hello).next().unwrap();
    assert_eq!(slice.endpoints[0].pod.as_deref(), Some("hello-6b7c9-abcde"));
    let ingress = snapshot.ingresses().get(&hello).unwrap();
    assert_eq!(ingress.rules[0].host.as_deref(), Some("hello.example.com"));
    assert_eq!(snapshot.ingress_classes().len(), 1);
    assert!(snapshot.secrets().contains_key(&Key::new("shop", "hello-tls")));
    let node = snapshot.nodes().get(&Key::new("", "node-1")).unwrap();
    assert_eq!(node.zone.as_deref(), Some("zone-a"));
    assert!(snapshot.namespaces().contains_key(&Key::new("", "shop")));
    let pod = snapshot.pods().get(&Key::new("shop", "hello-6b7c9-abcde")).unwrap();
    assert_eq!(pod.ips[0].to_string(), "10.244.1.5");
}
