//! The demo's objects, as `kubectl get -o yaml` (or `-o json`) would print them.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Objects that never change: file name and content.
const FIXED: [(&str, &str); 6] = [
    ("cluster.yaml", include_str!("manifests/cluster.yaml")),
    ("kube-dns.yaml", include_str!("manifests/kube-dns.yaml")),
    ("hello.yaml", include_str!("manifests/hello.yaml")),
    ("db.yaml", include_str!("manifests/db.yaml")),
    ("empty.yaml", include_str!("manifests/empty.yaml")),
    ("ingress.yaml", include_str!("manifests/ingress.yaml")),
];

/// A pod as the EndpointSlice controller sees it.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    /// Its name.
    pub(crate) name: String,
    /// `status.podIPs`.
    pub(crate) v4: Ipv4Addr,
    /// See `v4`.
    pub(crate) v6: Ipv6Addr,
    /// `spec.hostname`, which only a StatefulSet sets.
    pub(crate) hostname: Option<String>,
    /// `spec.nodeName`.
    pub(crate) node: &'static str,
    /// Has a deletion timestamp: it still answers, and gets nothing new.
    pub(crate) terminating: bool,
}

/// Writes the objects that never change.
pub(crate) fn write_fixed(dir: &Path) -> io::Result<()> {
    FIXED.iter().try_for_each(|(name, text)| write(dir, name, text))
}

/// Puts a file in place in one step: nobody sees half of it.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let unfinished = dir.join(format!(".{name}.new"));
    fs::write(&unfinished, text)?;
    fs::rename(unfinished, dir.join(name))
}

/// A Service's two EndpointSlices, and its pods, as a List.
pub(crate) fn endpoints(service: &str, pods: &[PodView]) -> String {
    let slices = [
        slice(service, "IPv4", pods, |pod| pod.v4.into()),
        slice(service, "IPv6", pods, |pod| pod.v6.into()),
    ];
    let pods = pods.iter().map(|view| pod(service, view));
    let items: Vec<Value> = slices.into_iter().chain(pods).collect();
    format!("{:#}\n", json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// A `kubernetes.io/tls` Secret.
pub(crate) fn tls_secret(name: &str, certificate_pem: &str, key_pem: &str) -> String {
    let data =
        json!({"tls.crt": STANDARD.encode(certificate_pem), "tls.key": STANDARD.encode(key_pem)});
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "type": "kubernetes.io/tls",
        "data": data,
    });
    format!("{secret:#}\n")
}

fn slice(
    service: &str,
    family: &str,
    pods: &[PodView],
    address: impl Fn(&PodView) -> IpAddr,
) -> Value {
    let endpoints: Vec<Value> = pods.iter().map(|pod| endpoint(pod, address(pod))).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", family.to_lowercase()),
            "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "echo", "port": 8080, "protocol": "UDP"},
        ],
    })
}

fn endpoint(pod: &PodView, address: IpAddr) -> Value {
    let mut endpoint = json!({
        "addresses": [address],
        // A terminating pod is never ready, though it still serves (KEP-1672).
        "conditions": {"ready": !pod.terminating, "serving": true, "terminating": pod.terminating},
        "nodeName": pod.node,
        "targetRef": {"kind": "Pod", "name": pod.name, "namespace": "default"},
    });
    if let (Some(hostname), Some(fields)) = (&pod.hostname, endpoint.as_object_mut()) {
        fields.insert("hostname".into(), json!(hostname));
    }
    endpoint
}

fn pod(app: &str, pod: &PodView) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": "default", "labels": {"app": app}},
        "spec": {"nodeName": pod.node, "containers": [{"name": "echo", "image": "echo"}]},
        "status": {
            "phase": "Running",
            "podIP": pod.v4,
            "podIPs": [{"ip": pod.v4}, {"ip": pod.v6}],
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fairlead_state::{Key, source::directory};

    use super::*;

    fn pods() -> Vec<PodView> {
        [(1, false), (2, true)]
            .map(|(last, terminating)| PodView {
                name: format!("db-{last}"),
                v4: Ipv4Addr::new(10, 244, 1, last),
                v6: Ipv6Addr::LOCALHOST,
                hostname: Some(format!("db-{last}")),
                node: "node1",
                terminating,
            })
            .into()
    }

    #[test]
    fn every_object_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        write_fixed(dir.path()).unwrap();
        write(dir.path(), "db-pods.json", &endpoints("db", &pods())).unwrap();
        write(dir.path(), "hello-tls.json", &tls_secret("hello-tls", "certificate", "key"))
            .unwrap();
        let loaded =
            directory::load(&[dir.path().to_owned()], Some("node1".into()), BTreeSet::new())
                .unwrap();
        let snapshot = loaded.snapshot;
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
        assert_eq!(snapshot.services().len(), 4);
        assert_eq!(snapshot.secrets().len(), 1);
        let slices: Vec<_> = snapshot.slices_of(&Key::new("default", "db")).collect();
        assert_eq!(slices.len(), 2);
        for slice in slices {
            let conditions: Vec<_> = slice
                .endpoints
                .iter()
                .map(|endpoint| (endpoint.ready, endpoint.serving, endpoint.terminating))
                .collect();
            assert_eq!(conditions, [(true, true, false), (false, true, true)]);
        }
    }
}
