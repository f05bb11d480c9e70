//! Every metric an agent tells: name, type, labels and help, for `/metrics` and for
//! docs/reference/metrics.md (`fairlead man --metrics`).

mod coredns;
mod fairlead;
mod kube_proxy;
mod nginx;
mod process;

use std::fmt::{Display, Write as _};

/// A metric's type, as Prometheus names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    kind: Kind,
    /// Besides those its whole family has.
    labels: &'static [&'static str],
    /// One line of plain text, without a dot at its end.
    help: &'static str,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

/// Metrics under one heading.
#[derive(Debug)]
struct Family {
    title: &'static str,
    /// What holds for all of them, in Markdown.
    intro: &'static str,
    metrics: &'static [Metric],
}

const FAMILIES: [&Family; 5] =
    [&fairlead::FAMILY, &process::FAMILY, &kube_proxy::FAMILY, &coredns::FAMILY, &nginx::FAMILY];

fn all() -> impl Iterator<Item = &'static Metric> {
    FAMILIES.into_iter().flat_map(|family| family.metrics)
}

/// Appends what stands before a metric's samples. Writing to a String cannot fail.
pub(crate) fn head(text: &mut String, name: &str) {
    let found = all().find(|metric| metric.name == name);
    debug_assert!(found.is_some(), "{name} is in no list of src/metrics");
    let Some(Metric { kind, help, .. }) = found else { return };
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
}

/// Appends a metric without labels.
pub(crate) fn single(text: &mut String, name: &str, value: impl Copy + Display) {
    head(text, name);
    let _ = writeln!(text, "{name} {value}");
}

const HEAD: &str = "# Metrics\n\n\
    <!-- Made by `make reference` from the program itself: change src/metrics. -->\n\n\
    What `/metrics` of an agent tells, by roles that run; [where that is, and more of what is counted](../monitoring.md). \
    Names, types and help are those of the text Prometheus reads.\n";

/// The whole reference.
pub(crate) fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for Family { title, intro, metrics } in FAMILIES {
        let _ = write!(
            text,
            "\n## {title}\n\n{intro}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        );
        for Metric { name, kind, labels, help } in *metrics {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (kind, labels) = (kind.as_str(), labels.join(", "));
            let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {help} |");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_reference_is_that_of_this_program() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/metrics.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let made = markdown();
        assert!(
            kept == made,
            "docs/reference/metrics.md is not what src/metrics says: `make reference`"
        );
    }

    #[test]
    fn each_is_there_once_named_as_prometheus_has_it_and_explained_in_one_line() {
        let mut seen = BTreeSet::new();
        for Metric { name, kind, help, .. } in all() {
            assert!(seen.insert(name), "{name} is there twice");
            // Names of others are theirs.
            let is_ours = name.starts_with("fairlead_");
            assert!(!is_ours || name.ends_with("_total") == (*kind == Kind::Counter), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
            assert!(!help.contains(['\n', '\\', '|', '`']), "{name}: {help}");
        }
    }

    #[test]
    fn a_sample_stands_below_its_help_and_type() {
        let mut text = String::new();
        single(&mut text, "fairlead_proxy_services", 3);
        let expected = "# HELP fairlead_proxy_services Services with something to serve\n\
                        # TYPE fairlead_proxy_services gauge\nfairlead_proxy_services 3\n";
        assert_eq!(text, expected);
    }
}
