//! From what the maps hold to what they must hold, in an order that readers never notice.
//!
//! A reader looks a frontend up and then a slot of its set, by the set's table if it has one. So a
//! set is whole before a frontend leads to it, is never changed, and goes when no frontend leads to
//! it any more: what replaces it is a new set under a new id.

mod actual;
mod ids;

use std::{collections::hash_map::Entry, fmt, ops::RangeInclusive, sync::Arc};

use bytemuck::Zeroable;
use fairlead_ebpf::abi::{
    Backend, BackendKey, FirstBackends, FrontendEntry, FrontendKey, FrontendValue, MaglevKey,
    MaglevPart, SourceRangeKey, TableSize,
};

use self::actual::NodePortChange;
pub use self::{
    actual::{Actual, Check, Reading},
    ids::Ids,
};
use crate::{
    hash::{FastMap, FastSet},
    image::Capacities,
    maglev,
    plan::{BackendSet, Lead},
    port_range::PortRange,
    snat_ports,
};

/// One change of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Frontends that are no more.
    DeleteFrontends(Vec<FrontendKey>),
    /// Ranges that new frontends look for.
    PutSourceRanges(Vec<SourceRangeKey>),
    /// Slots of new sets.
    PutBackends(Vec<(BackendKey, Backend)>),
    /// Tables of new sets.
    PutMaglev(Vec<(MaglevKey, MaglevPart)>),
    /// Frontends that are new or lead to another set.
    PutFrontends(Vec<(FrontendKey, FrontendEntry)>),
    /// Slots no frontend leads to any more.
    DeleteBackends(Vec<BackendKey>),
    /// Tables no frontend leads to any more.
    DeleteMaglev(Vec<MaglevKey>),
    /// Where NodePorts are looked for: widened before there are new ones, narrowed after others have gone.
    NodePorts(PortRange),
    /// Which ports source translation may use: no NodePort is among them at any time.
    SourcePorts(PortRange),
    /// Ranges no frontend looks for any more.
    DeleteSourceRanges(Vec<SourceRangeKey>),
    /// Counters that the next service with their id begins with: set to zero.
    ClearCounters(Vec<u32>),
}

/// What a set of services needs changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    ended_frontends: Vec<FrontendKey>,
    new_sets: Vec<NewSet>,
    /// Sets that were read from the maps and are planned alike: one copy of them is enough.
    shared_sets: Vec<(u32, BackendSet)>,
    frontends: Vec<(FrontendKey, FrontendValue)>,
    ended_sets: Vec<u32>,
    new_ranges: Vec<SourceRangeKey>,
    ended_ranges: Vec<SourceRangeKey>,
    /// `None`: as they are.
    source_ports: Option<PortRange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NewSet {
    id: u32,
    backends: BackendSet,
    table: Option<TableSize>,
}

/// What the maps must hold for one service.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Its counters.
    pub counter_id: u32,
    /// Where each frontend leads.
    pub frontends: Vec<WantedFrontend<'a>>,
    /// Who may use its load balancer addresses.
    pub source_ranges: Vec<SourceRangeKey>,
}

/// A frontend and where it leads.
#[derive(Clone, Copy, Debug)]
pub struct WantedFrontend<'a> {
    /// What clients dial.
    pub key: FrontendKey,
    /// `None`: clients are refused or dropped.
    pub set: Option<&'a BackendSet>,
    /// The set whose head serves clients from outside.
    pub local: Option<&'a BackendSet>,
    /// All of the value that depends neither on ids nor on the length of the set.
    pub value: FrontendValue,
}

impl<'a> From<Lead<'a>> for WantedFrontend<'a> {
    fn from(Lead { frontend, set, local, affinity_seconds }: Lead<'a>) -> Self {
        let value = FrontendValue {
            set_id: 0,
            local_set_id: 0,
            counter_id: 0,
            affinity_seconds,
            backends: 0,
            local_backends: frontend.local_backends,
            service_port: frontend.service_port.to_be_bytes(),
            flags: frontend.flags,
        };
        Self { key: frontend.key, set, local, value }
    }
}

impl<'a> WantedFrontend<'a> {
    fn sets(&self) -> impl Iterator<Item = (&'a BackendSet, Option<TableSize>)> + use<'a> {
        let table = TableSize::of(self.value.flags);
        self.set.into_iter().chain(self.local).map(move |set| (set, table))
    }
}

/// A map without room for all of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FullMap {
    /// Some of its frontends are left out.
    Frontends,
    /// There is no room for its new set beside the old one; the service is as it was.
    Backends,
    /// There is no room for its new set's table beside the old one; the service is as it was.
    Maglev,
    /// There is no room for its new source ranges beside the old ones; the service is as it was.
    SourceRanges,
}

impl fmt::Display for FullMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FullMap::Frontends => "frontends",
            FullMap::Backends => "backends",
            FullMap::Maglev => "maglev",
            FullMap::SourceRanges => "source-ranges",
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
    parts: usize,
    ranges: usize,
}

impl Delta {
    /// Whether nothing needs to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is more room for sets or ranges afterwards.
    pub fn makes_room(&self) -> bool {
        !self.ended_sets.is_empty() || !self.ended_ranges.is_empty()
    }

    /// The changes in the order they must be made in; each may be repeated.
    pub fn steps(&self, actual: &Actual) -> Vec<Step> {
        let new_slots = self.new_sets.iter().flat_map(|NewSet { id, backends, .. }| {
            let slots = backends.iter().zip(0..);
            slots.map(|(backend, slot)| (BackendKey { set_id: *id, slot }, *backend))
        });
        let new_parts = self.new_sets.iter().flat_map(NewSet::parts);
        let ended_parts = self.ended_sets.iter().flat_map(|id| actual.parts_of(*id));
        let ended_slots = self.ended_sets.iter().flat_map(|id| actual.slots_of(*id));
        let node_ports = actual.node_ports_after(self);
        let widened = actual.node_ports().with(node_ports);
        let ports_from = |old: PortRange, new| (new != old).then_some(Step::NodePorts(new));
        // At no time does a flow find its backend neither in a frontend's set nor beside it.
        let ended = self.ended_frontends.iter().copied();
        let (beside, dialled) = ended.partition(|key| key.is_serving_of().is_some());
        let before = [
            Step::DeleteFrontends(dialled),
            Step::PutSourceRanges(self.new_ranges.clone()),
            Step::PutBackends(new_slots.collect()),
            Step::PutMaglev(new_parts.collect()),
        ];
        let after = [
            Step::PutFrontends(self.entries(actual)),
            Step::DeleteFrontends(beside),
            Step::DeleteBackends(ended_slots.collect()),
            Step::DeleteMaglev(ended_parts.collect()),
            Step::DeleteSourceRanges(self.ended_ranges.clone()),
        ];
        let source_ports = self.source_ports.map(Step::SourcePorts);
        let steps = before.into_iter().chain(source_ports);
        let steps = steps.chain(ports_from(actual.node_ports(), widened)).chain(after);
        let steps = steps.chain(ports_from(widened, node_ports));
        steps.filter(|step| step.entries() > 0).collect()
    }

    /// Frontends with copies of the first backends they lead to.
    fn entries(&self, actual: &Actual) -> Vec<(FrontendKey, FrontendEntry)> {
        let new: FastMap<u32, &BackendSet> =
            self.new_sets.iter().map(|set| (set.id, &set.backends)).collect();
        let entry = |(key, value): &(FrontendKey, FrontendValue)| {
            let first = match new.get(&value.set_id) {
                Some(set) => Some(FirstBackends::of(key, set.iter().copied())),
                None => actual.first(key, value),
            };
            let first = first.unwrap_or_else(Zeroable::zeroed);
            (*key, FrontendEntry { value: *value, first })
        };
        let is_beside = |key: &FrontendKey| key.is_serving_of().is_some();
        let (beside, dialled): (Vec<_>, Vec<_>) =
            self.frontends.iter().partition(|(key, _)| is_beside(key));
        beside.into_iter().chain(dialled).map(entry).collect()
    }
}

impl NewSet {
    fn parts(&self) -> impl Iterator<Item = (MaglevKey, MaglevPart)> + use<> {
        let parts = self.table.map(|size| maglev::parts(&self.backends, size));
        let set_id = self.id;
        let parts = parts.unwrap_or_default().into_iter().zip(0..);
        parts.map(move |(part, number)| (MaglevKey { set_id, part: number }, part))
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
            Step::PutMaglev(parts) => parts.len(),
            Step::DeleteMaglev(keys) => keys.len(),
            Step::PutSourceRanges(ranges) | Step::DeleteSourceRanges(ranges) => ranges.len(),
            Step::ClearCounters(ids) => ids.len(),
            Step::NodePorts(_) | Step::SourcePorts(_) => 1,
        }
    }
}

impl<'a> Draft<'a> {
    /// An empty draft against what the maps hold.
    pub fn new(actual: &'a Actual, capacities: Capacities) -> Self {
        let room = Room {
            frontends: capacities.frontends.saturating_sub(actual.frontends().len()),
            slots: capacities.backends.saturating_sub(actual.slots()),
            parts: capacities.maglev.saturating_sub(actual.parts()),
            ranges: capacities.source_ranges.saturating_sub(actual.ranges()),
        };
        let (references, ended_frontends) = (FastMap::default(), FastSet::default());
        Self { actual, room, delta: Delta::default(), references, ended_frontends }
    }

    /// Removes a frontend nobody wants. Call it before [`Draft::serve`]: it makes room.
    pub fn release(&mut self, frontend: FrontendKey) {
        let Some(old) = self.actual.frontends().get(&frontend) else { return };
        if self.ended_frontends.insert(frontend) {
            self.delta.ended_frontends.push(frontend);
            // Of others the place is used until the end.
            self.room.frontends += usize::from(frontend.is_serving_of().is_none());
            self.refer(old, -1);
        }
    }

    /// Removes the source ranges of a service, by its counters.
    pub fn end_ranges(&mut self, counter_id: u32) {
        self.delta.ended_ranges.extend(self.actual.ranges_of(counter_id));
    }

    /// Adds what one service needs.
    ///
    /// # Errors
    /// A map has no room for all of it.
    pub fn serve(&mut self, wanted: &Wanted<'_>, set_ids: &mut Ids) -> Result<(), FullMap> {
        let mut placed = wanted.frontends.clone();
        let mut room = self.room.frontends;
        placed.retain(|WantedFrontend { key, .. }| {
            let is_new = !self.actual.frontends().contains_key(key);
            let fits = !is_new || room > 0;
            room -= usize::from(is_new && fits);
            fits
        });
        let known = self.known_sets(wanted);
        // By where the plan keeps them: it keeps each content once.
        let mut sets: FastMap<*const BackendSet, u32> = FastMap::default();
        let (mut new_sets, mut shared_sets) = (Vec::new(), Vec::new());
        let (mut new_slots, mut new_parts) = (0, 0);
        for (set, table) in placed.iter().flat_map(WantedFrontend::sets) {
            let Entry::Vacant(entry) = sets.entry(std::ptr::from_ref(set)) else { continue };
            let same = known.get_key_value(&(set, table)).map(|((held, _), id)| (*held, *id));
            match same {
                Some((held, id)) if !Arc::ptr_eq(held, set) => shared_sets.push((id, set.clone())),
                Some(_) => {}
                None => {
                    new_slots += set.len();
                    new_parts += table.map_or(0, |size| size.parts() as usize);
                    new_sets.push((set, table));
                }
            }
            entry.insert(same.map_or(0, |(_, id)| id));
        }
        if new_slots > self.room.slots {
            return Err(FullMap::Backends);
        }
        if new_parts > self.room.parts {
            return Err(FullMap::Maglev);
        }
        let (new_ranges, ended_ranges) = self.ranges(wanted);
        // Without them clients that must not come in would.
        if new_ranges.len() > self.room.ranges {
            return Err(FullMap::SourceRanges);
        }
        self.room = Room {
            frontends: room,
            slots: self.room.slots - new_slots,
            parts: self.room.parts - new_parts,
            ranges: self.room.ranges - new_ranges.len(),
        };
        for (set, table) in new_sets {
            let id = set_ids.allocate(|id| self.actual.holds_set(id));
            sets.insert(std::ptr::from_ref(set), id);
            self.delta.new_sets.push(NewSet { id, backends: BackendSet::clone(set), table });
        }
        self.delta.shared_sets.extend(shared_sets);
        self.delta.ended_ranges.extend(ended_ranges);
        self.delta.new_ranges.extend(new_ranges);
        for frontend in &placed {
            let id = |set: Option<&BackendSet>| {
                set.and_then(|set| sets.get(&std::ptr::from_ref(set))).copied().unwrap_or_default()
            };
            let (set_id, local_set_id) = (id(frontend.set), id(frontend.local));
            let backends = frontend.set.map_or(0, |set| set.len());
            let backends = u16::try_from(backends).unwrap_or(u16::MAX);
            let counter_id = wanted.counter_id;
            let value =
                FrontendValue { set_id, local_set_id, counter_id, backends, ..frontend.value };
            self.put(frontend.key, value);
        }
        if placed.len() < wanted.frontends.len() { Err(FullMap::Frontends) } else { Ok(()) }
    }

    /// Source ranges that are missing, and those there that are not wanted any more.
    fn ranges(&self, wanted: &Wanted<'_>) -> (Vec<SourceRangeKey>, Vec<SourceRangeKey>) {
        let mut ranges = wanted.source_ranges.clone();
        ranges.sort_unstable();
        ranges.dedup();
        let held = self.actual.ranges_of(wanted.counter_id);
        let ended = held.filter(|range| ranges.binary_search(range).is_err()).collect();
        ranges.retain(|range| !self.actual.holds_range(range));
        (ranges, ended)
    }

    /// Sets the service's frontends lead to by now: one with the content that is wanted stays,
    /// also one written by an earlier start.
    fn known_sets(&self, wanted: &Wanted<'_>) -> FastMap<(&'a BackendSet, Option<TableSize>), u32> {
        let values = wanted.frontends.iter().filter_map(|f| self.actual.frontends().get(&f.key));
        let mut seen = FastSet::default();
        let mut known = FastMap::default();
        for id in values.flat_map(actual::sets_of).filter(|id| seen.insert(*id)) {
            if let Some(content) = self.actual.set(id) {
                known.entry(content).or_insert(id);
            }
        }
        known
    }

    fn put(&mut self, key: FrontendKey, value: FrontendValue) {
        let old = self.actual.frontends().get(&key);
        if old == Some(&value) && !self.actual.is_spoilt(&key) {
            return;
        }
        if let Some(old) = old {
            self.refer(old, -1);
        }
        self.refer(&value, 1);
        self.delta.frontends.push((key, value));
    }

    fn refer(&mut self, value: &FrontendValue, change: i64) {
        for id in actual::sets_of(value) {
            *self.references.entry(id).or_default() += change;
        }
    }

    /// The delta, with the removal of every set nothing leads to any more. `local_ports` are those that sockets
    /// get by themselves; it is asked only where NodePorts come or go.
    pub fn finish(mut self, local_ports: impl FnOnce() -> RangeInclusive<u16>) -> Delta {
        let ended = self.references.iter().filter(|(id, change)| {
            self.actual.references(**id).is_some_and(|held| held + **change <= 0)
        });
        let mut ended: Vec<u32> = ended.map(|(id, _)| *id).collect();
        ended.extend(self.actual.orphans());
        ended.sort_unstable();
        ended.dedup();
        self.delta.ended_sets = ended;
        let change = NodePortChange::of(self.actual, &self.delta);
        if !change.is_empty() || !self.actual.is_clear_of_node_ports() {
            let ports = snat_ports::between(&local_ports(), change.after(self.actual));
            self.delta.source_ports = Some(ports).filter(|p| *p != self.actual.source_ports());
        }
        self.delta
    }
}

#[cfg(test)]
mod tests;
