//! kube-proxy's configuration, key by key: which flag means the same, what has no counterpart.

use serde_json::Value;

use super::{Checked, Verdict};

/// What becomes of a key: same, a flag instead, no effect, or refused.
enum Here {
    /// Nothing to do.
    Same,
    /// This flag of the agent says it.
    Flag(&'static str),
    /// There is no need for it.
    Needless(&'static str),
    /// It cannot be had.
    Missing(&'static str),
}

const KEYS: &[(&str, Here)] = &[
    ("apiVersion", Here::Same),
    ("kind", Here::Same),
    ("bindAddress", Here::Needless("NodePorts answer by --nodeport-addresses")),
    ("bindAddressHardFail", Here::Needless("a taken port is one error line and tried again")),
    ("clientConnection.kubeconfig", Here::Flag("--kubeconfig FILE (in a pod: not needed)")),
    ("clientConnection", Here::Needless("one watch for each kind: there is nothing to limit")),
    ("clusterCIDR", Here::Needless("clients inside are known by their device, not by address")),
    ("configSyncPeriod", Here::Needless("changes are watched")),
    ("conntrack", Here::Needless("the connection table is Fairlead's own and needs no sysctl")),
    ("detectLocal", Here::Needless("clients inside are known by their device, not by address")),
    ("detectLocalMode", Here::Needless("clients inside are known by their device")),
    ("enableProfiling", Here::Missing("there is no profiler: perf and bpftool see everything")),
    ("featureGates", Here::Needless("what is finished is on")),
    ("healthzBindAddress", Here::Flag("--healthz-listen ADDR")),
    ("hostnameOverride", Here::Flag("--node-name NAME")),
    ("iptables.localhostNodePorts", Here::Flag("--nodeport-addresses (localhost included)")),
    ("iptables.masqueradeAll", Here::Flag("--masquerade-all")),
    ("iptables", Here::Needless("there are no iptables rules")),
    ("ipvs", Here::Missing("schedulers of IPVS: endpoints are chosen at random, evenly")),
    ("logging", Here::Flag("--log-level, --log-format")),
    ("metricsBindAddress", Here::Flag("--metrics-listen ADDR")),
    ("mode", Here::Needless("Services are balanced by eBPF")),
    ("nftables.masqueradeAll", Here::Flag("--masquerade-all")),
    ("nftables", Here::Needless("there are no nftables rules")),
    ("nodePortAddresses", Here::Flag("--nodeport-addresses WHERE,...")),
    ("oomScoreAdj", Here::Needless("Services stay in the kernel whatever ends the agent")),
    ("portRange", Here::Needless("kube-proxy ignores it as well")),
    ("showHiddenMetricsForVersion", Here::Missing("there are no hidden metrics")),
    ("windowsRunAsService", Here::Missing("Linux only")),
    ("winkernel", Here::Missing("Linux only")),
];

/// One verdict a key that says something.
pub(super) fn check(document: &Value) -> Vec<Checked> {
    let mut checked = Vec::new();
    let fields = document.as_object();
    for (key, value) in fields.into_iter().flatten() {
        walk(key, value, &mut checked);
    }
    checked
}

fn walk(key: &str, value: &Value, checked: &mut Vec<Checked>) {
    if is_empty(value) {
        return;
    }
    let inner = |key: &str| KEYS.iter().any(|(known, _)| known.starts_with(&format!("{key}.")));
    if let (Some(fields), true) = (value.as_object(), inner(key)) {
        for (name, value) in fields {
            walk(&format!("{key}.{name}"), value, checked);
        }
        return;
    }
    let parent = key.split('.').next().unwrap_or(key);
    let find = |wanted: &str| KEYS.iter().find(|(known, _)| *known == wanted);
    let finding = match find(key).or_else(|| find(parent)).map(|(_, here)| here) {
        Some(Here::Same) => return,
        Some(Here::Flag(flag)) => (Verdict::Differs, format!("{}: give {flag}", shown(value))),
        Some(Here::Needless(why)) => (Verdict::Works, format!("no effect, none needed: {why}")),
        Some(Here::Missing(why)) => (Verdict::Refused, format!("{}: {why}", shown(value))),
        None => (Verdict::Refused, "no key of KubeProxyConfiguration v1alpha1".to_owned()),
    };
    checked.push(Checked::of(format!("KubeProxyConfiguration {key}"), vec![finding]));
}

/// Defaults and blanks say nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty() || text == "0s",
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 60 { text } else { "its value".to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_key_has_one_verdict_and_blanks_have_none() {
        let document = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "ipvs",
            "ipvs": {"scheduler": "rr", "strictARP": false},
            "iptables": {"masqueradeAll": true, "syncPeriod": "30s"},
            "nodePortAddresses": ["10.0.0.0/8"],
            "clusterCIDR": "",
            "conntrack": {"min": null},
            "spelling": "mistake",
        });
        let found: Vec<(String, Verdict)> =
            check(&document).into_iter().map(|c| (c.object, c.verdict)).collect();
        let expected = [
            ("iptables.masqueradeAll", Verdict::Differs),
            ("iptables.syncPeriod", Verdict::Works),
            ("ipvs", Verdict::Refused),
            ("mode", Verdict::Works),
            ("nodePortAddresses", Verdict::Differs),
            ("spelling", Verdict::Refused),
        ];
        for (key, verdict) in expected {
            let wanted = (format!("KubeProxyConfiguration {key}"), verdict);
            assert!(found.contains(&wanted), "{key}: {found:?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:?}");
    }
}
