//! Services of type ExternalName: where their names lead, if those are allowed.
//!
//! Whoever may write a Service could lead requests anywhere this node reaches, and a name's owner may
//! point it somewhere else at any time. So only names that whoever runs the agent allows are looked up,
//! and of what is found nothing counts that is loopback, link-local, multicast or broadcast, an address
//! of the agent's own interfaces, one of its Node's or known for a cloud's metadata. Other nodes, pods and
//! Services are not told from what is outside.

mod interfaces;
mod outside;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_state::{
    Name, Snapshot,
    model::{Service, ServiceType},
};

pub(crate) use self::{
    interfaces::{Interfaces, Own},
    outside::{Inside, kept, outside, reachable},
};
use super::upstream::UpstreamKey;
use crate::host::{HostPattern, wildcard_suffix};

/// What was found last is used as long as this, while nothing better is found. A name server that is
/// away for a moment shall not be felt; one that took the name away shall be.
const KEPT_MAX: Duration = Duration::from_secs(600);

/// Addresses of a name, each once, in the order of their turns; or why there are none.
pub(crate) type Looked = Result<Vec<IpAddr>, Arc<str>>;

/// Names that are allowed, and those that Services lead to now.
#[derive(Debug, Default)]
pub(super) struct ExternalNames {
    allowed: Vec<HostPattern>,
    names: BTreeMap<Name, Followed>,
    /// Which of them an upstream leads to.
    of: BTreeMap<UpstreamKey, Name>,
    /// Of those names, how many were not looked up yet.
    unknown: usize,
    /// Grows whenever a name comes or goes, or a namespace that wants it.
    version: u64,
}

/// Who has a name looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Of the Services that lead to it; at least one.
    pub(crate) namespaces: Arc<[Name]>,
    /// Nothing was found yet, or that is forgotten.
    pub(crate) is_unknown: bool,
}

#[derive(Debug, Default)]
struct Followed {
    users: BTreeSet<UpstreamKey>,
    /// How many of them are of which namespace.
    namespaces: BTreeMap<Name, usize>,
    /// `None` until it was looked up.
    looked: Option<Looked>,
    /// What is looked up since then is worse than that.
    kept_since: Option<Instant>,
}

impl ExternalNames {
    pub(super) fn new(allowed: &[HostPattern]) -> Self {
        Self { allowed: allowed.to_vec(), ..Self::default() }
    }

    pub(super) fn allows(&self, name: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        self.allowed.iter().any(|pattern| match pattern {
            HostPattern::Any => true,
            HostPattern::Exact(allowed) => **allowed == *lower,
            HostPattern::Wildcard(suffix) => wildcard_suffix(&lower) == Some(&**suffix),
        })
    }

    /// What an upstream leads to from now on; a name nobody leads to is forgotten.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, key: &UpstreamKey) {
        if self.allowed.is_empty() {
            return;
        }
        let service = snapshot.services().get(&key.service);
        let name = service.and_then(|service| external_name(service));
        let name = name.filter(|name| self.allows(name)).cloned();
        if self.of.get(key) == name.as_ref() {
            return;
        }
        self.leave(key);
        if let Some(name) = name {
            self.enter(name, key.clone());
        }
    }

    /// An upstream leads to a name.
    fn enter(&mut self, name: Name, key: UpstreamKey) {
        let followed = self.names.entry(name.clone()).or_default();
        self.unknown += usize::from(followed.users.is_empty());
        let of_namespace = followed.namespaces.entry(key.service.namespace.clone()).or_default();
        self.version += u64::from(*of_namespace == 0);
        *of_namespace += 1;
        followed.users.insert(key.clone());
        self.of.insert(key, name);
    }

    /// An upstream is gone.
    pub(super) fn leave(&mut self, key: &UpstreamKey) {
        let Some(name) = self.of.remove(key) else { return };
        if let Some(followed) = self.names.get_mut(&name) {
            followed.users.remove(key);
            if let Some(of_namespace) = followed.namespaces.get_mut(&key.service.namespace) {
                *of_namespace -= 1;
                if *of_namespace == 0 {
                    followed.namespaces.remove(&key.service.namespace);
                    self.version += 1;
                }
            }
            if followed.users.is_empty() {
                self.unknown -= usize::from(followed.looked.is_none());
                self.names.remove(&name);
            }
        }
    }

    /// Those to look up.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&Name, Wanted)> {
        self.names.iter().map(|(name, followed)| {
            let namespaces = followed.namespaces.keys().cloned().collect();
            (name, Wanted { namespaces, is_unknown: followed.looked.is_none() })
        })
    }

    /// Another one whenever others are to be looked up; 0 while there never were any.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// All were looked up once.
    pub(super) fn are_known(&self) -> bool {
        self.unknown == 0
    }

    /// Those of which nothing was found yet, not even that they lead nowhere.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &Name> {
        let unknown = self.names.iter().filter(|(_, followed)| followed.looked.is_none());
        unknown.map(|(name, _)| name)
    }

    /// Takes what was found; returns the upstreams it changes. What was found before is better than an
    /// error, for a time.
    pub(super) fn learn(&mut self, name: &Name, looked: Looked, now: Instant) -> Vec<UpstreamKey> {
        let Some(followed) = self.names.get_mut(name) else { return Vec::new() };
        if let (Err(reason), Some(Ok(_))) = (&looked, &followed.looked) {
            if followed.kept_since.is_none() {
                let minutes = KEPT_MAX.as_secs() / 60;
                tracing::warn!(%name, "{reason}; where it led is used for {minutes} minutes more");
            }
            let since = *followed.kept_since.get_or_insert(now);
            if now.saturating_duration_since(since) < KEPT_MAX {
                return Vec::new();
            }
        }
        followed.kept_since = None;
        if followed.looked.as_ref() == Some(&looked) {
            return Vec::new();
        }
        self.unknown -= usize::from(followed.looked.is_none());
        followed.looked = Some(looked);
        followed.users.iter().cloned().collect()
    }

    /// Whether it was found to lead somewhere.
    pub(super) fn leads_somewhere(&self, name: &Name) -> bool {
        self.names.get(name).is_some_and(|followed| matches!(followed.looked, Some(Ok(_))))
    }

    /// Where an allowed name leads, or why nowhere; `None`: it was not looked up.
    pub(super) fn addresses(
        &self,
        name: &Name,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Option<Arc<str>>> {
        match self.names.get(name).and_then(|followed| followed.looked.as_ref()) {
            None => Err(None),
            Some(Err(reason)) => Err(Some(reason.clone())),
            Some(Ok(ips)) => Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
        }
    }
}

/// Where a Service leads, if it is of that type.
pub(super) fn external_name(service: &Service) -> Option<&Name> {
    let is_external = service.service_type == ServiceType::ExternalName;
    service.extras.external_name.as_ref().filter(|_| is_external)
}

#[cfg(test)]
mod tests {
    use fairlead_state::Key;

    use super::*;

    #[test]
    fn names_are_allowed_one_by_one_or_by_their_last_labels() {
        let patterns =
            ["api.example", "*.shop.example"].map(|text| HostPattern::parse(text).unwrap());
        let names = ExternalNames::new(&patterns);
        for (name, allowed) in [
            ("api.example", true),
            ("API.example", true),
            ("x.api.example", false),
            ("a.shop.example", true),
            ("a.b.shop.example", false),
            ("shop.example", false),
            ("api.example.evil", false),
            ("localhost", false),
            ("", false),
        ] {
            assert_eq!(names.allows(name), allowed, "{name}");
        }
        assert!(!ExternalNames::default().allows("api.example"), "none is allowed by default");
    }

    fn followed(name: &Name) -> (ExternalNames, UpstreamKey) {
        let key = UpstreamKey::of(Key::new("shop", "web"));
        let mut names = ExternalNames::default();
        names.enter(name.clone(), key.clone());
        (names, key)
    }

    #[test]
    fn what_was_found_outlives_errors_for_ten_minutes_and_no_longer() {
        let name: Name = "api.example".into();
        let found = |last| Looked::Ok(vec![IpAddr::from([192, 0, 2, last])]);
        let failed = |reason: &str| Looked::Err(reason.into());
        let (mut names, key) = followed(&name);
        assert_eq!(names.unknown().collect::<Vec<_>>(), [&name]);
        let start = Instant::now();
        for (at, looked, changes, leads) in [
            (0, failed("no answer"), true, failed("no answer")),
            (1, failed("no answer"), false, failed("no answer")),
            (2, failed("no such name"), true, failed("no such name")),
            (3, found(1), true, found(1)),
            (13, found(1), false, found(1)),
            (23, failed("no answer"), false, found(1)),
            (622, failed("no answer"), false, found(1)),
            // An answer in between: time begins anew.
            (623, found(1), false, found(1)),
            (633, failed("no answer"), false, found(1)),
            (1232, failed("no such name"), false, found(1)),
            (1233, failed("no such name"), true, failed("no such name")),
            (1234, failed("no such name"), false, failed("no such name")),
            (1235, found(2), true, found(2)),
            (1245, failed("no answer"), false, found(2)),
            (1255, found(3), true, found(3)),
        ] {
            let changed = names.learn(&name, looked, start + Duration::from_secs(at));
            assert_eq!(changed, if changes { vec![key.clone()] } else { vec![] }, "at {at} s");
            let ips = names.addresses(&name, 80).map_err(|problem| problem.unwrap());
            let ips: Looked = ips.map(|all| all.iter().map(SocketAddr::ip).collect());
            assert_eq!(ips, leads, "at {at} s");
            assert_eq!(names.leads_somewhere(&name), leads.is_ok(), "at {at} s");
            assert_eq!(names.unknown().next(), None, "at {at} s");
            assert!(names.are_known(), "at {at} s");
        }
    }

    /// Who looks names up asks for them only when they are others.
    #[test]
    fn names_that_come_and_go_are_told_and_counted() {
        let [first, second]: [Name; 2] = ["a.example".into(), "b.example".into()];
        let keys = ["one", "two", "three"].map(|name| UpstreamKey::of(Key::new("shop", name)));
        let [one, two, three] = &keys;
        let mut names = ExternalNames::default();
        assert!(names.version() == 0 && names.are_known());
        names.enter(first.clone(), one.clone());
        let version = names.version();
        assert!(version > 0 && !names.are_known());
        // Another who leads there changes nothing.
        names.enter(first.clone(), two.clone());
        names.leave(one);
        assert!(names.version() == version && !names.are_known());
        names.learn(&first, Err("no such name".into()), Instant::now());
        assert!(names.version() == version && names.are_known());
        // Of another namespace: it has turns of its own.
        let elsewhere = UpstreamKey::of(Key::new("other", "two"));
        names.enter(first.clone(), elsewhere.clone());
        let namespaces = || -> Vec<_> {
            names.wanted().flat_map(|(_, wanted)| wanted.namespaces.to_vec()).collect()
        };
        assert!(names.version() > version && namespaces() == ["other", "shop"]);
        let version = names.version();
        names.leave(&elsewhere);
        assert!(names.version() > version && names.are_known());
        let version = names.version();
        names.enter(second.clone(), three.clone());
        assert!(names.version() > version && !names.are_known());
        assert_eq!(names.unknown().collect::<Vec<_>>(), [&second]);
        let version = names.version();
        names.leave(three);
        assert!(names.version() > version && names.are_known());
        names.leave(two);
        assert!(names.wanted().next().is_none() && names.are_known());
    }

    #[test]
    fn a_name_nobody_follows_is_not_learnt() {
        let mut names = ExternalNames::default();
        let found = Ok(vec![IpAddr::from([192, 0, 2, 1])]);
        assert!(names.learn(&"api.example".into(), found, Instant::now()).is_empty());
        assert!(!names.leads_somewhere(&"api.example".into()));
    }
}
