//! The demo's objects, as `kubectl get -o yaml` would print them. Those of pods change; they are written here.

use std::{
    fmt::Write,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};

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

/// A Service's two EndpointSlices, and its pods.
pub(crate) fn endpoints(service: &str, pods: &[PodView]) -> String {
    let mut text = String::new();
    slice(&mut text, service, "IPv4", pods, |pod| pod.v4.into());
    slice(&mut text, service, "IPv6", pods, |pod| pod.v6.into());
    for pod in pods {
        self::pod(&mut text, service, pod);
    }
    text
}

/// A `kubernetes.io/tls` Secret.
pub(crate) fn tls_secret(name: &str, certificate_pem: &str, key_pem: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: default\n\
         type: kubernetes.io/tls\ndata:\n  tls.crt: {}\n  tls.key: {}\n",
        STANDARD.encode(certificate_pem),
        STANDARD.encode(key_pem)
    )
}

fn slice(
    text: &mut String,
    service: &str,
    family: &str,
    pods: &[PodView],
    address: impl Fn(&PodView) -> IpAddr,
) {
    let suffix = family.to_lowercase();
    push(
        text,
        format_args!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  labels:\n    \
             endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io\n    \
             kubernetes.io/service-name: {service}\n  name: {service}-{suffix}\n  namespace: default\n\
             addressType: {family}\nendpoints:{}\n",
            if pods.is_empty() { " []" } else { "" }
        ),
    );
    for pod in pods {
        endpoint(text, pod, address(pod));
    }
    push(text, format_args!("ports:\n- name: http\n  port: 8080\n  protocol: TCP\n"));
    push(text, format_args!("- name: echo\n  port: 8080\n  protocol: UDP\n"));
}

fn endpoint(text: &mut String, pod: &PodView, address: IpAddr) {
    // A terminating pod is never ready (KEP-1672).
    push(
        text,
        format_args!(
            "- addresses:\n  - {address}\n  conditions:\n    ready: {}\n    serving: true\n    \
             terminating: {}\n",
            !pod.terminating, pod.terminating
        ),
    );
    if let Some(hostname) = &pod.hostname {
        push(text, format_args!("  hostname: {hostname}\n"));
    }
    push(
        text,
        format_args!(
            "  nodeName: node1\n  targetRef:\n    kind: Pod\n    name: {}\n    namespace: default\n",
            pod.name
        ),
    );
}

fn pod(text: &mut String, app: &str, pod: &PodView) {
    let PodView { name, v4, v6, .. } = pod;
    push(
        text,
        format_args!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    app: {app}\n  name: {name}\n  \
             namespace: default\nspec:\n  containers:\n  - image: echo\n    name: echo\n  \
             nodeName: node1\nstatus:\n  phase: Running\n  podIP: {v4}\n  podIPs:\n  \
             - ip: {v4}\n  - ip: {v6}\n"
        ),
    );
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _: Result<(), std::fmt::Error> = text.write_fmt(part);
}
