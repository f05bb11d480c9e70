//! Names that do not exist: what of them does not, and which Services are spelt alike.

use fairlead_state::{Key, Kind, ObjectRef, Snapshot};

/// Suggestions for a misspelt name.
const SUGGESTIONS_MAX: usize = 3;

/// What does not exist.
pub(super) fn missing(snapshot: &Snapshot, name: &str, namespace: &str, domain: &str) -> String {
    let (service, namespace) = parts(name, namespace, domain);
    let known = snapshot.services().keys().any(|key| *key.namespace == *namespace)
        || snapshot.namespaces().contains_key(&Key::new("", namespace.as_str()));
    let what = format!("Service {namespace}/{service} does not exist");
    if known { what } else { format!("{what}, nor does anything in namespace {namespace}") }
}

/// A Service of that name that is there and not served: what is wrong with it.
pub(super) fn refused(
    snapshot: &Snapshot,
    name: &str,
    namespace: &str,
    domain: &str,
) -> Option<String> {
    let (service, namespace) = parts(name, namespace, domain);
    let key = Key::new(namespace.as_str(), service.as_str());
    let refusal = snapshot.refused().get(&ObjectRef { kind: Kind::Service, key: key.clone() })?;
    Some(format!("Service {key} is there and not served: {}: put it right", refusal.reason))
}

/// Service and namespace as a name means them.
fn parts(name: &str, namespace: &str, domain: &str) -> (String, String) {
    let name = name.trim_end_matches('.');
    let below = name.strip_suffix(domain.trim_end_matches('.')).unwrap_or(name);
    let below = below.trim_end_matches('.');
    let below = below.strip_suffix(".svc").unwrap_or(below);
    let mut labels = below.rsplit('.');
    match (labels.next(), labels.next()) {
        (Some(namespace), Some(service)) => (service.to_owned(), namespace.to_owned()),
        (Some(service), None) => (service.to_owned(), namespace.to_owned()),
        _ => (below.to_owned(), namespace.to_owned()),
    }
}

/// Services whose names are like it: the same name elsewhere, or another spelling.
pub(super) fn near(snapshot: &Snapshot, name: &str, namespace: &str, domain: &str) -> Vec<String> {
    let (service, namespace) = parts(name, namespace, domain);
    let mut found: Vec<(usize, String)> = Vec::new();
    for key in snapshot.services().keys() {
        let (by_name, by_namespace) =
            (distance(&key.name, &service), distance(&key.namespace, &namespace));
        // Of short names everything is near.
        let length = service.chars().count().min(key.name.len());
        let is_alike = by_name <= 2 && by_name < length && by_namespace <= 2;
        if is_alike || by_name == 0 {
            let full =
                format!("{}.{}.svc.{}", key.name, key.namespace, domain.trim_end_matches('.'));
            found.push((by_name + by_namespace, full));
        }
    }
    found.sort();
    found.into_iter().map(|(_, name)| name).take(SUGGESTIONS_MAX).collect()
}

/// How many letters have to be changed, added, removed or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > 2 {
        return usize::MAX / 4;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let at = |row: &Vec<usize>, j: usize| row.get(j).copied().unwrap_or(usize::MAX / 4);
            let above = rows.last().map_or(0, |last| at(last, j + 1));
            let diagonal = rows.last().map_or(0, |last| at(last, j));
            let mut best = (above + 1).min(at(&row, j) + 1).min(diagonal + usize::from(a != b));
            let swapped =
                i > 0 && j > 0 && one.get(i - 1) == Some(b) && other.get(j - 1) == Some(a);
            if swapped && let Some(before) = rows.len().checked_sub(2).and_then(|at| rows.get(at)) {
                best = best.min(at(before, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_near_and_other_names_are_not() {
        for (one, other, expected) in
            [("web", "web", 0), ("web", "wbe", 1), ("hello", "helo", 1), ("web", "db", 2)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
        assert!(distance("web", "payments") > 2);
    }
}
