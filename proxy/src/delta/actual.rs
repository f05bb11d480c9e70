//! Bookkeeping: what the maps hold.

mod read;

use std::collections::{BTreeMap, BTreeSet};

use fairlead_ebpf::abi::{
    Backend, BackendKey, FirstBackends, FrontendKey, FrontendValue, MaglevKey, MaglevPart,
    SourceRangeKey, TableSize,
};

pub use self::read::{Check, Reading};
use super::{Delta, NewSet, is_beside};
use crate::{
    hash::{FastMap, FastSet},
    maglev,
    plan::BackendSet,
    port_range::{PortRange, node_port},
};

/// What the maps hold, arranged by set.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    frontends: FastMap<FrontendKey, FrontendValue>,
    /// Of these the first backends were found to be others than their sets'.
    spoilt: FastSet<FrontendKey>,
    sets: FastMap<u32, HeldSet>,
    slots: usize,
    parts: usize,
    /// Sets no frontend leads to, found when the maps were read.
    orphans: BTreeSet<u32>,
    /// By counter id; no entry without one.
    ranges: FastMap<u32, BTreeSet<SourceRangeKey>>,
    ranges_count: usize,
    /// How many frontends each NodePort has: by family and protocol.
    node_ports: BTreeMap<u16, u32>,
    /// Where programs look for NodePorts.
    sought: PortRange,
    source_ports: PortRange,
    /// They were chosen by these NodePorts, not read.
    is_clear: bool,
    /// How many frontends are beside others.
    beside: usize,
}

/// Frontends of NodePorts that a delta adds and removes, by port.
#[derive(Debug)]
pub(super) struct NodePortChange {
    ended: FastMap<u16, u32>,
    new: BTreeSet<u16>,
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
    /// Its table, which has the slots it must have.
    table: Option<TableSize>,
    /// Frontends that lead to it.
    references: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Whole(BackendSet),
    /// Slots are missing, or the table is none of this set's: good for nothing but removal.
    Broken(Box<Remains>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Remains {
    slots: Vec<u32>,
    parts: Vec<u32>,
}

impl HeldSet {
    /// From what was read of it, in no order.
    fn of(mut slots: Vec<(u32, Backend)>, mut parts: Vec<(u32, MaglevPart)>) -> Self {
        slots.sort_unstable_by_key(|(slot, _)| *slot);
        parts.sort_unstable_by_key(|(part, _)| *part);
        let table = maglev::size_of(parts.len());
        let set: BackendSet = slots.iter().map(|(_, backend)| *backend).collect();
        let is_whole = slots.iter().zip(0..).all(|((slot, _), expected)| *slot == expected)
            && !slots.is_empty()
            && (parts.is_empty() || table.is_some_and(|size| is_table(&parts, &set, size)));
        let content = if is_whole {
            Content::Whole(set)
        } else {
            let slots = slots.into_iter().map(|(slot, _)| slot).collect();
            let parts = parts.into_iter().map(|(part, _)| part).collect();
            Content::Broken(Box::new(Remains { slots, parts }))
        };
        Self { content, table: table.filter(|_| is_whole), references: 0 }
    }

    fn slots(&self) -> usize {
        match &self.content {
            Content::Whole(set) => set.len(),
            Content::Broken(remains) => remains.slots.len(),
        }
    }

    fn parts(&self) -> usize {
        match &self.content {
            Content::Whole(_) => self.table.map_or(0, |size| size.parts() as usize),
            Content::Broken(remains) => remains.parts.len(),
        }
    }
}

/// Whether these are a set's table; sorted.
fn is_table(parts: &[(u32, MaglevPart)], set: &[Backend], size: TableSize) -> bool {
    let expected = maglev::parts(set, size).into_iter().zip(0..);
    expected.eq(parts.iter().map(|(number, part)| (*part, *number)))
}

/// Whether a port has frontends left.
fn stays(ended: &FastMap<u16, u32>, port: u16, count: u32) -> bool {
    ended.get(&port).is_none_or(|ended| *ended < count)
}

impl NodePortChange {
    pub(super) fn of(actual: &Actual, delta: &Delta) -> Self {
        let mut ended: FastMap<u16, u32> = FastMap::default();
        for port in delta.all_ended().filter_map(node_port) {
            *ended.entry(port).or_default() += 1;
        }
        let put = delta.frontends.iter().filter_map(|(key, _)| Some((key, node_port(key)?)));
        let is_new = |key: &FrontendKey, port: u16| {
            !actual.frontends.contains_key(key) || ended.contains_key(&port)
        };
        let new = put.filter(|(key, port)| is_new(key, *port)).map(|(_, port)| port).collect();
        Self { ended, new }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.new.is_empty()
    }

    /// All NodePorts afterwards.
    pub(super) fn after(&self, actual: &Actual) -> BTreeSet<u16> {
        let kept =
            actual.node_ports.iter().filter(|(port, count)| stays(&self.ended, **port, **count));
        kept.map(|(port, _)| *port).chain(self.new.iter().copied()).collect()
    }
}

impl Actual {
    /// Every frontend.
    pub fn frontends(&self) -> &FastMap<FrontendKey, FrontendValue> {
        &self.frontends
    }

    /// Whether a frontend must be written again, whatever it leads to.
    pub(super) fn is_spoilt(&self, key: &FrontendKey) -> bool {
        self.spoilt.contains(key)
    }

    /// Ids of all sets.
    pub fn set_ids(&self) -> impl Iterator<Item = u32> {
        self.sets.keys().copied()
    }

    /// Source ranges of one service, by its counters.
    pub(super) fn ranges_of(&self, counter_id: u32) -> impl Iterator<Item = SourceRangeKey> {
        self.ranges.get(&counter_id).into_iter().flatten().copied()
    }

    pub(super) fn holds_range(&self, range: &SourceRangeKey) -> bool {
        self.ranges.get(&range.counter_id).is_some_and(|ranges| ranges.contains(range))
    }

    /// How many source ranges all services have together.
    pub fn ranges(&self) -> usize {
        self.ranges_count
    }

    /// Counter ids that have source ranges.
    pub fn limited(&self) -> impl Iterator<Item = u32> {
        self.ranges.keys().copied()
    }

    /// Where programs look for NodePorts.
    pub fn node_ports(&self) -> PortRange {
        self.sought
    }

    /// Where they must look once a delta's steps are made.
    pub(super) fn node_ports_after(&self, delta: &Delta) -> PortRange {
        let NodePortChange { ended, new } = NodePortChange::of(self, delta);
        let stays = |(port, count): &(&u16, &u32)| stays(&ended, **port, **count);
        let first = self.node_ports.iter().find(stays);
        let last = self.node_ports.iter().rev().find(stays);
        let kept = first
            .zip(last)
            .map_or(PortRange::NONE, |((first, _), (last, _))| PortRange::new(*first, *last));
        kept.with(new.into_iter().collect())
    }

    /// Which ports source translation may use.
    pub fn source_ports(&self) -> PortRange {
        self.source_ports
    }

    /// Whether they are certainly those between the NodePorts.
    pub(super) fn is_clear_of_node_ports(&self) -> bool {
        self.is_clear
    }

    /// How many frontends are beside others: [`FrontendKey::serving`].
    pub fn beside(&self) -> usize {
        self.beside
    }

    /// How many slots all sets have together.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// How many parts all tables have together.
    pub fn parts(&self) -> usize {
        self.parts
    }

    pub(super) fn holds_set(&self, id: u32) -> bool {
        self.sets.contains_key(&id)
    }

    /// The content of a set and the size of its table, if it has no holes.
    pub(super) fn set(&self, id: u32) -> Option<(&BackendSet, Option<TableSize>)> {
        let HeldSet { content, table, .. } = self.sets.get(&id)?;
        match content {
            Content::Whole(set) => Some((set, *table)),
            Content::Broken(_) => None,
        }
    }

    /// What must be beside a frontend that leads there; `None`: its set has holes, or is not there.
    pub(super) fn first(&self, key: &FrontendKey, value: &FrontendValue) -> Option<FirstBackends> {
        let set: &[Backend] = match value.backends {
            0 => &[],
            _ => self.set(value.set_id)?.0,
        };
        Some(FirstBackends::of(key, set.iter().copied()))
    }

    pub(super) fn references(&self, id: u32) -> Option<i64> {
        self.sets.get(&id).map(|set| i64::from(set.references))
    }

    pub(super) fn orphans(&self) -> impl Iterator<Item = u32> {
        self.orphans.iter().copied()
    }

    pub(super) fn slots_of(&self, id: u32) -> impl Iterator<Item = BackendKey> {
        let (whole, broken) = match self.sets.get(&id).map(|set| &set.content) {
            Some(Content::Whole(set)) => (set.len(), [].as_slice()),
            Some(Content::Broken(remains)) => (0, remains.slots.as_slice()),
            None => (0, [].as_slice()),
        };
        let slots = (0u32..).take(whole).chain(broken.iter().copied());
        slots.map(move |slot| BackendKey { set_id: id, slot })
    }

    pub(super) fn parts_of(&self, id: u32) -> impl Iterator<Item = MaglevKey> {
        let set = self.sets.get(&id);
        let (whole, broken) = match set.map(|set| (&set.content, set.table)) {
            Some((Content::Whole(_), Some(size))) => (size.parts(), [].as_slice()),
            Some((Content::Broken(remains), _)) => (0, remains.parts.as_slice()),
            _ => (0, [].as_slice()),
        };
        let parts = (0..whole).chain(broken.iter().copied());
        parts.map(move |part| MaglevKey { set_id: id, part })
    }

    /// Takes note of a delta all of whose steps were made.
    pub fn commit(&mut self, delta: &Delta) {
        self.sought = self.node_ports_after(delta);
        self.source_ports = delta.source_ports.unwrap_or(self.source_ports);
        self.is_clear = true;
        for key in delta.all_ended() {
            self.spoilt.remove(key);
            if let Some(old) = self.frontends.remove(key) {
                self.unrefer(&old);
                self.drop_node_port(key);
                self.beside -= usize::from(is_beside(key));
            }
        }
        for NewSet { id, backends, table } in &delta.new_sets {
            let content = Content::Whole(backends.clone());
            let set = HeldSet { content, table: *table, references: 0 };
            self.slots += set.slots();
            self.parts += set.parts();
            self.sets.insert(*id, set);
        }
        for (id, set) in &delta.shared_sets {
            if let Some(HeldSet { content: Content::Whole(held), .. }) = self.sets.get_mut(id) {
                held.clone_from(set);
            }
        }
        for (key, value) in &delta.frontends {
            self.spoilt.remove(key);
            for id in sets_of(value) {
                if let Some(set) = self.sets.get_mut(&id) {
                    set.references += 1;
                }
            }
            match self.frontends.insert(*key, *value) {
                Some(old) => self.unrefer(&old),
                None => {
                    self.add_node_port(key);
                    self.beside += usize::from(is_beside(key));
                }
            }
        }
        for range in &delta.ended_ranges {
            if let Some(ranges) = self.ranges.get_mut(&range.counter_id) {
                self.ranges_count -= usize::from(ranges.remove(range));
                if ranges.is_empty() {
                    self.ranges.remove(&range.counter_id);
                }
            }
        }
        for range in &delta.new_ranges {
            let ranges = self.ranges.entry(range.counter_id).or_default();
            self.ranges_count += usize::from(ranges.insert(*range));
        }
        for id in &delta.ended_sets {
            self.orphans.remove(id);
            if let Some(set) = self.sets.remove(id) {
                self.slots -= set.slots();
                self.parts -= set.parts();
            }
        }
    }

    fn add_node_port(&mut self, key: &FrontendKey) {
        if let Some(port) = node_port(key) {
            *self.node_ports.entry(port).or_default() += 1;
        }
    }

    fn drop_node_port(&mut self, key: &FrontendKey) {
        let Some(port) = node_port(key) else { return };
        if let Some(count) = self.node_ports.get_mut(&port) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.node_ports.remove(&port);
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
}
