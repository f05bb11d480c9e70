//! `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1), as kubeadm writes it: each field of
//! the file with what it comes to here. Pure: text in, verdicts out.

mod fields;
#[cfg(test)]
mod fuzzing;
mod kind;

use std::{fmt, path::Path};

use fairlead_state::in_one_line;
use serde_json::{Map, Value};
use serde_saphyr::{DuplicateKeyPolicy, Error};

use self::fields::{FIELDS, Meaning};
use crate::exit::BadConfiguration;

/// More than any such file needs; YAML's anchors could make much of little.
const NODES_MAX: usize = 10_000;
pub(crate) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
pub(crate) const KIND: &str = "KubeProxyConfiguration";

/// What one field of the file comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Says nothing that is not so anyway: empty, null, zero or kube-proxy's own default.
    Default,
    /// Does here what it does there, by these flags of the agent and their values.
    Honoured(Vec<(&'static str, String)>),
    /// Has no meaning here: why.
    NoMeaning(&'static str),
    /// No field that is known here: a spelling mistake, or a newer kube-proxy's. What it may mean.
    Unknown(String),
    /// Cannot stay: what is wrong, and the cure.
    Refused(String),
}

/// One field of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// `conntrack.maxPerCore`
    pub(crate) path: String,
    /// What it is given.
    pub(crate) value: Value,
    /// What that comes to.
    pub(crate) verdict: Verdict,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, value, verdict } = self;
        // Any key may stand in a file; what is said of it is one line.
        let path = in_one_line(path);
        match verdict {
            Verdict::Default => write!(f, "{path}: as it is anyway"),
            Verdict::Honoured(flags) => {
                write!(f, "{path}:")?;
                flags.iter().try_for_each(|(flag, value)| write!(f, " --{flag}={value}"))
            }
            Verdict::NoMeaning(why) => write!(f, "{path}: {value} has no meaning here: {why}"),
            Verdict::Unknown(reason) => write!(f, "{path}: passed over, for it {reason}"),
            Verdict::Refused(reason) => write!(f, "{path}: {reason}"),
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// In the order of their names.
    pub(crate) fields: Vec<Field>,
    /// A key that stands there twice.
    pub(crate) twice: Option<String>,
}

impl Report {
    /// Fields that have no meaning here, or none with this value, each with the reason, for one warning.
    pub(crate) fn without_meaning(&self) -> Option<String> {
        let says_nothing =
            |f: &&Field| matches!(f.verdict, Verdict::NoMeaning(_) | Verdict::Unknown(_));
        let lines: Vec<_> = self.fields.iter().filter(says_nothing).map(Field::to_string).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Says once what has no meaning here, and what is written twice.
    pub(crate) fn warn(&self) {
        if let Some(twice) = &self.twice {
            tracing::warn!("--kube-proxy-config: {twice}");
        }
        if let Some(fields) = self.without_meaning() {
            tracing::warn!("--kube-proxy-config: {fields}");
        }
    }

    /// What is wrong with the file, in one line.
    pub(crate) fn refusal(&self) -> Option<String> {
        let fields = self.fields.iter().filter(|f| matches!(f.verdict, Verdict::Refused(_)));
        let lines: Vec<_> = fields.map(ToString::to_string).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// The agent's flags the file stands for: name without dashes, value.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let flags = self.fields.iter().filter_map(|field| match &field.verdict {
            Verdict::Honoured(flags) => Some(flags),
            _ => None,
        });
        flags.flatten().map(|(flag, value)| (*flag, value.as_str()))
    }
}

/// Reads the file; a refused field is an error that names file, field and cure.
///
/// # Errors
/// The file cannot be read or used.
pub(crate) fn load(path: &Path) -> Result<Report, BadConfiguration> {
    let bad = |reason: &dyn fmt::Display| {
        BadConfiguration(format!("--kube-proxy-config {}: {reason}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(&error))?;
    let report = read(&text).map_err(|reason| bad(&reason))?;
    match report.refusal() {
        Some(reason) => Err(bad(&reason)),
        None => Ok(report),
    }
}

/// A verdict on every field of `text`.
///
/// # Errors
/// The text is no YAML or JSON mapping of this kind; single fields are judged one by one.
pub(crate) fn read(text: &str) -> Result<Report, String> {
    let (value, twice) = match parse(text, DuplicateKeyPolicy::Error) {
        Ok(value) => (value, None),
        Err(strict) => {
            let twice = twice(&strict).ok_or_else(|| in_words(&strict))?;
            // As kube-proxy, which logs what its strict reading finds and reads once more.
            let value =
                parse(text, DuplicateKeyPolicy::LastWins).map_err(|error| in_words(&error))?;
            (value, Some(twice))
        }
    };
    judge(&value, twice)
}

/// Whether the text is such a file, or means to be one.
pub(crate) fn is_meant(text: &str) -> bool {
    if !text.contains(KIND) {
        return false;
    }
    match parse(text, DuplicateKeyPolicy::LastWins) {
        Ok(document) => document.get("kind").and_then(Value::as_str) == Some(KIND),
        Err(_) => text.lines().any(|line| line.strip_prefix("kind: ").map(str::trim) == Some(KIND)),
    }
}

/// As sigs.k8s.io/yaml has it, YAML 1.1: `yes` is true.
fn parse(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Value, Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_events: NODES_MAX * 2 },
        with_snippet: false,
        duplicate_keys: duplicate_keys,
    };
    serde_saphyr::from_str_with_options(text, options)
}

fn in_words(error: &Error) -> String {
    error.without_snippet().to_string().replace('\n', " ")
}

/// The key that stands there twice, if that is all.
fn twice(error: &Error) -> Option<String> {
    let Error::DuplicateMappingKey { key, location } = error.without_snippet() else { return None };
    let key = in_one_line(key.as_deref().unwrap_or("a key")).to_string();
    Some(format!("line {}: {key} stands there twice: the last one counts", location.line()))
}

fn judge(document: &Value, twice: Option<String>) -> Result<Report, String> {
    let Value::Object(document) = document else {
        return Err(format!("is no mapping: give a {KIND}"));
    };
    check_kind(document)?;
    let mut fields = Vec::new();
    walk(document, "", &mut fields);
    settle_modes(document, &mut fields);
    fields.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Report { fields, twice })
}

fn check_kind(document: &Map<String, Value>) -> Result<(), String> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind == "ConfigMap" {
        return Err("is a ConfigMap: give what stands under its key config.conf".to_owned());
    }
    if kind != KIND {
        return Err(format!("kind: {kind:?} is not {KIND}"));
    }
    if api_version != API_VERSION {
        return Err(format!("apiVersion: {api_version:?} is not known; {API_VERSION} is"));
    }
    Ok(())
}

fn walk(section: &Map<String, Value>, prefix: &str, fields: &mut Vec<Field>) {
    for (key, value) in section {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if prefix.is_empty() && matches!(key.as_str(), "apiVersion" | "kind") {
            continue;
        }
        let Some(field) = FIELDS.iter().find(|field| field.path == path) else {
            let below = format!("{path}.");
            let is_section = FIELDS.iter().any(|field| field.path.starts_with(&below));
            match value {
                Value::Object(section) if is_section => walk(section, &path, fields),
                Value::Null if is_section => {}
                value => {
                    // A newer kubeadm's file must not end the start: kube-proxy, too, warns of what its strict reading finds
                    // and goes on (cmd/kube-proxy/app/options.go).
                    let verdict = match is_section {
                        true => Verdict::Refused(not_a_section(&below)),
                        false => Verdict::Unknown(unknown(&path)),
                    };
                    fields.push(Field { path, value: value.clone(), verdict });
                }
            }
            continue;
        };
        let verdict = match field.kind.check(value) {
            Err(reason) => Verdict::Refused(format!("{value}: {reason}")),
            Ok(None) => Verdict::Default,
            Ok(Some(text)) => match &field.meaning {
                Meaning::Flag(flag) => Verdict::Honoured(vec![(flag, text)]),
                Meaning::None { default, .. } if text == *default => Verdict::Default,
                Meaning::None { why, .. } => Verdict::NoMeaning(why),
                Meaning::By(decide) => decide(&text),
            },
        };
        fields.push(Field { path, value: value.clone(), verdict });
    }
}

/// Fields that mean something in some of kube-proxy's modes only, and what a mode means for others
/// that are not given.
fn settle_modes(document: &Map<String, Value>, fields: &mut [Field]) {
    let mode = document.get("mode").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_given = |fields: &[Field], path: &str| {
        fields.iter().any(|field| field.path == path && field.verdict != Verdict::Default)
    };
    let has_places = is_given(fields, "nodePortAddresses");
    let (has_healthz, has_metrics) =
        (is_given(fields, "healthzBindAddress"), is_given(fields, "metricsBindAddress"));
    for field in fields.iter_mut().filter(|f| !matches!(f.verdict, Verdict::Refused(_))) {
        match (field.path.as_str(), mode.as_str()) {
            // The nftables mode's own default; the others' is Fairlead's.
            ("mode", "nftables") if !has_places => {
                field.verdict =
                    Verdict::Honoured(vec![("nodeport-addresses", "primary".to_owned())]);
            }
            ("iptables.masqueradeAll", "nftables")
            | ("nftables.masqueradeAll", "iptables" | "ipvs")
                if field.verdict != Verdict::Default =>
            {
                field.verdict = Verdict::NoMeaning("kube-proxy does not read it in this mode");
            }
            ("bindAddress", _) if field.value.as_str().is_some_and(|ip| ip.contains(':')) => {
                let mut flags = Vec::new();
                if !has_healthz {
                    flags.push(("healthz-listen", "[::]:10256".to_owned()));
                }
                if !has_metrics {
                    flags.push(("metrics-listen", "[::1]:10249".to_owned()));
                }
                if !flags.is_empty() {
                    field.verdict = Verdict::Honoured(flags);
                }
            }
            _ => {}
        }
    }
}

fn not_a_section(below: &str) -> String {
    format!("is a section: give its fields, {}", names(below).join(", "))
}

fn unknown(path: &str) -> String {
    let section = path.rsplit_once('.').map_or(String::new(), |(section, _)| format!("{section}."));
    let name = path.rsplit('.').next().unwrap_or(path);
    let plain = |name: &str| {
        let letters = name.chars().filter(char::is_ascii_alphanumeric);
        letters.collect::<String>().to_ascii_lowercase()
    };
    let known = names(&section);
    let nearest = known.iter().find(|known| plain(known) == plain(name));
    let known_elsewhere = FIELDS.iter().map(|field| field.path);
    let elsewhere = known_elsewhere.clone().find(|known| known.rsplit('.').next() == Some(name));
    match (nearest, elsewhere) {
        (Some(nearest), _) => format!("is no field of {API_VERSION}; did you mean {nearest}?"),
        (None, Some(elsewhere)) => {
            format!("is no field of {API_VERSION}; did you mean {elsewhere}?")
        }
        _ => format!("is no field of {API_VERSION}: remove it (fields here: {})", known.join(", ")),
    }
}

/// What may stand in a section, by the names of its own level.
fn names(section: &str) -> Vec<&'static str> {
    let below = FIELDS.iter().filter_map(|field| field.path.strip_prefix(section));
    let mut names: Vec<_> = below.filter_map(|rest| rest.split('.').next()).collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
