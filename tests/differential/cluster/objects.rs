//! Objects as an API server has them.

use serde_json::{Value, json};

pub(crate) fn metadata(namespace: &str, name: &str) -> Value {
    let uid = format!("{namespace}-{name}");
    match namespace {
        "" => json!({"name": name, "uid": uid}),
        _ => json!({"name": name, "namespace": namespace, "uid": uid}),
    }
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata("", name)})
}

/// A Service of namespace `probe` without an address, with one port.
pub(crate) fn headless(name: &str) -> Value {
    let spec = json!({
        "clusterIP": "None", "clusterIPs": ["None"],
        "ports": [{"name": "p", "port": 1, "protocol": "TCP"}],
    });
    service("probe", name, spec)
}

/// What [`headless`] of this name leads to, by IPv4.
pub(crate) fn headless_slice(name: &str, endpoints: &[Value]) -> Value {
    let ports = json!([{"name": "p", "protocol": "TCP", "port": 1}]);
    slice("probe", name, &format!("{name}-1"), "IPv4", &ports, endpoints)
}

pub(crate) fn service(namespace: &str, name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("type").is_none() {
        spec["type"] = json!("ClusterIP");
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(namespace, name), "spec": spec})
}

pub(crate) fn slice(
    namespace: &str,
    service: &str,
    name: &str,
    family: &str,
    ports: &Value,
    endpoints: &[Value],
) -> Value {
    let mut metadata = metadata(namespace, name);
    metadata["labels"] = json!({"kubernetes.io/service-name": service});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

/// A Service of the cluster set (KEP-1645); headless without addresses.
pub(crate) fn import(namespace: &str, name: &str, ips: &[String], ports: &Value) -> Value {
    let kind = if ips.is_empty() { "Headless" } else { "ClusterSetIP" };
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImport",
        "metadata": metadata(namespace, name), "spec": {"type": kind, "ips": ips, "ports": ports},
    })
}

/// The same slice as one that another cluster has exported.
pub(crate) fn imported(slice: Value, cluster: &str) -> Value {
    let mut slice = slice;
    let labels = &mut slice["metadata"]["labels"];
    let service = labels["kubernetes.io/service-name"].clone();
    *labels = json!({
        "multicluster.kubernetes.io/service-name": service,
        "multicluster.kubernetes.io/source-cluster": cluster,
    });
    slice
}

/// A running pod of the node that asks.
pub(crate) fn pod(namespace: &str, name: &str, ips: &[String]) -> Value {
    let all: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata(namespace, name),
        "spec": {"nodeName": "node-1", "containers": []},
        "status": {"phase": "Running", "podIP": ips[0], "podIPs": all},
    })
}
