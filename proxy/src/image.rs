//! Everything the service maps hold.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_ebpf::abi::{
    Backend, BackendKey, FrontendKey, FrontendValue, MaglevKey, MaglevPart, SourceRangeKey,
};

/// The content of the service maps at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What clients dial.
    pub frontends: BTreeMap<FrontendKey, FrontendValue>,
    /// Where it leads.
    pub backends: BTreeMap<BackendKey, Backend>,
    /// Which of it a flow gets, for sets with a table.
    pub maglev: BTreeMap<MaglevKey, MaglevPart>,
    /// Who may dial it.
    pub source_ranges: BTreeSet<SourceRangeKey>,
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
    /// Counters.
    pub counters: usize,
}
