//! From what the maps hold to what they must hold, in an order that readers never notice.
//!
//! A reader looks a frontend up and then a slot of its set. So a set is whole before a frontend
//! leads to it, is never changed, and goes when no frontend leads to it any more: what replaces it
//! is a new set under a new id.

mod actual;
mod ids;

use std::fmt;

use fairlead_ebpf::abi::{BACKEND_LOCAL, Backend, BackendKey, FrontendKey, FrontendValue};

pub use self::{actual::Actual, ids::Ids};
use crate::{
    hash::{FastMap, FastSet},
    maps::Capacities,
    plan::BackendSet,
};

/// One change of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Frontends that are no more.
    DeleteFrontends(Vec<FrontendKey>),
    /// Slots of new sets.
    PutBackends(Vec<(BackendKey, Backend)>),
    /// Frontends that are new or lead to another set.
    PutFrontends(Vec<(FrontendKey, FrontendValue)>),
    /// Slots no frontend leads to any more.
    DeleteBackends(Vec<BackendKey>),
    /// Counters of services that are no more. (The programs make counters, when they first count.)
    DeleteCounters(Vec<u32>),
}

/// What a set of services needs changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    ended_frontends: Vec<FrontendKey>,
    new_sets: Vec<(u32, BackendSet)>,
    frontends: Vec<(FrontendKey, FrontendValue)>,
    ended_sets: Vec<u32>,
    ended_counters: Vec<u32>,
}

/// What the maps must hold for one service.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Its counters.
    pub counter_id: u32,
    /// Where each frontend leads; `None`: clients are refused.
    pub frontends: Vec<(FrontendKey, Option<&'a BackendSet>)>,
}

/// A map without room for all of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FullMap {
    /// Some of its frontends are left out.
    Frontends,
    /// There is no room for its new set beside the old one; the service is as it was.
    Backends,
}

impl fmt::Display for FullMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FullMap::Frontends => "frontends",
            FullMap::Backends => "backends",
        })
    }
}

/// A delta in the making.
#[derive(Debug)]
pub struct Draft<'a> {
    actual: &'a Actual,
    room: Room,
    delta: Delta,
    /// Frontends that come to lead to a set, less those that cease to.
    references: FastMap<u32, i64>,
    ended_frontends: FastSet<FrontendKey>,
}

#[derive(Clone, Copy, Debug)]
struct Room {
    frontends: usize,
    slots: usize,
}

impl Delta {
    /// Whether nothing needs to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is more room for sets afterwards.
    pub fn makes_room(&self) -> bool {
        !self.ended_sets.is_empty()
    }

    /// The changes in the order they must be made in; each may be repeated.
    pub fn steps(&self, actual: &Actual) -> Vec<Step> {
        let new_slots = self.new_sets.iter().flat_map(|(id, set)| {
            set.iter().zip(0..).map(|(backend, slot)| (BackendKey { set_id: *id, slot }, *backend))
        });
        let ended_slots = self.ended_sets.iter().flat_map(|id| actual.slots_of(*id));
        let steps = [
            Step::DeleteFrontends(self.ended_frontends.clone()),
            Step::PutBackends(new_slots.collect()),
            Step::PutFrontends(self.frontends.clone()),
            Step::DeleteBackends(ended_slots.collect()),
            Step::DeleteCounters(self.ended_counters.clone()),
        ];
        steps.into_iter().filter(|step| step.entries() > 0).collect()
    }
}

impl Step {
    /// How many entries are written or removed.
    pub fn entries(&self) -> usize {
        match self {
            Step::DeleteFrontends(keys) => keys.len(),
            Step::PutBackends(entries) => entries.len(),
            Step::PutFrontends(entries) => entries.len(),
            Step::DeleteBackends(keys) => keys.len(),
            Step::DeleteCounters(ids) => ids.len(),
        }
    }
}

impl<'a> Draft<'a> {
    /// An empty draft against what the maps hold.
    pub fn new(actual: &'a Actual, capacities: Capacities) -> Self {
        let room = Room {
            frontends: capacities.frontends.saturating_sub(actual.frontends().len()),
            slots: capacities.backends.saturating_sub(actual.slots()),
        };
        let (references, ended_frontends) = (FastMap::default(), FastSet::default());
        Self { actual, room, delta: Delta::default(), references, ended_frontends }
    }

    /// Removes a frontend nobody wants. Call it before [`Draft::serve`]: it makes room.
    pub fn release(&mut self, frontend: FrontendKey) {
        let Some(old) = self.actual.frontends().get(&frontend) else { return };
        if self.ended_frontends.insert(frontend) {
            self.delta.ended_frontends.push(frontend);
            self.room.frontends += 1;
            self.refer(old, -1);
        }
    }

    /// Removes counters nobody wants.
    pub fn end_counter(&mut self, id: u32) {
        self.delta.ended_counters.push(id);
    }

    /// Adds what one service needs.
    ///
    /// # Errors
    /// A map has no room for all of it.
    pub fn serve(&mut self, wanted: &Wanted<'_>, set_ids: &mut Ids) -> Result<(), FullMap> {
        let mut placed = wanted.frontends.clone();
        let mut room = self.room.frontends;
        placed.retain(|(key, _)| {
            let is_new = !self.actual.frontends().contains_key(key);
            let fits = !is_new || room > 0;
            room -= usize::from(is_new && fits);
            fits
        });
        let known = self.known_sets(wanted);
        let mut sets: Vec<(&BackendSet, u32)> = Vec::new();
        let mut new_slots = 0;
        for set in placed.iter().filter_map(|(_, set)| *set) {
            if sets.iter().any(|(other, _)| std::ptr::eq(*other, set)) {
                continue;
            }
            let id = known.iter().find(|(_, content)| *content == set).map(|(id, _)| *id);
            new_slots += if id.is_none() { set.len() } else { 0 };
            sets.push((set, id.unwrap_or(0)));
        }
        if new_slots > self.room.slots {
            return Err(FullMap::Backends);
        }
        self.room.frontends = room;
        self.room.slots -= new_slots;
        for (set, id) in sets.iter_mut().filter(|(_, id)| *id == 0) {
            *id = set_ids.allocate(|id| self.actual.holds_set(id));
            self.delta.new_sets.push((*id, BackendSet::clone(set)));
        }
        for (key, set) in &placed {
            let id = set.and_then(|set| sets.iter().find(|(other, _)| std::ptr::eq(*other, set)));
            self.put(*key, value(wanted.counter_id, id.copied()));
        }
        if placed.len() < wanted.frontends.len() { Err(FullMap::Frontends) } else { Ok(()) }
    }

    /// Sets the service's frontends lead to by now: one with the content that is wanted stays,
    /// also one written by an earlier start.
    fn known_sets(&self, wanted: &Wanted<'_>) -> Vec<(u32, &'a BackendSet)> {
        let mut known: Vec<(u32, &BackendSet)> = Vec::new();
        for (key, _) in &wanted.frontends {
            let Some(value) = self.actual.frontends().get(key) else { continue };
            if value.backends == 0 || known.iter().any(|(id, _)| *id == value.set_id) {
                continue;
            }
            known.extend(self.actual.set(value.set_id).map(|content| (value.set_id, content)));
        }
        known
    }

    fn put(&mut self, key: FrontendKey, value: FrontendValue) {
        let old = self.actual.frontends().get(&key);
        if old == Some(&value) {
            return;
        }
        if let Some(old) = old {
            self.refer(old, -1);
        }
        self.refer(&value, 1);
        self.delta.frontends.push((key, value));
    }

    fn refer(&mut self, value: &FrontendValue, change: i64) {
        if value.backends > 0 {
            *self.references.entry(value.set_id).or_default() += change;
        }
    }

    /// The delta, with the removal of every set nothing leads to any more.
    pub fn finish(mut self) -> Delta {
        let ended = self.references.iter().filter(|(id, change)| {
            self.actual.references(**id).is_some_and(|held| held + **change <= 0)
        });
        let mut ended: Vec<u32> = ended.map(|(id, _)| *id).collect();
        ended.extend(self.actual.orphans());
        ended.sort_unstable();
        ended.dedup();
        self.delta.ended_sets = ended;
        self.delta
    }
}

/// The value of a frontend that leads to `set`.
fn value(counter_id: u32, set: Option<(&BackendSet, u32)>) -> FrontendValue {
    let refused = FrontendValue { set_id: 0, counter_id, backends: 0, local_backends: 0, flags: 0 };
    let Some((set, set_id)) = set else { return refused };
    let is_local = |backend: &Backend| backend.flags & BACKEND_LOCAL != 0;
    let count = |backends: usize| u16::try_from(backends).unwrap_or(u16::MAX);
    let local_backends = count(set.partition_point(is_local));
    FrontendValue { set_id, backends: count(set.len()), local_backends, ..refused }
}

#[cfg(test)]
mod tests;
