//! One Secret: who uses it, and the certificate that is shown of it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use fairlead_state::{Key, Snapshot};
use rustls::sign::CertifiedKey;

use super::super::{certificates::End, names, parse};
use crate::host::HostPattern;

/// Names of a certificate that a reason repeats.
const TOLD_NAMES_MAX: usize = 3;

#[derive(Default)]
pub(super) struct Tracked {
    pub(super) users: BTreeSet<(Key, HostPattern)>,
    /// `None` until looked at.
    parsed: Option<Result<Arc<Shown>, Arc<str>>>,
    /// Of a Secret that is broken now: what it held when it last was not.
    kept: Option<Arc<Shown>>,
}

/// A certificate that can be shown.
pub(super) struct Shown {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) end: Option<End>,
    /// Sorted.
    names: Box<[HostPattern]>,
}

impl Tracked {
    pub(super) fn is_parsed(&self) -> bool {
        self.parsed.is_some()
    }

    pub(super) fn served(&self) -> Option<&Arc<Shown>> {
        self.parsed.as_ref()?.as_ref().ok().or(self.kept.as_ref())
    }

    /// Why it cannot be read.
    pub(super) fn problem(&self) -> Option<&Arc<str>> {
        self.parsed.as_ref()?.as_ref().err()
    }

    /// Whoever breaks a Secret does not mean to take its certificate away; whoever deletes it does. A
    /// Secret is its name here, as to whoever refers to it: one that is deleted and made anew, broken,
    /// between two snapshots is one that broke. Who can do that may write that name's certificate.
    pub(super) fn parse(&mut self, snapshot: &Snapshot, key: &Key) {
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
        let parsed = parsed
            .map(|certified| Arc::new(Shown::of(key, certified)))
            .map_err(|reason| Arc::<str>::from(format!("{reason}; {instead}")));
        if let Err(reason) = &parsed
            && self.problem() != Some(reason)
        {
            tracing::warn!("{reason}");
        }
        (self.parsed, self.kept) = (Some(parsed), kept);
    }
}

impl Shown {
    fn of(key: &Key, certified: Arc<CertifiedKey>) -> Self {
        let leaf = certified.cert.first().map_or(&[][..], AsRef::as_ref);
        let seconds = end_seconds(leaf);
        let end = seconds.map(|seconds| End { secret: key.clone(), seconds });
        let names = names::shown_for(leaf).into_iter().collect();
        Self { certified, end, names }
    }

    /// Without a name there is nothing to show it for.
    pub(super) fn is_for(&self, host: &HostPattern) -> bool {
        let has = |name: &HostPattern| self.names.binary_search(name).is_ok();
        has(host) || host.wildcard().is_some_and(|wildcard| has(&wildcard))
    }

    /// What it is for, in words.
    pub(super) fn told(&self) -> String {
        let mut names: Vec<String> =
            self.names.iter().take(TOLD_NAMES_MAX).map(ToString::to_string).collect();
        match self.names.len().saturating_sub(TOLD_NAMES_MAX) {
            0 if names.is_empty() => return "no host".to_owned(),
            0 => {}
            more => names.push(format!("{more} more")),
        }
        names.join(", ")
    }
}

fn end_seconds(leaf: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

impl fmt::Debug for Tracked {
    /// Keys stay out of every log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("users", &self.users).finish_non_exhaustive()
    }
}
