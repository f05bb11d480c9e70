//! Names whose certificate an Ingress brings, by its TLS sections. It has a say about the hosts of its own
//! rules, as with ingress-nginx, which goes through those alone: whoever merely names another's host would
//! otherwise have it redirected to HTTPS, with a certificate of its own.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_state::{Key, model::Ingress};

use super::{Derived, HostRules, Standing, TlsClaim};
use crate::host::{HostPattern, wildcard_suffix};

/// What comes of the sections.
pub(super) struct Sections {
    /// One a host: of the first section that is for it, and of those that name it before wildcards.
    pub(super) claims: Vec<TlsClaim>,
    /// Hosts that cannot be read, and why.
    pub(super) refused: Vec<String>,
    /// Hosts that no rule is for.
    pub(super) idle: Option<String>,
}

/// The claims, and what is to be told of the sections.
pub(super) fn of(
    ingress: &Ingress,
    rules: &BTreeMap<HostPattern, HostRules>,
    derived: &[Derived],
) -> Sections {
    let mut claims = Claims::new(rules.keys(), derived.iter().map(|derived| &derived.host));
    let (mut refused, mut idle) = (Vec::new(), BTreeSet::new());
    for section in &*ingress.tls {
        let secret = section.secret_name.clone();
        let secret = secret.map(|name| Key::new(ingress.key.namespace.clone(), name));
        if section.hosts.is_empty() {
            claims.take_all(secret.as_ref());
        }
        for host in &*section.hosts {
            match HostPattern::parse(host) {
                Ok(host) if claims.take(&host, secret.as_ref()) => {}
                Ok(host) => drop(idle.insert(host)),
                Err(reason) => refused.push(format!("tls {reason}")),
            }
        }
    }
    Sections { claims: claims.all(), refused, idle: told(&idle) }
}

fn told(idle: &BTreeSet<HostPattern>) -> Option<String> {
    let first = idle.first()?;
    Some(match idle.len() - 1 {
        0 => format!("tls host {first}: no rule of this Ingress is for it, so it has no effect"),
        more => format!(
            "tls hosts {first} and {more} more: no rule of this Ingress is for them, so they have no effect"
        ),
    })
}

struct Claims<'a> {
    /// Of rules, and what an alias or a redirect of theirs stands for.
    hosts: BTreeMap<&'a HostPattern, Standing>,
    /// The names of these that a wildcard covers, by its suffix.
    by_suffix: BTreeMap<&'a str, Vec<&'a HostPattern>>,
    /// Of hosts that a section names.
    exact: BTreeMap<HostPattern, TlsClaim>,
    /// Of hosts that a section's wildcard covers.
    covered: BTreeMap<HostPattern, TlsClaim>,
    wildcards: BTreeSet<HostPattern>,
}

impl<'a> Claims<'a> {
    fn new(
        rules: impl Iterator<Item = &'a HostPattern>,
        derived: impl Iterator<Item = &'a HostPattern>,
    ) -> Self {
        let mut hosts: BTreeMap<_, _> = derived.map(|host| (host, Standing::Derived)).collect();
        hosts.extend(rules.map(|host| (host, Standing::Own)));
        let mut by_suffix: BTreeMap<&str, Vec<&HostPattern>> = BTreeMap::new();
        for host in hosts.keys() {
            if let HostPattern::Exact(name) = host
                && let Some(suffix) = wildcard_suffix(name)
            {
                by_suffix.entry(suffix).or_default().push(host);
            }
        }
        let (exact, covered) = (BTreeMap::new(), BTreeMap::new());
        Self { hosts, by_suffix, exact, covered, wildcards: BTreeSet::new() }
    }

    /// A section without hosts is for those of all rules.
    fn take_all(&mut self, secret: Option<&Key>) {
        for (host, _) in self.hosts.iter().filter(|(_, standing)| **standing == Standing::Own) {
            let entry = self.exact.entry((*host).clone());
            entry.or_insert_with(|| claim(host, secret, Standing::Own));
        }
    }

    /// Whether the Ingress has anything to do with the host.
    fn take(&mut self, named: &HostPattern, secret: Option<&Key>) -> bool {
        let itself = self.hosts.get(named).copied();
        if let Some(standing) = itself {
            self.exact.entry(named.clone()).or_insert_with(|| claim(named, secret, standing));
        }
        let covered = match named {
            HostPattern::Wildcard(suffix) => self.by_suffix.get(&**suffix),
            HostPattern::Any | HostPattern::Exact(_) => None,
        };
        if let Some(covered) = covered {
            // Named once more it would claim nothing new.
            if self.wildcards.insert(named.clone()) {
                for host in covered {
                    let Some(standing) = self.hosts.get(host).copied() else { continue };
                    let entry = self.covered.entry((*host).clone());
                    entry.or_insert_with(|| claim(host, secret, standing));
                }
            }
            return true;
        }
        if itself.is_some() {
            return true;
        }
        let is_served = self.hosts.get(&HostPattern::Any) == Some(&Standing::Own)
            || named.wildcard().is_some_and(|host| self.hosts.get(&host) == Some(&Standing::Own));
        if is_served {
            self.exact
                .entry(named.clone())
                .or_insert_with(|| claim(named, secret, Standing::General));
        }
        is_served
    }

    fn all(self) -> Vec<TlsClaim> {
        let mut all = self.covered;
        all.extend(self.exact);
        all.into_values().collect()
    }
}

fn claim(host: &HostPattern, secret: Option<&Key>, standing: Standing) -> TlsClaim {
    TlsClaim { host: host.clone(), secret: secret.cloned(), standing }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of 10,000 sections claimed each of 10,000 hosts: an object of 400 KB took gigabytes.
    #[test]
    fn attack_a_host_is_claimed_once_however_often_it_is_named() {
        let hosts: Vec<HostPattern> =
            (0..10_000).map(|n| HostPattern::Exact(format!("a{n}.b").into())).collect();
        let wildcard = HostPattern::Wildcard("b".into());
        let mut claims = Claims::new(hosts.iter(), [].iter());
        let (first, second) = (Key::new("default", "first"), Key::new("default", "second"));
        for _ in 0..10_000 {
            assert!(claims.take(&wildcard, Some(&first)));
        }
        claims.take_all(Some(&second));
        claims.take_all(Some(&first));
        assert!(!claims.take(&HostPattern::Exact("a.c".into()), Some(&first)));
        let all = claims.all();
        assert_eq!(all.len(), hosts.len());
        assert!(
            all.iter()
                .all(|claim| claim.standing == Standing::Own
                    && claim.secret.as_ref() == Some(&second))
        );
    }
}
