//! Which canary is tried at which path of a host: one, of the Ingress's own namespace. ingress-nginx
//! takes a canary of any namespace, and with it the requests of another tenant's path.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use fairlead_state::{Name, model::PathType};

use super::super::super::{
    Route,
    compile::{Backend, Compiled},
    finding::{Finding, Severity},
    paths,
};
use crate::host::HostPattern;

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
            let place = |path: &Name, path_type| place(canary, path, path_type);
            let paths = rules.paths.iter().map(|p| (place(&p.key, p.path_type), &p.backend));
            let any = PathType::ImplementationSpecific;
            let default = rules.default.iter().map(|backend| (place(&"".into(), any), backend));
            for (place, backend) in paths.chain(default) {
                match first.entry(place) {
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
        path: &Name,
        path_type: PathType,
    ) -> Option<(&'a Compiled, &'a Backend)> {
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
fn place(of: &Compiled, path: &Name, path_type: PathType) -> Place {
    (of.age.key.namespace.clone(), path.clone(), path_type == PathType::Exact)
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
