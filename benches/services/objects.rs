//! Services with two endpoints each, as the API server would hold them.

use serde_json::{Value, json};

/// The endpoint every connect benchmark reaches.
pub const SERVER: &str = "10.2.0.2";
/// Its port.
pub const PORT: u16 = 9000;

/// The cluster address of Service `i`; its port is 80.
pub fn cluster_ip(i: u64) -> String {
    assert!(i < 62_500, "one /16 holds so many");
    format!("10.96.{}.{}", i / 250, i % 250 + 1)
}

/// `count` Services and their EndpointSlices, and the node.
pub fn services(count: u64) -> Vec<Value> {
    let mut all = vec![json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "bench"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.1.0.1"}]}
    })];
    for i in 0..count {
        all.push(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("svc-{i}"), "namespace": "default", "uid": format!("{i}")},
            "spec": {
                "type": "ClusterIP", "clusterIP": cluster_ip(i), "clusterIPs": [cluster_ip(i)],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "selector": {"app": format!("svc-{i}")},
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": PORT}]
            },
            "status": {"loadBalancer": {}}
        }));
        all.push(slice(i, [PORT, PORT]));
    }
    all
}

/// The EndpointSlice of Service `i`: two endpoints on the server, by default on one port.
pub fn slice(i: u64, [first, second]: [u16; 2]) -> Value {
    let endpoint = |n: u8| {
        json!({
            "addresses": [format!("10.2.0.{}", n + 2)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "other", "zone": "a",
            "targetRef": {"kind": "Pod", "name": format!("svc-{i}-{n}"), "namespace": "default"}
        })
    };
    assert_eq!(first, second, "ports are the slice's");
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("svc-{i}-abcde"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("svc-{i}")}
        },
        "ports": [{"name": "http", "port": first, "protocol": "TCP"}],
        "endpoints": [endpoint(0), endpoint(1)]
    })
}
