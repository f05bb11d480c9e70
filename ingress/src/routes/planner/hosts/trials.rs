//! Which canary is tried at which path of a host: one, of the Ingress's own namespace. ingress-nginx
//! takes a canary of any namespace, and with it the requests of another tenant's path.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use fairlead_state::{Key, Name, model::PathType};

use super::super::{
    super::{
        Route,
        compile::{Backend, Compiled, HostRules},
        finding::{Finding, Severity},
        paths,
        ruling::Ruling,
        upstream::UpstreamKey,
    },
    Planner, Touched, user,
};
use crate::host::HostPattern;

/// A Service under trial as the Ingress that has the path speaks to its own, and the canary. A canary's own
/// backends are of no protocol ([`UpstreamKey::tried_at`]), and so none of these is one.
pub(in super::super) type Tried = (UpstreamKey, Key);

impl Planner {
    /// Follows the Services under trial at the hosts that were touched.
    pub(in super::super) fn follow_trials(&mut self, touched: &mut Touched) {
        let hosts = std::mem::take(&mut touched.hosts);
        for host in &hosts {
            let new = self.tried_at(host);
            let old = self.tried.remove(host).unwrap_or_default();
            for (key, canary) in new.difference(&old) {
                self.use_upstream(key, &user(canary), touched);
            }
            let left: Vec<&Tried> = old.difference(&new).collect();
            if !new.is_empty() {
                self.tried.insert(host.clone(), new.clone());
            }
            for (key, canary) in left {
                if !self.is_tried(key, canary) {
                    self.leave_upstream(key, &user(canary), touched);
                }
            }
        }
        touched.hosts = hosts;
    }

    /// At any host; or the Ingress is no canary any more and has it as its own.
    fn is_tried(&self, key: &UpstreamKey, canary: &Key) -> bool {
        let is_own = |compiled: &Compiled| compiled.upstreams().any(|own| own == key);
        self.ingresses.get(canary).is_some_and(is_own)
            || self.tried.values().flatten().any(|(other, by)| other == key && by == canary)
    }

    fn tried_at(&self, host: &HostPattern) -> BTreeSet<Tried> {
        let ages = self.hosts.get(host).into_iter().flat_map(Ruling::iter);
        let all = ages.filter_map(|age| self.ingresses.get(&age.key));
        let (canaries, others): (Vec<&Compiled>, Vec<&Compiled>) =
            all.partition(|compiled| compiled.annotations.canary.enabled);
        let mut trials = Trials::of(&canaries, host);
        let mut tried = BTreeSet::new();
        // The oldest one of its namespace has a path.
        for main in others {
            for (path, path_type, backend) in main.hosts.get(host).into_iter().flat_map(backends) {
                let trial = trials.take(main, path, path_type);
                if let (Some((canary, Some(key))), Some(main)) = (trial, backend)
                    && main.protocol.is_some()
                {
                    tried.insert((key.tried_at(main), canary.age.key.clone()));
                }
            }
        }
        tried
    }
}

/// A host's backends by their paths; by none the default one.
fn backends(rules: &HostRules) -> impl Iterator<Item = (&str, PathType, &Backend)> {
    let paths = rules.paths.iter().map(|p| (&*p.key, p.path_type, &p.backend));
    let any = PathType::ImplementationSpecific;
    paths.chain(rules.default.iter().map(move |backend| ("", any, backend)))
}

/// Whose path, the path, and whether it is of type Exact: what only one Ingress has.
type Place = (Name, Name, bool);

/// What canaries of one host serve, until somebody has it otherwise.
pub(super) struct Trials<'a> {
    first: BTreeMap<Place, (&'a Compiled, &'a Backend)>,
    second: Vec<Second<'a>>,
}

/// A canary whose path has one already.
struct Second<'a> {
    canary: &'a Compiled,
    first: &'a Compiled,
    path: Name,
}

impl<'a> Trials<'a> {
    /// `canaries`: oldest first.
    pub(super) fn of(canaries: &[&'a Compiled], host: &HostPattern) -> Self {
        let mut first = BTreeMap::new();
        let mut second = Vec::new();
        for canary in canaries {
            let Some(rules) = canary.hosts.get(host) else { continue };
            for (path, path_type, backend) in backends(rules) {
                match first.entry(place(canary, path, path_type)) {
                    Entry::Vacant(free) => _ = free.insert((*canary, backend)),
                    Entry::Occupied(taken) => {
                        let (first, path) = (taken.get().0, taken.key().1.clone());
                        second.push(Second { canary, first, path });
                    }
                }
            }
        }
        Self { first, second }
    }

    /// The canary of an Ingress's path.
    pub(super) fn take(
        &mut self,
        of: &Compiled,
        path: &str,
        path_type: PathType,
    ) -> Option<(&'a Compiled, &'a Backend)> {
        if self.first.is_empty() {
            return None;
        }
        self.first.remove(&place(of, path, path_type))
    }

    /// Tells those whose path has a canary already.
    pub(super) fn tell_second(&mut self, host: &HostPattern, findings: &mut Vec<Finding>) {
        findings.extend(self.second.drain(..).map(|second| second.finding(host)));
    }

    /// Tells those whose paths nobody of their namespace has.
    pub(super) fn tell_left(
        self,
        host: &HostPattern,
        paths: &paths::Builder,
        default: Option<&Arc<Route>>,
        findings: &mut Vec<Finding>,
    ) {
        for ((_, path, is_exact), (canary, _)) in self.first {
            let path_type = if is_exact { PathType::Exact } else { PathType::Prefix };
            let holder = if path.is_empty() { default } else { paths.holder(&path, path_type) };
            findings.push(match holder {
                None => waits(canary, host),
                Some(route) => Finding::beside(&canary.age.key, &route.ingress, |who| {
                    format!(
                        "canary: {} of host {host} belongs to {who}: a canary gets requests of \
                         Ingresses of its own namespace alone",
                        named(&path)
                    )
                }),
            });
        }
    }
}

/// Prefix and ImplementationSpecific share theirs, as where paths are compared.
fn place(of: &Compiled, path: &str, path_type: PathType) -> Place {
    (of.age.key.namespace.clone(), path.into(), path_type == PathType::Exact)
}

fn named(path: &str) -> String {
    if path.is_empty() { "default backend".to_owned() } else { format!("path {path}") }
}

pub(super) fn waits(canary: &Compiled, host: &HostPattern) -> Finding {
    let reason = format!(
        "canary: no other Ingress serves the same path of host {host} (Exact is met by Exact, Prefix \
         and ImplementationSpecific by either)"
    );
    Finding::ingress(&canary.age.key, Severity::Waiting, reason)
}

impl Second<'_> {
    fn finding(&self, host: &HostPattern) -> Finding {
        let (own, first) = (&self.canary.age.key, &self.first.age.key);
        let what = named(&self.path);
        if own != first {
            return Finding::beside(own, first, |first| {
                format!("canary: {what} of host {host} belongs to the older {first}")
            });
        }
        let reason = format!(
            "canary: {what} of host {host} is there twice, Prefix and ImplementationSpecific are one: \
             the first is served"
        );
        Finding::ingress(own, Severity::Refused, reason)
    }
}
