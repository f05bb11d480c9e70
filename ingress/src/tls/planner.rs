//! Who claims which name with which Secret; a Secret is parsed when it changes, and only then.

mod tracked;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fairlead_state::{Key, Kind, Name, ObjectRef, Snapshot};

use self::tracked::{Shown, Tracked};
use super::certificates::{Certificates, Fallback};
use crate::{
    explain::CertificateChoice,
    host::{HostPattern, wildcard_suffix},
    routes::{Age, Finding, Rulings, Severity, Standing, TlsClaim},
};

/// Keeps the certificates in step with claims and Secrets.
#[derive(Debug)]
pub(crate) struct CertificatePlanner {
    /// The first one decides.
    claims: BTreeMap<HostPattern, BTreeSet<Claimed>>,
    secrets: BTreeMap<Key, Tracked>,
    default_secret: Option<Key>,
    fallback: Fallback,
    /// Hosts that are, or were, claimed by somebody who has no rules for them.
    weak: BTreeSet<HostPattern>,
    /// The namespaces whose claims on wildcards count.
    wildcards: BTreeMap<HostPattern, Name>,
    /// Hosts whose claims changed since the last [`CertificatePlanner::settle`].
    touched: BTreeSet<HostPattern>,
    /// Secrets to look at at the next [`CertificatePlanner::settle`]: claimed or unclaimed since.
    open: BTreeSet<Key>,
    /// Hosts whose certificate is for others: they show the default one.
    misfits: BTreeMap<HostPattern, Misfit>,
    certificates: Certificates,
}

/// Who brings a certificate that is not for the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Misfit {
    ingress: Key,
    secret: Key,
}

/// What [`CertificatePlanner::settle`] changed.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Any certificate.
    pub(crate) is_changed: bool,
    /// Hosts that a wildcard's section is for now, or not any more.
    pub(crate) secured: Vec<HostPattern>,
}

/// Who claims a name. Whoever has rules for it comes first, and of those the oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claimed {
    standing: Standing,
    age: Age,
    secret: Option<Key>,
}

impl Claimed {
    fn of(age: &Age, claim: &TlsClaim) -> Self {
        Self { standing: claim.standing, age: age.clone(), secret: claim.secret.clone() }
    }
}

impl CertificatePlanner {
    /// Nothing claimed; `default_secret` is served to names without a certificate once it is there.
    pub(crate) fn new(default_secret: Option<Key>, fallback: Fallback) -> Self {
        let mut secrets = BTreeMap::new();
        if let Some(key) = &default_secret {
            secrets.insert(key.clone(), Tracked::default());
        }
        Self {
            claims: BTreeMap::new(),
            open: secrets.keys().cloned().collect(),
            secrets,
            default_secret,
            weak: BTreeSet::new(),
            wildcards: BTreeMap::new(),
            touched: BTreeSet::new(),
            misfits: BTreeMap::new(),
            certificates: Certificates::new(fallback.0.clone()),
            fallback,
        }
    }

    /// The certificates as of the last [`CertificatePlanner::settle`].
    pub(crate) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Key> {
        self.secrets.keys()
    }

    pub(crate) fn claim(&mut self, age: &Age, claim: &TlsClaim) {
        let claims = self.claims.entry(claim.host.clone()).or_default();
        claims.insert(Claimed::of(age, claim));
        if !claim.standing.is_own() {
            self.weak.insert(claim.host.clone());
        }
        self.touched.insert(claim.host.clone());
        if let Some(secret) = &claim.secret {
            let tracked = self.secrets.entry(secret.clone()).or_default();
            tracked.users.insert((age.key.clone(), claim.host.clone()));
            self.open.insert(secret.clone());
        }
    }

    pub(crate) fn unclaim(&mut self, age: &Age, claim: &TlsClaim) {
        if let Some(claims) = self.claims.get_mut(&claim.host) {
            claims.remove(&Claimed::of(age, claim));
        }
        self.touched.insert(claim.host.clone());
        let Some(secret) = &claim.secret else { return };
        if let Some(tracked) = self.secrets.get_mut(secret) {
            tracked.users.remove(&(age.key.clone(), claim.host.clone()));
            self.open.insert(secret.clone());
        }
    }

    /// Rules for a host came or went, or whose it is is another's.
    pub(crate) fn touch(&mut self, host: &HostPattern) {
        if self.claims.contains_key(host) || self.above(host).is_some() {
            self.touched.insert(host.clone());
        }
        if let HostPattern::Wildcard(_) = host {
            self.touched.extend(self.weak.iter().filter(|weak| host.covers(weak)).cloned());
        }
    }

    /// Whether a claim of a namespace that has the host counts for the wildcard above it.
    pub(crate) fn is_secured_from_above(&self, host: &HostPattern, namespace: &Name) -> bool {
        self.above(host) == Some(namespace)
    }

    /// The namespace whose claim counts for the wildcard above a host.
    fn above(&self, host: &HostPattern) -> Option<&Name> {
        self.wildcards.get(&host.wildcard()?)
    }

    /// Whether the certificate of the wildcard above a host is not shown for it: its key is of a Secret of another
    /// namespace than that whose the host is.
    fn is_kept_from_above(&self, host: &HostPattern, ruled: &Rulings) -> bool {
        let both = self.above(host).zip(ruled.namespace(host));
        both.is_some_and(|(above, namespace)| above != namespace)
    }

    /// Puts changed claims and Secrets in force. Returns whether any certificate changed.
    pub(crate) fn settle(
        &mut self,
        snapshot: &Snapshot,
        dirty: &BTreeSet<Key>,
        ruled: &Rulings,
    ) -> Settled {
        let open = std::mem::take(&mut self.open);
        let mut touched = std::mem::take(&mut self.touched);
        let mut default_changed = false;
        for key in open.iter().chain(dirty) {
            let is_default = self.default_secret.as_ref() == Some(key);
            let Some(tracked) = self.secrets.get_mut(key) else { continue };
            if tracked.users.is_empty() && !is_default {
                // Keys nobody refers to any more are not kept in memory.
                self.secrets.remove(key);
                continue;
            }
            if tracked.is_parsed() && !dirty.contains(key) {
                continue;
            }
            tracked.parse(snapshot, key);
            touched.extend(tracked.users.iter().map(|(_, host)| host.clone()));
            default_changed |= is_default;
        }
        let secured = self.follow_wildcards(&mut touched, ruled);
        let mut misfits = BTreeMap::new();
        for host in &touched {
            let before = self.misfits.remove(host);
            if let Some(misfit) = self.choose(host, ruled) {
                if before.as_ref() != Some(&misfit) {
                    misfits.insert(host.clone(), misfit.clone());
                }
                self.misfits.insert(host.clone(), misfit);
            }
        }
        for finding in self.unfit(&misfits) {
            tracing::warn!("{finding}");
        }
        if default_changed {
            let shown = self.served(self.default_secret.as_ref());
            let (chosen, end) = match shown {
                Some(shown) => (shown.certified.clone(), shown.end.clone()),
                None => (self.fallback.0.clone(), None),
            };
            self.certificates.set_default(chosen, end);
        }
        Settled { is_changed: !touched.is_empty() || default_changed, secured }
    }

    /// Hosts below a wildcard go by whose claim on it counts, and by nothing else of it: a new certificate, or an
    /// Ingress that changes otherwise, touches none of them. Returns those that are secured by it, or were.
    fn follow_wildcards(
        &mut self,
        touched: &mut BTreeSet<HostPattern>,
        ruled: &Rulings,
    ) -> Vec<HostPattern> {
        let (mut below, mut secured) = (Vec::new(), Vec::new());
        for host in touched.iter().filter(|host| matches!(host, HostPattern::Wildcard(_))) {
            let now = self.first(host, ruled).map(|first| first.age.key.namespace.clone());
            let before = match &now {
                Some(namespace) => self.wildcards.insert(host.clone(), namespace.clone()),
                None => self.wildcards.remove(host),
            };
            if now == before {
                continue;
            }
            for host in ruled.below(host) {
                let namespace = ruled.namespace(host);
                if namespace.is_some() && [now.as_ref(), before.as_ref()].contains(&namespace) {
                    secured.push(host.clone());
                }
                below.push(host.clone());
            }
        }
        touched.extend(below);
        secured
    }

    /// Returns whose certificate is not for the host. As with ingress-nginx (createServers), nobody is shown
    /// one that verifies for others alone.
    fn choose(&mut self, host: &HostPattern, ruled: &Rulings) -> Option<Misfit> {
        let claimed = self.first(host, ruled).map(|first| {
            let shown = self.served(first.secret.as_ref());
            let fitting = shown.filter(|shown| shown.is_for(host)).cloned();
            let is_misfit = shown.is_some() && fitting.is_none() && *host != HostPattern::Any;
            let secret = first.secret.as_ref().filter(|_| is_misfit);
            let ingress = &first.age.key;
            let misfit = |secret: &Key| Misfit { ingress: ingress.clone(), secret: secret.clone() };
            (fitting, secret.map(misfit))
        });
        if self.claims.get(host).is_none_or(BTreeSet::is_empty) {
            self.claims.remove(host);
            self.weak.remove(host);
        }
        let Some((shown, misfit)) = claimed else {
            match self.is_kept_from_above(host, ruled) {
                true => self.certificates.set(host, None, None),
                false => self.certificates.unset(host),
            }
            return None;
        };
        let end = shown.as_ref().and_then(|shown| shown.end.clone());
        self.certificates.set(host, shown.map(|shown| shown.certified.clone()), end);
        misfit
    }

    /// The claim that counts. Who has rules for a host, or for the wildcard that covers it, says by what certificate it is
    /// served, also where he names none; of those the namespace that has the host comes first, by its claim on the
    /// wildcard, too.
    fn first(&self, host: &HostPattern, ruled: &Rulings) -> Option<&Claimed> {
        let claims = self.claims.get(host)?;
        if let Some(owner) = ruled.owner(host) {
            let is_owners = |claim: &&Claimed| claim.age.key.namespace == owner.namespace;
            let mut own = claims.iter().take_while(|claim| claim.standing.is_own());
            let own = own.find(is_owners);
            let is_named = own.is_some_and(|own| own.standing == Standing::Own);
            if !is_named && self.is_secured_from_above(host, &owner.namespace) {
                return None;
            }
            if own.is_some() {
                return own;
            }
        }
        let first = claims.first()?;
        let is_ruled = || ruled.get(host).is_some_and(|ruling| !ruling.is_empty());
        let is_nearer = || {
            let wildcard = host.wildcard().and_then(|wildcard| ruled.get(&wildcard));
            wildcard.is_some_and(|ruling| !ruling.is_empty() && !ruling.contains(&first.age))
        };
        let counts = match first.standing {
            Standing::Own | Standing::Unnamed => true,
            Standing::Derived => !is_ruled(),
            Standing::General => !is_ruled() && !is_nearer(),
        };
        counts.then_some(first)
    }

    fn served(&self, secret: Option<&Key>) -> Option<&Arc<Shown>> {
        self.secrets.get(secret?)?.served()
    }

    /// Which certificate a name is shown, and why.
    pub(crate) fn explain(&self, name: &str, ruled: &Rulings) -> CertificateChoice {
        let exact = HostPattern::Exact(name.into());
        let wildcard = wildcard_suffix(name).map(|suffix| HostPattern::Wildcard(suffix.into()));
        let wildcard = wildcard.filter(|_| !self.is_kept_from_above(&exact, ruled));
        let claimed = [Some(exact), wildcard].into_iter().flatten().find_map(|host| {
            let secret = self.first(&host, ruled)?.secret.clone();
            Some((host, secret))
        });
        let shown = self.certificates.find(Some(name));
        let shows = |secret: &Key| {
            self.served(Some(secret)).is_some_and(|served| Arc::ptr_eq(&served.certified, shown))
        };
        let wanted = claimed.as_ref().and_then(|(_, secret)| secret.as_ref());
        let broken = wanted.and_then(|secret| self.secrets.get(secret)?.problem());
        let misfit = claimed.as_ref().and_then(|(host, _)| {
            let misfit = self.misfits.get(host)?;
            Some(self.unfit_reason(&misfit.secret, &[host]))
        });
        CertificateChoice {
            secret: wanted.into_iter().chain(&self.default_secret).find(|s| shows(s)).cloned(),
            claimed_by: claimed.as_ref().map(|(host, _)| host.to_string()),
            problem: misfit.or_else(|| Some(broken?.to_string())),
        }
    }

    /// Bad and missing Secrets, told of every Ingress that refers to them, and those for other hosts.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.unfit(&self.misfits);
        for (key, tracked) in &self.secrets {
            let Some(reason) = tracked.problem() else { continue };
            let users: BTreeSet<&Key> = tracked.users.iter().map(|(user, _)| user).collect();
            for user in users {
                findings.push(Finding::ingress(user, Severity::Waiting, reason.clone()));
            }
            if self.default_secret.as_ref() == Some(key) {
                let object = ObjectRef { kind: Kind::Secret, key: key.clone() };
                let (severity, reason) = (Severity::Waiting, reason.clone());
                findings.push(Finding::new(object, severity, reason));
            }
        }
        findings
    }

    /// One finding for each Ingress and Secret.
    fn unfit(&self, misfits: &BTreeMap<HostPattern, Misfit>) -> Vec<Finding> {
        let mut by_secret: BTreeMap<&Misfit, Vec<&HostPattern>> = BTreeMap::new();
        for (host, misfit) in misfits {
            by_secret.entry(misfit).or_default().push(host);
        }
        let finding = |(misfit, hosts): (&Misfit, Vec<&HostPattern>)| {
            let reason = self.unfit_reason(&misfit.secret, &hosts);
            Finding::ingress(&misfit.ingress, Severity::Waiting, reason)
        };
        by_secret.into_iter().map(finding).collect()
    }

    fn unfit_reason(&self, secret: &Key, hosts: &[&HostPattern]) -> String {
        let names = self.served(Some(secret)).map(|shown| shown.told()).unwrap_or_default();
        let first = hosts.first().map(ToString::to_string).unwrap_or_default();
        let more = match hosts.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "Secret {secret} is for {names}, not for {first}{more}; the default certificate is served"
        )
    }
}

#[cfg(test)]
mod tests;
