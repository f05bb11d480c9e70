//! How a source fares, for people and for readiness.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::Kind;

/// What a source says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceHealth {
    /// Each wanted kind.
    pub kinds: BTreeMap<Kind, KindHealth>,
    /// Places (a file, an object) where something is wrong now, and what.
    pub problems: BTreeMap<Arc<str>, Arc<str>>,
}

/// One kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindHealth {
    /// Its initial list is complete.
    pub synced: bool,
    /// When its state was last known to be current.
    pub last_contact: Option<Instant>,
    /// Why it cannot be followed; `None` while it is.
    pub last_error: Option<Arc<str>>,
}

impl SourceHealth {
    pub(super) fn of(wanted: &BTreeSet<Kind>) -> Self {
        let kinds = wanted.iter().map(|kind| (*kind, KindHealth::default())).collect();
        Self { kinds, problems: BTreeMap::new() }
    }

    /// Every wanted kind is complete.
    pub fn is_synced(&self) -> bool {
        self.kinds.values().all(|kind| kind.synced)
    }

    /// How old the snapshot may be: since when the kind that has been out of touch for longest is.
    /// `None` while every kind is followed, for then it is current.
    pub fn stale_for(&self, now: Instant) -> Option<Duration> {
        let failing = self.kinds.values().filter(|kind| kind.last_error.is_some());
        let ages = failing.filter_map(|kind| kind.last_contact);
        ages.map(|at| now.saturating_duration_since(at)).max()
    }

    /// Each of these returns whether a reader should look again.
    pub(super) fn set_synced(&mut self, missing: &BTreeSet<Kind>) -> bool {
        let mut changed = false;
        for (kind, health) in &mut self.kinds {
            let synced = !missing.contains(kind);
            changed |= health.synced != synced;
            health.synced = synced;
        }
        changed
    }

    pub(super) fn contact(&mut self, kind: Kind, now: Instant) -> bool {
        let Some(health) = self.kinds.get_mut(&kind) else { return false };
        health.last_contact = Some(now);
        health.last_error.take().is_some()
    }

    pub(super) fn failed(&mut self, kind: Kind, reason: &str) -> bool {
        let Some(health) = self.kinds.get_mut(&kind) else { return false };
        let changed = health.last_error.as_deref() != Some(reason);
        health.last_error = Some(reason.into());
        changed
    }

    pub(super) fn problem(&mut self, place: &str, reason: Option<&str>) -> bool {
        match reason {
            None => self.problems.remove(place).is_some(),
            Some(reason) if self.problems.get(place).is_some_and(|old| &**old == reason) => false,
            Some(reason) => {
                self.problems.insert(place.into(), reason.into());
                true
            }
        }
    }
}
