//! What the maps hold, read entry by entry: an image of all of it would be as large as everything that
//! is known of Services.

use fairlead_ebpf::abi::{
    Backend, BackendKey, FIRST_BACKENDS_MAX, FirstBackends, FrontendEntry, FrontendKey,
    FrontendValue, MaglevKey, MaglevPart, SourceRangeKey,
};

use super::{Actual, Content, HeldSet, is_table, sets_of};
use crate::{
    delta::is_beside,
    hash::{FastMap, FastSet},
    image::Entry,
    port_range::{PortRange, node_port},
};

/// Bookkeeping in the making.
#[derive(Debug, Default)]
pub struct Reading {
    frontends: FastMap<FrontendKey, FrontendValue>,
    spoilt: FastSet<FrontendKey>,
    slots: FastMap<u32, Vec<(u32, Backend)>>,
    parts: FastMap<u32, Vec<(u32, MaglevPart)>>,
    ranges: Vec<SourceRangeKey>,
    sought: PortRange,
    source_ports: PortRange,
}

/// Bookkeeping, compared with what the maps hold.
#[derive(Debug)]
pub struct Check<'a> {
    expected: &'a Actual,
    /// As they were written.
    same: usize,
    /// Under keys that were written, and not what was written.
    other: usize,
    /// Never written.
    foreign: usize,
    parts: FastMap<u32, Vec<(u32, MaglevPart)>>,
}

impl Reading {
    /// Takes note of an entry; of a frontend after what it leads to.
    pub fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Frontend(key, FrontendEntry { value, first }) => {
                if self.first_of(&key, &value) != first {
                    self.spoilt.insert(key);
                }
                self.frontends.insert(key, value);
            }
            Entry::Backend(BackendKey { set_id, slot }, backend) => {
                self.slots.entry(set_id).or_default().push((slot, backend));
            }
            Entry::Maglev(MaglevKey { set_id, part: number }, part) => {
                self.parts.entry(set_id).or_default().push((number, part));
            }
            Entry::SourceRange(range) => self.ranges.push(range),
            Entry::NodePorts(range) => self.sought = range,
            Entry::SourcePorts(range) => self.source_ports = range,
        }
    }

    /// What must be beside a frontend, by its set as it was read.
    fn first_of(&self, key: &FrontendKey, value: &FrontendValue) -> FirstBackends {
        let slots = self.slots.get(&value.set_id).filter(|_| value.backends > 0);
        let at = |wanted: u32| slots?.iter().find(|(slot, _)| *slot == wanted).map(|(_, b)| *b);
        FirstBackends::of(key, (0..).map_while(at).take(FIRST_BACKENDS_MAX))
    }

    /// All of it, arranged.
    pub fn finish(self) -> Actual {
        let Self { frontends, spoilt, slots, mut parts, ranges, sought, source_ports } = self;
        let beside = frontends.keys().filter(|key| is_beside(key)).count();
        let mut actual =
            Actual { frontends, spoilt, sought, source_ports, beside, ..Actual::default() };
        for port in actual.frontends.keys().filter_map(node_port) {
            *actual.node_ports.entry(port).or_default() += 1;
        }
        for (id, slots) in slots {
            let parts = parts.remove(&id).unwrap_or_default();
            actual.sets.insert(id, HeldSet::of(slots, parts));
        }
        let without_slots = parts.into_iter().map(|(id, parts)| (id, HeldSet::of(vec![], parts)));
        actual.sets.extend(without_slots);
        for id in actual.frontends.values().flat_map(sets_of) {
            if let Some(set) = actual.sets.get_mut(&id) {
                set.references += 1;
            }
        }
        let orphans = actual.sets.iter().filter(|(_, set)| set.references == 0);
        actual.orphans = orphans.map(|(id, _)| *id).collect();
        actual.slots = actual.sets.values().map(HeldSet::slots).sum();
        actual.parts = actual.sets.values().map(HeldSet::parts).sum();
        for range in ranges {
            let of_service = actual.ranges.entry(range.counter_id).or_default();
            actual.ranges_count += usize::from(of_service.insert(range));
        }
        actual
    }
}

impl<'a> Check<'a> {
    /// Nothing seen yet.
    pub fn new(expected: &'a Actual) -> Self {
        Self { expected, same: 0, other: 0, foreign: 0, parts: FastMap::default() }
    }

    /// Compares an entry.
    pub fn take(&mut self, entry: Entry) {
        let expected = self.expected;
        let is_same = match entry {
            Entry::Frontend(key, FrontendEntry { value, first }) => {
                expected.frontends.get(&key).map(|held| {
                    let wanted = expected.first(&key, held);
                    *held == value && wanted.is_none_or(|wanted| wanted == first)
                })
            }
            Entry::Backend(BackendKey { set_id, slot }, backend) => {
                match expected.sets.get(&set_id).map(|set| &set.content) {
                    Some(Content::Whole(set)) => {
                        set.get(slot as usize).map(|held| *held == backend)
                    }
                    Some(Content::Broken(remains)) => {
                        remains.slots.binary_search(&slot).ok().map(|_| true)
                    }
                    None => None,
                }
            }
            Entry::SourceRange(range) => expected.holds_range(&range).then_some(true),
            Entry::NodePorts(range) => Some(range == expected.sought),
            Entry::SourcePorts(range) => Some(range == expected.source_ports),
            Entry::Maglev(MaglevKey { set_id, part: number }, part) => {
                // A part tells nothing by itself.
                return self.parts.entry(set_id).or_default().push((number, part));
            }
        };
        self.note(is_same, 1);
    }

    /// `None`: there should be none.
    fn note(&mut self, is_same: Option<bool>, entries: usize) {
        match is_same {
            Some(true) => self.same += entries,
            Some(false) => self.other += entries,
            None => self.foreign += entries,
        }
    }

    /// How many entries are not as they were written, are missing, or were not written.
    pub fn differences(mut self) -> usize {
        for (id, mut parts) in std::mem::take(&mut self.parts) {
            parts.sort_unstable_by_key(|(number, _)| *number);
            let is_same = match self.expected.sets.get(&id) {
                Some(HeldSet { content: Content::Whole(set), table: Some(size), .. }) => {
                    Some(is_table(&parts, set, *size))
                }
                Some(HeldSet { content: Content::Broken(remains), .. }) => {
                    let numbers = parts.iter().map(|(number, _)| number);
                    numbers.eq(&remains.parts).then_some(true)
                }
                _ => None,
            };
            self.note(is_same, parts.len());
        }
        let Actual { frontends, slots, parts, ranges_count, .. } = self.expected;
        // The last two are where NodePorts are looked for and source translation finds its ports.
        let written = frontends.len() + slots + parts + ranges_count + 2;
        self.other + self.foreign + written.saturating_sub(self.same + self.other)
    }
}
