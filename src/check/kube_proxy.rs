//! kube-proxy's configuration, field by field, as `--kube-proxy-config` takes it.

use super::{Checked, Verdict};
use crate::kube_proxy::config;

const KIND: &str = config::KIND;

/// What of a file with several documents is such a configuration.
pub(super) fn documents(text: &str) -> Vec<&str> {
    let (mut begins, mut at) = (vec![0], 0);
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            begins.push(at);
        }
        at += line.len();
    }
    let ends = begins.iter().skip(1).copied().chain([at]);
    let documents = begins.iter().zip(ends).filter_map(|(begin, end)| text.get(*begin..end));
    documents.filter(|document| config::is_meant(document)).collect()
}

/// One verdict a field that says something.
pub(super) fn check(text: &str) -> Vec<Checked> {
    let report = match config::read(text) {
        Ok(report) => report,
        Err(reason) => return vec![Checked::of(KIND.to_owned(), vec![(Verdict::Refused, reason)])],
    };
    let twice = report.twice.iter();
    let twice =
        twice.map(|twice| Checked::of(KIND.to_owned(), vec![(Verdict::Differs, twice.clone())]));
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
    twice.chain(checked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_says_something_has_one_verdict() {
        let document = "
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ipvs
ipvs: {scheduler: rr, strictARP: false}
iptables: {masqueradeAll: true, syncPeriod: 30s}
nodePortAddresses: [10.0.0.0/8]
clusterCIDR: ''
conntrack: {min: null}
spelling: mistake
";
        let found = check(document);
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
    }

    /// What only `check` could read works nowhere; what it could not read was nothing to it.
    #[test]
    fn bug_the_verdict_was_not_the_serving_parsers() {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let (of_kind, of_field) = ("KubeProxyConfiguration", "KubeProxyConfiguration mode");
        for (text, object, verdict, reason) in [
            (format!("{head}mode: [\n"), of_kind, Verdict::Refused, ""),
            (
                format!("{head}mode: ipvs\nmode: ipvs\n"),
                of_kind,
                Verdict::Differs,
                "mode stands there twice",
            ),
            (format!("{head}mode: yes\n"), of_field, Verdict::Refused, ""),
            (
                "apiVersion: v1\nkind: KubeProxyConfiguration\n".to_owned(),
                of_kind,
                Verdict::Refused,
                "v1",
            ),
        ] {
            let [document] = &documents(&text)[..] else { panic!("{text}") };
            let found = check(document);
            assert_eq!((found[0].object.as_str(), found[0].verdict), (object, verdict), "{text}");
            assert!(found[0].reasons[0].contains(reason), "{text}: {found:?}");
            assert_eq!(
                config::read(&text).is_err(),
                object == of_kind && verdict == Verdict::Refused
            );
        }
    }

    #[test]
    fn of_several_documents_those_count_that_are_such_a_configuration_or_mean_to_be() {
        let one = "---\nkind: KubeProxyConfiguration\nmode: ipvs\n";
        let broken = "---\nkind: KubeProxyConfiguration\nmode: [\n";
        let other = "---\nkind: ConfigMap\ndata: {a: KubeProxyConfiguration}\n";
        let text = format!("# Of a cluster.\n{one}{other}{broken}");
        assert_eq!(documents(&text), [one, broken]);
        assert_eq!(documents("A KubeProxyConfiguration: [that is, a file\n"), [""; 0]);
    }
}
