//! Whose a host is. An Ingress object's age says nothing of when it came to have rules for a host: were it
//! the oldest one's, whoever has any old Ingress would have all younger hosts for a path he adds to it, and
//! whoever replaces his own Ingress would lose his host to a guest.

use std::collections::{BTreeSet, btree_set};

use fairlead_state::{Key, model::PathType};

use super::compile::{Age, CheckedPath, Compiled, HostRules};
use crate::host::HostPattern;

/// Paths that nobody means in particular: an expression that matches them is for any.
const PROBES: [&[u8]; 2] = [b"/", b"/~/~"];
/// Steps in which that is to be seen of both: `/(.*)` takes some ten.
const PROBE_STEPS_MAX: u32 = 200;

/// Who has rules for one host.
#[derive(Debug, Default)]
pub(crate) struct Ruling {
    /// Oldest first.
    ages: BTreeSet<Age>,
    /// The first one has the host. Canaries are for what others have.
    claims: BTreeSet<(Extent, Age)>,
}

/// How much of a host an Ingress has rules for: the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// Whatever nobody else has, by a path.
    All,
    /// What no path is for.
    Default,
    /// `/`, and nothing below it.
    Root,
    Some,
}

impl Ruling {
    /// Takes what an Ingress says of a host.
    pub(super) fn insert(&mut self, of: &Compiled, host: &HostPattern) {
        self.ages.insert(of.age.clone());
        self.claims.extend(claim(of, host));
    }

    /// Takes it back.
    pub(super) fn remove(&mut self, of: &Compiled, host: &HostPattern) {
        self.ages.remove(&of.age);
        if let Some(claim) = claim(of, host) {
            self.claims.remove(&claim);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ages.is_empty()
    }

    /// Whether somebody has what no other path is for.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.claims.first(), Some((Extent::All | Extent::Default, _)))
    }

    pub(crate) fn contains(&self, age: &Age) -> bool {
        self.ages.contains(age)
    }

    /// Oldest first, canaries among them.
    pub(super) fn iter(&self) -> btree_set::Iter<'_, Age> {
        self.ages.iter()
    }

    /// The Ingress whose namespace has the host: the oldest of those that have `/` of it, or of all where
    /// there are none. `None`: there are canaries alone.
    pub(crate) fn owner(&self) -> Option<&Key> {
        self.claims.first().map(|(_, age)| &age.key)
    }
}

fn claim(of: &Compiled, host: &HostPattern) -> Option<(Extent, Age)> {
    let rules = of.hosts.get(host).filter(|_| !of.annotations.canary.enabled)?;
    Some((Extent::of(rules), of.age.clone()))
}

impl Extent {
    fn of(rules: &HostRules) -> Self {
        let default = rules.default.as_ref().map(|_| Self::Default);
        let paths = rules.paths.iter().map(Self::of_path);
        paths.chain(default).min().unwrap_or(Self::Some)
    }

    fn of_path(path: &CheckedPath) -> Self {
        let is_root = &*path.key == "/";
        let is_all = match &path.pattern {
            None => is_root && path.path_type != PathType::Exact,
            Some(pattern) => {
                let mut steps = PROBE_STEPS_MAX;
                PROBES.iter().all(|probe| pattern.is_match_within(probe, &mut steps) == Ok(true))
            }
        };
        match (is_all, is_root) {
            (true, _) => Self::All,
            (false, true) => Self::Root,
            (false, false) => Self::Some,
        }
    }
}
