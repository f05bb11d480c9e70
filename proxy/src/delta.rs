//! From what the maps hold to what they must hold, in an order that readers never notice.
//!
//! A reader looks a frontend up and then a slot of its set, by the set's table if it has one. So a
//! set is whole before a frontend leads to it, is never changed, and goes when no frontend leads to
//! it any more: what replaces it is a new set under a new id.

mod actual;
mod draft;
mod ids;
mod room;

use std::fmt;

use bytemuck::Zeroable;
use fairlead_ebpf::abi::{
    Backend, BackendKey, FirstBackends, FrontendEntry, FrontendKey, FrontendValue, MaglevKey,
    MaglevPart, SourceRangeKey, TableSize,
};

pub use self::{
    actual::{Actual, Check, Reading},
    draft::Draft,
    ids::Ids,
    room::{Lack, Room},
};
use crate::{
    hash::FastMap,
    maglev,
    plan::{BackendSet, Lead},
    port_range::PortRange,
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
    /// Those beside frontends that make room for what is dialled.
    given_up: Vec<FrontendKey>,
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

impl<'a> Wanted<'a> {
    /// What clients dial.
    fn dialled(&self) -> impl Iterator<Item = &WantedFrontend<'a>> {
        self.frontends.iter().filter(|frontend| !is_beside(&frontend.key))
    }

    /// What stands beside some of that for flows of datagrams: [`FrontendKey::serving`].
    fn beside(&self) -> impl Iterator<Item = &WantedFrontend<'a>> {
        self.frontends.iter().filter(|frontend| is_beside(&frontend.key))
    }

    /// Whether there is anything for [`Draft::serve_beside`].
    pub fn has_beside(&self) -> bool {
        self.beside().next().is_some()
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

impl Delta {
    /// Whether nothing needs to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What stood beside frontends and made room for others'.
    pub fn given_up(&self) -> &[FrontendKey] {
        &self.given_up
    }

    fn all_ended(&self) -> impl Iterator<Item = &FrontendKey> {
        self.ended_frontends.iter().chain(&self.given_up)
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
        let (beside, mut dialled): (Vec<_>, Vec<_>) = ended.partition(is_beside);
        // But for these: without their places somebody would be served by nothing.
        dialled.extend(&self.given_up);
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
        let (beside, dialled): (Vec<_>, Vec<_>) =
            self.frontends.iter().partition(|(key, _)| is_beside(key));
        beside.into_iter().chain(dialled).map(entry).collect()
    }
}

/// Whether it stands beside a frontend: nobody dials it.
fn is_beside(key: &FrontendKey) -> bool {
    key.is_serving_of().is_some()
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

#[cfg(test)]
mod tests;
