//! What a group of services needs changed, one after the other, as far as there is room.
//!
//! What is dialled has room first, of all services, and then what stands beside frontends
//! ([`FrontendKey::serving`]): that makes no connection, it keeps flows of datagrams where they are. Where there is
//! no room for what is dialled it is given up, whoever's it is.

mod place;
mod sets;

use std::ops::RangeInclusive;

use fairlead_ebpf::abi::{FrontendKey, FrontendValue, SourceRangeKey};

use self::sets::{KnownSets, SetIds, Sets};
use super::{
    Actual, Delta, FullMap, Ids, Lack, NewSet, Room, Wanted, WantedFrontend,
    actual::{self, NodePortChange},
    is_beside,
};
use crate::{
    hash::{FastMap, FastSet},
    image::Capacities,
    plan::BackendSet,
    snat_ports,
};

/// A delta in the making.
#[derive(Debug)]
pub struct Draft<'a> {
    actual: &'a Actual,
    room: Room,
    delta: Delta,
    /// Frontends that come to lead to a set, less those that cease to.
    references: FastMap<u32, i64>,
    ended_frontends: FastSet<FrontendKey>,
    /// What may be given up; `None`: nobody has looked yet.
    spare: Option<Vec<FrontendKey>>,
    /// By counter id, of services that have something beside: the ids of their sets.
    served: FastMap<u32, SetIds>,
    /// Frontends that another service may have had.
    inherited: Option<&'a FastSet<FrontendKey>>,
}

impl<'a> Draft<'a> {
    /// An empty draft against what the maps hold.
    pub fn new(actual: &'a Actual, capacities: Capacities) -> Self {
        Self {
            actual,
            room: Room::of(actual, capacities),
            delta: Delta::default(),
            references: FastMap::default(),
            ended_frontends: FastSet::default(),
            spare: None,
            served: FastMap::default(),
            inherited: None,
        }
    }

    /// The same where some frontends may be another service's in the maps, by their counter ids.
    #[must_use]
    pub fn with_inherited(self, inherited: &'a FastSet<FrontendKey>) -> Self {
        Self { inherited: Some(inherited), ..self }
    }

    /// Removes a frontend nobody wants. Call it before [`Draft::serve`]: it makes room.
    pub fn release(&mut self, frontend: FrontendKey) {
        // Of others the place is used until the end.
        self.room.frontends += usize::from(self.end(frontend) && !is_beside(&frontend));
    }

    /// Removes the source ranges of a service, by its counters.
    pub fn end_ranges(&mut self, counter_id: u32) {
        self.delta.ended_ranges.extend(self.actual.ranges_of(counter_id));
    }

    /// Adds what one service needs, but for what stands beside its frontends: see [`Draft::serve_beside`].
    ///
    /// # Errors
    /// A map has no room for all of it.
    pub fn serve(&mut self, wanted: &Wanted<'_>, set_ids: &mut Ids) -> Result<(), Lack> {
        let placed = self.place(wanted);
        let known = self.known_sets(wanted);
        let mut sets = Sets::default();
        for (set, table) in placed.frontends.iter().flat_map(WantedFrontend::sets) {
            sets.add(set, table, &known);
        }
        if let Err(lack) = self.check(&sets) {
            return self.leave_as_it_is(wanted, lack);
        }
        let (new_ranges, ended_ranges) = self.ranges(wanted);
        // Without them clients that must not come in would.
        if new_ranges.len() > self.room.ranges {
            let lack = Lack::of(FullMap::SourceRanges, new_ranges.len());
            return self.leave_as_it_is(wanted, lack);
        }
        self.room.ranges -= new_ranges.len();
        self.room.frontends = placed.room;
        self.delta.ended_ranges.extend(ended_ranges);
        self.delta.new_ranges.extend(new_ranges);
        self.give_up(placed.given_up);
        for other_ports in placed.withdrawn {
            self.end(other_ports);
        }
        let ids = self.make(sets, set_ids);
        for frontend in &placed.frontends {
            self.put(frontend, wanted.counter_id, &ids);
        }
        if placed.frontends.len() < wanted.dialled().count() {
            return Err(Lack::of(FullMap::Frontends, 1));
        }
        if wanted.has_beside() {
            self.served.insert(wanted.counter_id, ids);
        }
        Ok(())
    }

    /// Adds what stands beside the frontends of a service that was served. Call it after [`Draft::serve`] of all:
    /// what is left out leaves every connection served.
    ///
    /// # Errors
    /// A map has no room for all of it.
    pub fn serve_beside(&mut self, wanted: &Wanted<'_>, set_ids: &mut Ids) -> Result<(), Lack> {
        let known = self.known_sets(wanted);
        let mut ids = self.served.remove(&wanted.counter_id).unwrap_or_default();
        let mut result = Ok(());
        for frontend in wanted.beside() {
            let is_new = self.held(&frontend.key).is_none();
            let mut sets = Sets { ids, ..Sets::default() };
            for (set, table) in frontend.sets() {
                sets.add(set, table, &known);
            }
            let is_full = is_new && self.room.frontends == 0;
            let room = if is_full { Err(Lack::beside()) } else { self.check(&sets) };
            match room {
                Ok(()) => {
                    self.room.frontends -= usize::from(is_new);
                    ids = self.make(sets, set_ids);
                    self.put(frontend, wanted.counter_id, &ids);
                }
                Err(lack) => {
                    // What it leads to now may serve no more.
                    self.end(frontend.key);
                    ids = sets.without_new();
                    result = Err(Lack { is_beside: true, ..lack });
                }
            }
        }
        result
    }

    /// What a frontend leads to, unless it is to go.
    fn held(&self, key: &FrontendKey) -> Option<FrontendValue> {
        if self.ended_frontends.contains(key) {
            return None;
        }
        self.actual.frontends().get(key).copied()
    }

    /// Removes a frontend; whether there was one.
    fn end(&mut self, frontend: FrontendKey) -> bool {
        let Some(old) = self.held(&frontend) else { return false };
        self.ended_frontends.insert(frontend);
        self.delta.ended_frontends.push(frontend);
        self.refer(&old, -1);
        true
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
    fn known_sets(&self, wanted: &Wanted<'_>) -> KnownSets<'a> {
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

    fn check(&self, Sets { slots, parts, .. }: &Sets<'_>) -> Result<(), Lack> {
        if *slots > self.room.slots {
            return Err(Lack::of(FullMap::Backends, *slots));
        }
        if *parts > self.room.parts {
            return Err(Lack::of(FullMap::Maglev, *parts));
        }
        Ok(())
    }

    /// Gives new sets their ids, and uses the room that [`Draft::check`] found.
    fn make(&mut self, sets: Sets<'_>, set_ids: &mut Ids) -> SetIds {
        let Sets { mut ids, new, shared, slots, parts } = sets;
        self.room.slots -= slots;
        self.room.parts -= parts;
        for (set, table) in new {
            let id = set_ids.allocate(|id| self.actual.holds_set(id));
            ids.insert(std::ptr::from_ref(set), id);
            self.delta.new_sets.push(NewSet { id, backends: BackendSet::clone(set), table });
        }
        self.delta.shared_sets.extend(shared);
        ids
    }

    fn put(&mut self, frontend: &WantedFrontend<'_>, counter_id: u32, ids: &SetIds) {
        let id = |set: Option<&BackendSet>| {
            set.and_then(|set| ids.get(&std::ptr::from_ref(set))).copied().unwrap_or_default()
        };
        let (set_id, local_set_id) = (id(frontend.set), id(frontend.local));
        let backends = frontend.set.map_or(0, |set| set.len());
        let backends = u16::try_from(backends).unwrap_or(u16::MAX);
        let value = FrontendValue { set_id, local_set_id, counter_id, backends, ..frontend.value };
        let old = self.held(&frontend.key);
        if old == Some(value) && !self.actual.is_spoilt(&frontend.key) {
            return;
        }
        if let Some(old) = old {
            self.refer(&old, -1);
        }
        self.refer(&value, 1);
        self.delta.frontends.push((frontend.key, value));
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
