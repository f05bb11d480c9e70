//! `/configz`: the settings in force, in the shape of kube-proxy's configuration.

use serde_json::{Value, json};

use super::config::{API_VERSION, KIND, Report, Verdict};
use crate::agent::Args;

/// `{"kubeproxy.config.k8s.io": {...}}`. What has no meaning here is shown as the file gives it.
pub(crate) fn page(args: &Args, file: &Report, node_name: &str) -> String {
    let mut config = json!({ "apiVersion": API_VERSION, "kind": KIND });
    for field in &file.fields {
        if matches!(field.verdict, Verdict::NoMeaning(_) | Verdict::Default) {
            put(&mut config, &field.path, field.value.clone());
        }
    }
    let listen = |address: Option<std::net::SocketAddr>| {
        address.map_or(String::new(), |address| address.to_string())
    };
    let conntrack = &args.drop_in.conntrack;
    let kubeconfig = args.source.kubeconfig.as_ref().map(|path| path.display().to_string());
    for (path, value) in [
        ("bindAddressHardFail", json!(args.drop_in.bind_address_hard_fail)),
        ("clientConnection.kubeconfig", json!(kubeconfig.unwrap_or_default())),
        ("conntrack.maxPerCore", json!(conntrack.conntrack_max_per_core)),
        ("conntrack.min", json!(conntrack.conntrack_min)),
        ("conntrack.tcpBeLiberal", json!(conntrack.conntrack_tcp_be_liberal)),
        (
            "conntrack.tcpCloseWaitTimeout",
            json!(conntrack.conntrack_tcp_timeout_close_wait.to_string()),
        ),
        (
            "conntrack.tcpEstablishedTimeout",
            json!(conntrack.conntrack_tcp_timeout_established.to_string()),
        ),
        ("conntrack.udpStreamTimeout", json!(conntrack.conntrack_udp_timeout_stream.to_string())),
        ("conntrack.udpTimeout", json!(conntrack.conntrack_udp_timeout.to_string())),
        ("featureGates.AllowServiceExternalIPs", json!(args.proxy.external_ips)),
        ("healthzBindAddress", json!(listen(args.admin.healthz_listen.0))),
        ("hostnameOverride", json!(node_name)),
        ("iptables.masqueradeAll", json!(args.proxy.masquerade_all)),
        ("metricsBindAddress", json!(listen(args.admin.metrics_listen.0))),
        ("mode", json!(MODE)),
        ("nftables.masqueradeAll", json!(args.proxy.masquerade_all)),
        ("nodePortAddresses", json!(args.proxy.nodeport_addresses)),
        ("oomScoreAdj", json!(args.drop_in.oom_score_adj)),
    ] {
        put(&mut config, path, value);
    }
    json!({ "kubeproxy.config.k8s.io": config }).to_string()
}

/// What `/proxyMode` answers.
pub(crate) const MODE: &str = "ebpf";

fn put(config: &mut Value, path: &str, value: Value) {
    let (section, rest) = path.split_once('.').unwrap_or((path, ""));
    let Some(map) = config.as_object_mut() else { return };
    if rest.is_empty() {
        map.insert(section.to_owned(), value);
        return;
    }
    let section = map.entry(section).or_insert_with(|| json!({}));
    if !section.is_object() {
        *section = json!({});
    }
    put(section, rest, value);
}
