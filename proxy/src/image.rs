//! Everything the service maps hold.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_ebpf::abi::{
    Backend, BackendKey, FrontendEntry, FrontendKey, MaglevKey, MaglevPart, SourceRangeKey,
};

use crate::port_range::PortRange;

/// The content of the service maps at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What clients dial.
    pub frontends: BTreeMap<FrontendKey, FrontendEntry>,
    /// Where it leads.
    pub backends: BTreeMap<BackendKey, Backend>,
    /// Which of it a flow gets, for sets with a table.
    pub maglev: BTreeMap<MaglevKey, MaglevPart>,
    /// Who may dial it.
    pub source_ranges: BTreeSet<SourceRangeKey>,
    /// Where NodePorts are looked for.
    pub node_ports: PortRange,
    /// Which ports source translation may use.
    pub source_ports: PortRange,
}

/// One entry of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What clients dial.
    Frontend(FrontendKey, FrontendEntry),
    /// Where it leads.
    Backend(BackendKey, Backend),
    /// Which of it a flow gets.
    Maglev(MaglevKey, MaglevPart),
    /// Who may dial it.
    SourceRange(SourceRangeKey),
    /// Where NodePorts are looked for; there is one.
    NodePorts(PortRange),
    /// Which ports source translation may use; there is one.
    SourcePorts(PortRange),
}

impl Image {
    /// Adds an entry, or replaces the one under its key.
    pub fn insert(&mut self, entry: Entry) {
        match entry {
            Entry::Frontend(key, entry) => _ = self.frontends.insert(key, entry),
            Entry::Backend(key, value) => _ = self.backends.insert(key, value),
            Entry::Maglev(key, part) => _ = self.maglev.insert(key, part),
            Entry::SourceRange(key) => _ = self.source_ranges.insert(key),
            Entry::NodePorts(range) => self.node_ports = range,
            Entry::SourcePorts(range) => self.source_ports = range,
        }
    }

    /// Every entry, frontends after all they lead to.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let frontends = self.frontends.iter().map(|(key, entry)| Entry::Frontend(*key, *entry));
        let backends = self.backends.iter().map(|(key, value)| Entry::Backend(*key, *value));
        let maglev = self.maglev.iter().map(|(key, part)| Entry::Maglev(*key, *part));
        let ranges = self.source_ranges.iter().map(|key| Entry::SourceRange(*key));
        let ports = [Entry::NodePorts(self.node_ports), Entry::SourcePorts(self.source_ports)];
        backends.chain(maglev).chain(ranges).chain(ports).chain(frontends)
    }
}

/// How many entries the maps take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacities {
    /// Frontends.
    pub frontends: usize,
    /// Backend slots.
    pub backends: usize,
    /// Parts of Maglev tables.
    pub maglev: usize,
    /// Source ranges.
    pub source_ranges: usize,
    /// Services that are counted, by ids below this.
    pub counters: usize,
}
