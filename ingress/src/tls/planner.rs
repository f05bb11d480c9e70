//! Who claims which name with which Secret; a Secret is parsed when it changes, and only then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use fairlead_state::{Key, Kind, ObjectRef, Snapshot};
use rustls::sign::CertifiedKey;

use super::{
    certificates::{Certificates, End, Fallback},
    parse,
};
use crate::{
    explain::CertificateChoice,
    host::{HostPattern, wildcard_suffix},
    routes::{Age, Finding, Ruling, Severity, Standing, TlsClaim},
};

/// Who has rules for which host.
pub(crate) type Ruled = BTreeMap<HostPattern, Ruling>;

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
    /// Hosts whose claims changed since the last [`CertificatePlanner::settle`].
    touched: BTreeSet<HostPattern>,
    /// Secrets to look at at the next [`CertificatePlanner::settle`]: claimed or unclaimed since.
    open: BTreeSet<Key>,
    certificates: Certificates,
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

#[derive(Default)]
struct Tracked {
    users: BTreeSet<(Key, HostPattern)>,
    /// `None` until looked at.
    parsed: Option<Result<Arc<CertifiedKey>, Arc<str>>>,
    /// Of a Secret that is broken now: what it held when it last was not.
    kept: Option<Arc<CertifiedKey>>,
    /// Of the certificate that is served.
    end: Option<End>,
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
            touched: BTreeSet::new(),
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
        if claim.standing != Standing::Own {
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

    /// Rules for a host came or went.
    pub(crate) fn touch(&mut self, host: &HostPattern) {
        if self.claims.contains_key(host) {
            self.touched.insert(host.clone());
        }
        self.touched.extend(self.weak.iter().filter(|weak| host.covers(weak)).cloned());
    }

    /// Puts changed claims and Secrets in force. Returns whether any certificate changed.
    pub(crate) fn settle(
        &mut self,
        snapshot: &Snapshot,
        dirty: &BTreeSet<Key>,
        ruled: &Ruled,
    ) -> bool {
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
            if tracked.parsed.is_some() && !dirty.contains(key) {
                continue;
            }
            tracked.parse(snapshot, key);
            touched.extend(tracked.users.iter().map(|(_, host)| host.clone()));
            default_changed |= is_default;
        }
        for host in &touched {
            self.choose(host, ruled);
        }
        if default_changed {
            let secret = self.default_secret.as_ref();
            let (chosen, end) = (self.served(secret), self.end(secret));
            self.certificates.set_default(chosen.unwrap_or_else(|| self.fallback.0.clone()), end);
        }
        !touched.is_empty() || default_changed
    }

    fn choose(&mut self, host: &HostPattern, ruled: &Ruled) {
        let claimed = self.first(host, ruled).map(|first| {
            let secret = first.secret.as_ref();
            (self.served(secret), self.end(secret))
        });
        if self.claims.get(host).is_none_or(BTreeSet::is_empty) {
            self.claims.remove(host);
            self.weak.remove(host);
        }
        match claimed {
            Some((certificate, end)) => self.certificates.set(host, certificate, end),
            None => self.certificates.unset(host),
        }
    }

    /// The claim that counts. Who has rules for a host, or for the wildcard that covers it, says by what certificate it is
    /// served, also where he names none; of those the namespace that has the host comes first.
    fn first(&self, host: &HostPattern, ruled: &Ruled) -> Option<&Claimed> {
        let claims = self.claims.get(host)?;
        let owner = ruled.get(host).and_then(Ruling::owner);
        let owners = owner.and_then(|owner| {
            let is_owners = |claim: &&Claimed| claim.age.key.namespace == owner.namespace;
            claims.iter().take_while(|claim| claim.standing == Standing::Own).find(is_owners)
        });
        let first = owners.or_else(|| claims.first())?;
        let is_ruled = || ruled.get(host).is_some_and(|ruling| !ruling.is_empty());
        let is_nearer = || {
            let wildcard = host.wildcard().and_then(|wildcard| ruled.get(&wildcard));
            wildcard.is_some_and(|ruling| !ruling.is_empty() && !ruling.contains(&first.age))
        };
        let counts = match first.standing {
            Standing::Own => true,
            Standing::Derived => !is_ruled(),
            Standing::General => !is_ruled() && !is_nearer(),
        };
        counts.then_some(first)
    }

    fn served(&self, secret: Option<&Key>) -> Option<Arc<CertifiedKey>> {
        self.secrets.get(secret?)?.served().cloned()
    }

    fn end(&self, secret: Option<&Key>) -> Option<End> {
        self.secrets.get(secret?)?.end.clone()
    }

    /// Which certificate a name is shown, and why.
    pub(crate) fn explain(&self, name: &str, ruled: &Ruled) -> CertificateChoice {
        let exact = HostPattern::Exact(name.into());
        let wildcard = wildcard_suffix(name).map(|suffix| HostPattern::Wildcard(suffix.into()));
        let claimed = [Some(exact), wildcard].into_iter().flatten().find_map(|host| {
            let secret = self.first(&host, ruled)?.secret.clone();
            Some((host, secret))
        });
        let shown = self.certificates.find(Some(name));
        let shows = |secret: &Key| {
            self.served(Some(secret)).is_some_and(|certificate| Arc::ptr_eq(&certificate, shown))
        };
        let wanted = claimed.as_ref().and_then(|(_, secret)| secret.as_ref());
        let parsed = wanted.and_then(|secret| self.secrets.get(secret)?.parsed.as_ref());
        CertificateChoice {
            secret: wanted.into_iter().chain(&self.default_secret).find(|s| shows(s)).cloned(),
            claimed_by: claimed.as_ref().map(|(host, _)| host.to_string()),
            problem: parsed.and_then(|parsed| Some(parsed.as_ref().err()?.to_string())),
        }
    }

    /// Bad and missing Secrets, told of every Ingress that refers to them.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (key, tracked) in &self.secrets {
            let Some(Err(reason)) = &tracked.parsed else { continue };
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
}

impl Tracked {
    fn served(&self) -> Option<&Arc<CertifiedKey>> {
        self.parsed.as_ref()?.as_ref().ok().or(self.kept.as_ref())
    }

    /// Whoever breaks a Secret does not mean to take its certificate away; whoever deletes it does. A
    /// Secret is its name here, as to whoever refers to it: one that is deleted and made anew, broken,
    /// between two snapshots is one that broke. Who can do that may write that name's certificate.
    fn parse(&mut self, snapshot: &Snapshot, key: &Key) {
        let secret = snapshot.secrets().get(key);
        let parsed = match secret {
            Some(secret) => parse::secret(secret),
            None => Err(format!("Secret {key} does not exist")),
        };
        let kept = secret.and(self.served()).filter(|_| parsed.is_err()).cloned();
        let instead = match kept {
            Some(_) => "its last good certificate is served",
            None => "the default certificate is served",
        };
        let parsed = parsed.map_err(|reason| Arc::from(format!("{reason}; {instead}")));
        if let Err(reason) = &parsed
            && !matches!(&self.parsed, Some(Err(old)) if old == reason)
        {
            tracing::warn!("{reason}");
        }
        (self.parsed, self.kept) = (Some(parsed), kept);
        let seconds = self.served().and_then(|certified| end_seconds(certified));
        self.end = seconds.map(|seconds| End { secret: key.clone(), seconds });
    }
}

fn end_seconds(certified: &CertifiedKey) -> Option<i64> {
    let leaf = certified.cert.first()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("users", &self.users).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
