//! Whose a host is. An Ingress object's age says nothing of when it came to have rules for a host: were it
//! the oldest one's, whoever has any old Ingress would have all younger hosts for a path he adds to it, and
//! whoever replaces his own Ingress would lose his host to a guest.

use std::collections::{BTreeMap, BTreeSet, btree_set};

use fairlead_state::{Key, Name, model::PathType};

use super::compile::{Age, CheckedPath, Compiled, Derived, HostRules};
use crate::host::HostPattern;

/// Paths that nobody means in particular: an expression that matches them is for any.
const PROBES: [&[u8]; 2] = [b"/", b"/~/~"];
/// Steps in which that is to be seen of both: `/(.*)` takes some ten.
const PROBE_STEPS_MAX: u32 = 200;

/// Who has which host.
#[derive(Debug, Default)]
pub(crate) struct Rulings {
    of: BTreeMap<HostPattern, Ruling>,
    /// Who says which host stands for another, oldest first.
    derived: BTreeMap<HostPattern, BTreeSet<(Age, Derived)>>,
    /// Names of both, by the wildcard above them: what becomes of one is for those below it to follow, at a cost
    /// that does not grow with all others.
    below: BTreeMap<HostPattern, BTreeSet<HostPattern>>,
}

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

impl Rulings {
    /// Takes what an Ingress says of hosts.
    pub(super) fn insert(&mut self, new: &Compiled) {
        for host in new.hosts.keys() {
            self.of.entry(host.clone()).or_default().insert(new, host);
            self.put_below(host);
        }
        for derived in &new.derived {
            let says = self.derived.entry(derived.host.clone()).or_default();
            says.insert((new.age.clone(), derived.clone()));
            self.put_below(&derived.host);
        }
    }

    /// Takes it back. What is empty then stays until it is swept.
    pub(super) fn remove(&mut self, old: &Compiled) {
        for host in old.hosts.keys() {
            if let Some(ruling) = self.of.get_mut(host) {
                ruling.remove(old, host);
            }
        }
        for derived in &old.derived {
            if let Some(says) = self.derived.get_mut(&derived.host) {
                says.remove(&(old.age.clone(), derived.clone()));
            }
        }
    }

    /// Forgets a host of which nobody says anything any more.
    pub(super) fn sweep(&mut self, host: &HostPattern) {
        if self.of.get(host).is_some_and(Ruling::is_empty) {
            self.of.remove(host);
        }
        if self.derived.get(host).is_some_and(BTreeSet::is_empty) {
            self.derived.remove(host);
        }
        if self.of.contains_key(host) || self.derived.contains_key(host) {
            return;
        }
        let Some(wildcard) = host.wildcard() else { return };
        if let Some(below) = self.below.get_mut(&wildcard) {
            below.remove(host);
            if below.is_empty() {
                self.below.remove(&wildcard);
            }
        }
    }

    fn put_below(&mut self, host: &HostPattern) {
        if let Some(wildcard) = host.wildcard() {
            self.below.entry(wildcard).or_default().insert(host.clone());
        }
    }

    pub(crate) fn get(&self, host: &HostPattern) -> Option<&Ruling> {
        self.of.get(host)
    }

    /// See [`Ruling::owner`].
    pub(crate) fn owner(&self, host: &HostPattern) -> Option<&Key> {
        self.of.get(host)?.owner()
    }

    /// Who says of a host that it stands for another, oldest first.
    pub(super) fn derived(&self, host: &HostPattern) -> impl Iterator<Item = &(Age, Derived)> {
        self.derived.get(host).into_iter().flatten()
    }

    /// The namespace that has a host, by rules or by what stands for its rules. `None`: nobody has but by a
    /// wildcard or a rule for all hosts.
    pub(crate) fn namespace(&self, host: &HostPattern) -> Option<&Name> {
        let own = self.owner(host).map(|owner| &owner.namespace);
        own.or_else(|| {
            let mut says = self.derived(host).map(|(age, derived)| (&age.key, &derived.of));
            let may = |(key, of): &(&Key, &HostPattern)| {
                self.owner(of).is_some_and(|owner| owner.namespace == key.namespace)
            };
            says.find(may).map(|(key, _)| &key.namespace)
        })
    }

    /// Names of hosts that somebody has below a wildcard.
    pub(crate) fn below(&self, wildcard: &HostPattern) -> impl Iterator<Item = &HostPattern> {
        self.below.get(wildcard).into_iter().flatten()
    }
}

impl Ruling {
    /// Takes what an Ingress says of a host.
    fn insert(&mut self, of: &Compiled, host: &HostPattern) {
        self.ages.insert(of.age.clone());
        self.claims.extend(claim(of, host));
    }

    /// Takes it back.
    fn remove(&mut self, of: &Compiled, host: &HostPattern) {
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
