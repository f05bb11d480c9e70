//! The table as Kubernetes has it: an Ingress for each host, with a Service of its own.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::table::{self, Table};

const NAMESPACE: &str = "default";

/// The Service of a host.
pub fn service_of(host: usize) -> String {
    format!("web-{host}")
}

/// The Service that leads to the upstream of this place, whoever refers to it.
pub fn service_at(upstream: usize) -> String {
    format!("at-{upstream}")
}

pub fn all(table: &Table) -> Vec<Value> {
    let mut all = vec![json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": "fairlead", "uid": "class"},
        "spec": {"controller": "fairlead.io/ingress"},
    })];
    for (i, upstream) in table.upstreams.iter().enumerate() {
        all.extend([service(&service_at(i)), slice(&service_at(i), *upstream)]);
    }
    for (i, pem) in table.certificates.iter().enumerate() {
        all.push(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": metadata(&format!("tls-{i}")),
            "data": {"tls.crt": STANDARD.encode(&pem.certificate), "tls.key": STANDARD.encode(&pem.key)},
        }));
    }
    for host in 0..table.hosts() {
        let name = service_of(host);
        let upstream = table.upstreams[table.leads(host)];
        all.extend([service(&name), slice(&name, upstream), ingress(table, host, &name)]);
    }
    all
}

pub fn ingress(table: &Table, host: usize, service: &str) -> Value {
    let name = table::host(host);
    let tls = table.certificate(host);
    let tls = tls.map(|tls| json!([{"hosts": [name], "secretName": format!("tls-{tls}")}]));
    let mut metadata = metadata(&service_of(host));
    metadata["annotations"] = json!({"nginx.ingress.kubernetes.io/ssl-redirect": "false"});
    if table.called().contains(&host) {
        metadata["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] = json!("GRPC");
    }
    let mut ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata,
        "spec": {
            "ingressClassName": "fairlead",
            "rules": [{"host": name, "http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": service, "port": {"name": "http"}}},
            }]}}],
        },
    });
    if let Some(tls) = tls {
        ingress["spec"]["tls"] = tls;
    }
    ingress
}

/// Of one endpoint.
pub fn slice(service: &str, upstream: SocketAddr) -> Value {
    let mut metadata = metadata(&format!("{service}-x7k2p"));
    metadata["labels"] = json!({"kubernetes.io/service-name": service});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": upstream.port(), "protocol": "TCP"}],
        "endpoints": [{
            "addresses": [upstream.ip().to_string()], "nodeName": "bench",
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }],
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
        "spec": {
            "type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name, "namespace": NAMESPACE, "uid": name,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    })
}
