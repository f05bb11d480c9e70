//! Names whose certificate an Ingress brings, by its TLS sections: what they say, and for hosts of which they
//! say nothing the names in their certificates (ingress-nginx: extractTLSSecretName), else the default one
//! (createServers). It has a say about the hosts of its own rules, as with ingress-nginx, which goes through
//! those alone: whoever merely names another's host would otherwise have it redirected to HTTPS, with a
//! certificate of its own.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_state::{Key, model::Ingress};

use super::{Derived, HostRules, Standing, TlsClaim};
use crate::host::{HostPattern, wildcard_suffix};

/// What comes of the sections.
#[derive(Default)]
pub(super) struct Sections {
    /// One a host, sorted: of the first section that names it, else of the first whose certificate does, else of
    /// the first whose wildcard is for it, or that is for all.
    pub(super) claims: Vec<TlsClaim>,
    /// Secrets whose certificate was asked for its names, and these.
    pub(super) asked: BTreeMap<Key, Vec<HostPattern>>,
    /// Hosts that cannot be read, and why.
    pub(super) refused: Vec<String>,
    /// Hosts that no rule is for.
    pub(super) idle: Option<String>,
}

/// Whose the hosts are that no section names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unnamed {
    /// They are the Ingress's as well.
    Own,
    /// It is a canary, and they are others' (createServers passes it over).
    Others,
}

/// The claims, and what is to be told of the sections; `names`: those in the certificate of a Secret.
pub(super) fn of(
    ingress: &Ingress,
    rules: &BTreeMap<HostPattern, HostRules>,
    derived: &[Derived],
    unnamed: Unnamed,
    names: impl Fn(&Key) -> Vec<HostPattern>,
) -> Sections {
    if ingress.tls.is_empty() {
        return Sections::default();
    }
    let mut claims = Claims::new(rules.keys(), derived.iter().map(|derived| &derived.host));
    let (mut refused, mut idle, mut secrets) = (Vec::new(), Vec::new(), Vec::new());
    let mut general = None;
    for section in &*ingress.tls {
        let secret = section.secret_name.clone();
        let secret = secret.map(|name| Key::new(ingress.key.namespace.clone(), name));
        if section.hosts.is_empty() {
            general.get_or_insert_with(|| secret.clone());
        }
        for host in &*section.hosts {
            match HostPattern::parse(host) {
                Ok(host) if claims.take(&host, secret.as_ref()) => {}
                Ok(host) => idle.push((secret.clone(), host)),
                Err(reason) => refused.push(format!("tls {reason}")),
            }
        }
        secrets.extend(secret);
    }
    let mut asked = BTreeMap::new();
    let mut used = BTreeSet::new();
    let mut left = claims.left();
    for secret in secrets {
        if left.is_empty() {
            break;
        }
        if asked.contains_key(&secret) {
            continue;
        }
        let names = names(&secret);
        if claims.take_certified(&names, &secret, &mut left) {
            used.insert(secret.clone());
        }
        asked.insert(secret, names);
    }
    match general {
        Some(secret) => claims.take_rest(secret.as_ref(), Standing::Own),
        None if unnamed == Unnamed::Own => claims.take_rest(None, Standing::Unnamed),
        None => {}
    }
    let is_used =
        |secret: &Option<Key>| secret.as_ref().is_some_and(|secret| used.contains(secret));
    let idle = idle.into_iter().filter(|(secret, _)| !is_used(secret)).map(|(_, host)| host);
    Sections { claims: claims.all(), asked, refused, idle: told(&idle.collect()) }
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
    /// Of hosts that a section's certificate names.
    certified: BTreeMap<HostPattern, TlsClaim>,
    certified_wildcards: BTreeSet<HostPattern>,
    /// Of hosts that a section's wildcard covers.
    covered: BTreeMap<HostPattern, TlsClaim>,
    wildcards: BTreeSet<HostPattern>,
    /// Of the others.
    rest: BTreeMap<HostPattern, TlsClaim>,
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
        let (exact, certified, covered, rest) = Default::default();
        let (certified_wildcards, wildcards) = Default::default();
        Self { hosts, by_suffix, exact, certified, certified_wildcards, covered, wildcards, rest }
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

    /// Hosts that no section names.
    fn left(&self) -> BTreeSet<&'a HostPattern> {
        let hosts = self.hosts.keys().copied();
        hosts.filter(|host| **host != HostPattern::Any && !self.exact.contains_key(*host)).collect()
    }

    /// Takes those of them that a certificate names. Returns whether there was one.
    fn take_certified(
        &mut self,
        names: &[HostPattern],
        secret: &Key,
        left: &mut BTreeSet<&'a HostPattern>,
    ) -> bool {
        let before = left.len();
        for name in names {
            let covered = match name {
                // Named once more it would claim nothing new.
                HostPattern::Wildcard(suffix) if self.certified_wildcards.insert(name.clone()) => {
                    self.by_suffix.get(&**suffix)
                }
                _ => None,
            };
            for host in covered.into_iter().flatten().copied().chain([name]) {
                let Some(host) = left.take(host) else { continue };
                let Some(standing) = self.hosts.get(host).copied() else { continue };
                self.certified.insert(host.clone(), claim(host, Some(secret), standing));
            }
        }
        left.len() < before
    }

    /// Takes what is left of the hosts of all rules. One for all hosts is asked for by HTTPS only if a section is
    /// for all.
    fn take_rest(&mut self, secret: Option<&Key>, standing: Standing) {
        let is_meant = |host: &HostPattern| *host != HostPattern::Any || standing == Standing::Own;
        let own = self.hosts.iter().filter(|(_, standing)| **standing == Standing::Own);
        let meant = own.map(|(host, _)| *host).filter(|host| is_meant(host));
        self.rest.extend(meant.map(|host| (host.clone(), claim(host, secret, standing))));
    }

    fn all(self) -> Vec<TlsClaim> {
        let mut all = self.rest;
        all.extend(self.covered);
        all.extend(self.certified);
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
        claims.take_rest(Some(&second), Standing::Own);
        assert!(!claims.take(&HostPattern::Exact("a.c".into()), Some(&first)));
        let all = claims.all();
        assert_eq!(all.len(), hosts.len());
        assert!(
            all.iter()
                .all(|claim| claim.standing == Standing::Own
                    && claim.secret.as_ref() == Some(&first))
        );
    }

    /// Nor each of 10,000 certificates.
    #[test]
    fn attack_a_host_is_claimed_once_however_many_certificates_name_it() {
        let hosts: Vec<HostPattern> =
            (0..10_000).map(|n| HostPattern::Exact(format!("a{n}.b").into())).collect();
        let other = HostPattern::Exact("a.c".into());
        let mut claims = Claims::new(hosts.iter().chain([&other]), [].iter());
        let mut left = claims.left();
        let (first, second) = (Key::new("default", "first"), Key::new("default", "second"));
        let names = [HostPattern::Wildcard("b".into()), HostPattern::Exact("a.d".into())];
        assert!(claims.take_certified(&names, &first, &mut left));
        for _ in 0..10_000 {
            assert!(!claims.take_certified(&names, &second, &mut left));
        }
        assert_eq!(left.into_iter().collect::<Vec<_>>(), [&other]);
        let all = claims.all();
        assert_eq!(all.len(), hosts.len());
        assert!(all.iter().all(|claim| claim.secret.as_ref() == Some(&first)));
    }
}
