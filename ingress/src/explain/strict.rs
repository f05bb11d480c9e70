//! Requests that strict matching would answer otherwise, found by asking both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fairlead_state::{Key, Snapshot};

use super::{Explainer, Explanation, Outcome, Request};
use crate::{
    config::{IngressConfig, Matching},
    error::IngressError,
    routes::RouteRow,
};

/// Differences told of one Ingress: the rest is more of the same.
const PER_INGRESS_MAX: usize = 8;
/// What a label under a wildcard is called.
const LABEL: &str = "any";
/// A name under rules without host.
const NAME: &str = "any.example";

/// A request, and what becomes of it in both modes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The Ingress whose path it was made from.
    pub ingress: Key,
    /// Its host.
    pub host: String,
    /// Its path.
    pub path: String,
    /// What becomes of it as with ingress-nginx.
    pub compat: String,
    /// What becomes of it in strict mode.
    pub strict: String,
}

/// Asks both modes for each path of each host, and for what lies beside it. Paths with dot segments
/// or empty ones are not among them: strict mode refuses them everywhere.
///
/// # Errors
/// The system gives no randomness.
pub fn differences(
    config: &IngressConfig,
    snapshot: &Snapshot,
) -> Result<Vec<Difference>, IngressError> {
    let explainer =
        |matching| Explainer::new(&IngressConfig { matching, ..config.clone() }, snapshot);
    let (compat, strict) = (explainer(Matching::Compat)?, explainer(Matching::Strict)?);
    let mut found: Vec<Difference> = Vec::new();
    let mut asked = BTreeSet::new();
    let mut told: BTreeMap<Key, usize> = BTreeMap::new();
    for row in compat.rows() {
        for path in beside(&row) {
            let host = name_under(&row.host);
            let of_ingress = told.get(&row.ingress).copied().unwrap_or_default();
            if of_ingress >= PER_INGRESS_MAX || !asked.insert((host.clone(), path.clone())) {
                continue;
            }
            // By HTTPS, so that no redirect to it hides what is behind.
            let request = Request { tls: true, host: &host, path: &path };
            let answers = [&compat, &strict].map(|mode| told_of(&mode.explain(request)));
            let [compat, strict] = answers;
            if compat != strict {
                let ingress = row.ingress.clone();
                told.insert(ingress.clone(), of_ingress + 1);
                found.push(Difference { ingress, host, path, compat, strict });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A name the pattern stands for.
fn name_under(pattern: &str) -> String {
    match pattern.strip_prefix('*') {
        Some("") => NAME.to_owned(),
        Some(suffix) => format!("{LABEL}{suffix}"),
        None => pattern.to_owned(),
    }
}

/// The path itself, and the ones the surprises are about.
fn beside(row: &RouteRow) -> Vec<String> {
    if row.path.is_empty() {
        return Vec::new();
    }
    let path = sample(&row.path);
    let stem = path.strip_suffix('/').unwrap_or(&path);
    let mut paths = vec![
        path.clone(),
        stem.to_owned(),
        format!("{stem}/"),
        format!("{stem}/x"),
        format!("{stem}x"),
        path.to_ascii_uppercase(),
    ];
    paths.retain(|path| path.starts_with('/'));
    paths
}

/// A path an expression might fit: its text up to the first character that is none of a path, and
/// what a group of alternatives begins with.
fn sample(pattern: &str) -> String {
    let is_meta = |c: char| "^$.*+?()[]{}|\\".contains(c);
    match pattern.find(is_meta) {
        None => pattern.to_owned(),
        Some(at) => pattern.get(..at).unwrap_or_default().to_owned(),
    }
}

fn told_of(explanation: &Explanation) -> String {
    let rule = explanation.rule.as_ref();
    let rule = rule.map(|rule| format!("{} path {}", rule.ingress, rule.path));
    match (&explanation.outcome, rule) {
        (Outcome::Elsewhere(status, to), _) => format!("{status} to {to}"),
        (Outcome::Refused(_), _) => "400".to_owned(),
        (_, Some(rule)) => rule,
        (Outcome::NoHost | Outcome::NoPath(_), None) => "404".to_owned(),
        (
            Outcome::Redirected | Outcome::Denied(_) | Outcome::Unavailable(_) | Outcome::Forwarded,
            None,
        ) => "503".to_owned(),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, path, compat, strict, .. } = self;
        write!(f, "{host}{path}: {compat}; strict: {strict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_asked_for_by_what_they_begin_with() {
        for (pattern, expected) in
            [("/a", "/a"), ("/api/v[12]/x", "/api/v"), ("/a(/|$)(.*)", "/a"), ("/.*", "/")]
        {
            assert_eq!(sample(pattern), expected);
        }
    }

    #[test]
    fn a_name_is_one_the_pattern_stands_for() {
        for (pattern, name) in
            [("a.example", "a.example"), ("*.a.example", "any.a.example"), ("*", "any.example")]
        {
            assert_eq!(name_under(pattern), name);
        }
    }
}
