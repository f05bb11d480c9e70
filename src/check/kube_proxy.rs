//! kube-proxy's configuration, field by field, as `--kube-proxy-config` takes it.

use serde_json::Value;

use super::{Checked, Verdict};
use crate::kube_proxy::config;

const KIND: &str = config::KIND;

/// One verdict a field that says something.
pub(super) fn check(document: &Value) -> Vec<Checked> {
    let report = match config::judge(document) {
        Ok(report) => report,
        Err(reason) => return vec![Checked::of(KIND.to_owned(), vec![(Verdict::Refused, reason)])],
    };
    let checked = report.fields.iter().filter_map(|field| {
        let (object, said) = (format!("{KIND} {}", field.path), field.to_string());
        let said = said.split_once(": ").map_or(said.as_str(), |(_, said)| said).to_owned();
        let finding = match &field.verdict {
            config::Verdict::Default => return None,
            config::Verdict::Honoured(_) => (Verdict::Works, format!("as {said}")),
            config::Verdict::NoMeaning(why) => {
                (Verdict::Works, format!("no effect, none needed: {why}"))
            }
            config::Verdict::Unknown(_) => (Verdict::Differs, said),
            config::Verdict::Refused(_) => (Verdict::Refused, said),
        };
        Some(Checked::of(object, vec![finding]))
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_that_says_something_has_one_verdict() {
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
        let found = check(&document);
        let shown = |checked: &Checked| (checked.object.clone(), checked.verdict);
        let expected = [
            ("iptables.masqueradeAll", Verdict::Works),
            ("ipvs.scheduler", Verdict::Works),
            ("mode", Verdict::Works),
            ("nodePortAddresses", Verdict::Works),
            ("spelling", Verdict::Differs),
        ]
        .map(|(field, verdict)| (format!("KubeProxyConfiguration {field}"), verdict));
        assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!(found[3].reasons, ["as --nodeport-addresses=10.0.0.0/8"]);
        let other = check(&json!({"kind": "KubeProxyConfiguration", "apiVersion": "v1"}));
        assert_eq!(other[0].verdict, Verdict::Refused);
    }
}
