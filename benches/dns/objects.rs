//! The cluster that is served: Services in namespaces, each with an endpoint.

use std::net::Ipv4Addr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

pub const NAMESPACES: u64 = 100;

/// A Service's name.
pub fn name(i: u64) -> String {
    format!("svc{i}.ns{}.svc.cluster.local", i % NAMESPACES)
}

/// A Service's address.
pub fn address(i: u64) -> [u8; 4] {
    [10, 96 + (i / 62_500) as u8, (i / 250 % 250) as u8, (i % 250) as u8 + 1]
}

/// So many Services with an EndpointSlice each, and their namespaces.
pub fn cluster(services: u64) -> impl Iterator<Item = Value> {
    let namespaces = (0..NAMESPACES).map(|n| {
        let name = format!("ns{n}");
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}})
    });
    let services = (0..services).flat_map(|i| {
        let address = Ipv4Addr::from(address(i)).to_string();
        [service(&format!("svc{i}"), i, &address), slice(i)]
    });
    namespaces.chain(services)
}

/// A host that leads to the first Service, with a certificate.
pub fn ingress() -> Vec<Value> {
    let host = "web.example.com";
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
    let [certificate, key] =
        [made.cert.pem(), made.signing_key.serialize_pem()].map(|pem| STANDARD.encode(pem));
    let metadata = |name: &str| json!({"name": name, "namespace": "ns0", "uid": name, "labels": {"app": name}});
    vec![
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "fairlead", "uid": "class"},
            "spec": {"controller": "fairlead.io/ingress"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": metadata("tls"), "data": {"tls.crt": certificate, "tls.key": key},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata("web"),
            "spec": {
                "ingressClassName": "fairlead",
                "tls": [{"hosts": [host], "secretName": "tls"}],
                "rules": [{"host": host, "http": {"paths": [{
                    "path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "svc0", "port": {"name": "http"}}},
                }]}}],
            },
        }),
    ]
}

/// As an API server stores one.
pub fn service(name: &str, i: u64, address: &str) -> Value {
    let namespace = if name == "late" { "ns0".to_owned() } else { format!("ns{}", i % NAMESPACES) };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("00000000-0000-4000-8000-{i:012}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": name},
            "managedFields": [{"manager": "kubectl", "operation": "Update", "apiVersion": "v1",
                "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:ports": {}, "f:selector": {}, "f:type": {}}}}],
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None", "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn slice(i: u64) -> Value {
    let name = format!("svc{i}-x7k2p");
    let address = format!("10.{}.{}.{}", 200 + i / 62_500, i / 250 % 250, i % 250 + 1);
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": format!("ns{}", i % NAMESPACES),
            "uid": format!("00000000-0000-4000-9000-{i:012}"),
            "labels": {"kubernetes.io/service-name": format!("svc{i}")},
        },
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": [address], "nodeName": format!("node{}", i % 50),
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "name": format!("svc{i}-6d4cf56db6-x7k2p")},
        }],
    })
}
