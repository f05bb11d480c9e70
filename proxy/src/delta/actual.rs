//! Bookkeeping: what the maps hold.

use std::collections::BTreeSet;

use fairlead_ebpf::abi::{BackendKey, FrontendKey, FrontendValue, SourceRangeKey};

use super::Delta;
use crate::{hash::FastMap, image::Image, plan::BackendSet};

/// What the maps hold, arranged by set.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    frontends: FastMap<FrontendKey, FrontendValue>,
    sets: FastMap<u32, HeldSet>,
    slots: usize,
    /// Sets no frontend leads to, found when the maps were read.
    orphans: BTreeSet<u32>,
    /// By counter id; no entry without one.
    ranges: FastMap<u32, BTreeSet<SourceRangeKey>>,
}

/// The sets a frontend leads to; one may be there twice.
pub(super) fn sets_of(value: &FrontendValue) -> impl Iterator<Item = u32> + use<> {
    let cluster = (value.backends > 0).then_some(value.set_id);
    let local = (value.local_backends > 0).then_some(value.local_set_id);
    cluster.into_iter().chain(local)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HeldSet {
    content: Content,
    /// Frontends that lead to it.
    references: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Whole(BackendSet),
    /// Slots are missing: good for nothing but removal.
    Broken(Box<[u32]>),
}

impl Content {
    fn slots(&self) -> usize {
        match self {
            Content::Whole(set) => set.len(),
            Content::Broken(slots) => slots.len(),
        }
    }
}

impl Actual {
    /// From what was read from the maps.
    pub fn new(image: &Image) -> Self {
        let mut sets: FastMap<u32, HeldSet> = FastMap::default();
        let entries: Vec<_> = image.backends.iter().collect();
        for slots in entries.chunk_by(|(one, _), (other, _)| one.set_id == other.set_id) {
            let Some((BackendKey { set_id, .. }, _)) = slots.first() else { continue };
            let is_whole = slots.iter().zip(0..).all(|((key, _), slot)| key.slot == slot);
            let content = if is_whole {
                Content::Whole(slots.iter().map(|(_, backend)| **backend).collect())
            } else {
                Content::Broken(slots.iter().map(|(key, _)| key.slot).collect())
            };
            sets.insert(*set_id, HeldSet { content, references: 0 });
        }
        for id in image.frontends.values().flat_map(sets_of) {
            if let Some(set) = sets.get_mut(&id) {
                set.references += 1;
            }
        }
        let mut ranges: FastMap<u32, BTreeSet<SourceRangeKey>> = FastMap::default();
        for range in &image.source_ranges {
            ranges.entry(range.counter_id).or_default().insert(*range);
        }
        let orphans = sets.iter().filter(|(_, set)| set.references == 0).map(|(id, _)| *id);
        Self {
            frontends: image.frontends.iter().map(|(key, value)| (*key, *value)).collect(),
            slots: image.backends.len(),
            orphans: orphans.collect(),
            ranges,
            sets,
        }
    }

    /// Every frontend.
    pub fn frontends(&self) -> &FastMap<FrontendKey, FrontendValue> {
        &self.frontends
    }

    /// Ids of all sets.
    pub fn set_ids(&self) -> impl Iterator<Item = u32> {
        self.sets.keys().copied()
    }

    /// Source ranges of one service, by its counters.
    pub(super) fn ranges_of(&self, counter_id: u32) -> impl Iterator<Item = SourceRangeKey> {
        self.ranges.get(&counter_id).into_iter().flatten().copied()
    }

    /// Counter ids that have source ranges.
    pub fn limited(&self) -> impl Iterator<Item = u32> {
        self.ranges.keys().copied()
    }

    /// How many slots all sets have together.
    pub fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn holds_set(&self, id: u32) -> bool {
        self.sets.contains_key(&id)
    }

    /// The content of a set, if it has no holes.
    pub(super) fn set(&self, id: u32) -> Option<&BackendSet> {
        match &self.sets.get(&id)?.content {
            Content::Whole(set) => Some(set),
            Content::Broken(_) => None,
        }
    }

    pub(super) fn references(&self, id: u32) -> Option<i64> {
        self.sets.get(&id).map(|set| i64::from(set.references))
    }

    pub(super) fn orphans(&self) -> impl Iterator<Item = u32> {
        self.orphans.iter().copied()
    }

    pub(super) fn slots_of(&self, id: u32) -> impl Iterator<Item = BackendKey> {
        let content = self.sets.get(&id).map(|set| &set.content);
        let (whole, broken) = match content {
            Some(Content::Whole(set)) => (set.len(), None),
            Some(Content::Broken(slots)) => (0, Some(slots.iter().copied())),
            None => (0, None),
        };
        let slots = (0u32..).take(whole).chain(broken.into_iter().flatten());
        slots.map(move |slot| BackendKey { set_id: id, slot })
    }

    /// Takes note of a delta all of whose steps were made.
    pub fn commit(&mut self, delta: &Delta) {
        for key in &delta.ended_frontends {
            if let Some(old) = self.frontends.remove(key) {
                self.unrefer(&old);
            }
        }
        for (id, set) in &delta.new_sets {
            self.slots += set.len();
            let content = Content::Whole(set.clone());
            self.sets.insert(*id, HeldSet { content, references: 0 });
        }
        for (key, value) in &delta.frontends {
            for id in sets_of(value) {
                if let Some(set) = self.sets.get_mut(&id) {
                    set.references += 1;
                }
            }
            if let Some(old) = self.frontends.insert(*key, *value) {
                self.unrefer(&old);
            }
        }
        for range in &delta.ended_ranges {
            if let Some(ranges) = self.ranges.get_mut(&range.counter_id) {
                ranges.remove(range);
                if ranges.is_empty() {
                    self.ranges.remove(&range.counter_id);
                }
            }
        }
        for range in &delta.new_ranges {
            self.ranges.entry(range.counter_id).or_default().insert(*range);
        }
        for id in &delta.ended_sets {
            self.orphans.remove(id);
            if let Some(set) = self.sets.remove(id) {
                self.slots -= set.content.slots();
            }
        }
    }

    fn unrefer(&mut self, value: &FrontendValue) {
        for id in sets_of(value) {
            if let Some(set) = self.sets.get_mut(&id) {
                set.references = set.references.saturating_sub(1);
            }
        }
    }

    /// How many frontends, sets and services' ranges differ.
    pub fn differences(&self, other: &Self) -> usize {
        differing(&self.frontends, &other.frontends)
            + differing(&self.sets, &other.sets)
            + differing(&self.ranges, &other.ranges)
    }
}

fn differing<K: Eq + std::hash::Hash, V: PartialEq>(
    one: &FastMap<K, V>,
    other: &FastMap<K, V>,
) -> usize {
    let changed = one.iter().filter(|(key, value)| other.get(*key) != Some(*value)).count();
    changed + other.keys().filter(|key| !one.contains_key(*key)).count()
}
