//! Everything the service maps hold.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_ebpf::abi::{Backend, BackendKey, FrontendKey, FrontendValue, SourceRangeKey};

/// The content of the service maps at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What clients dial.
    pub frontends: BTreeMap<FrontendKey, FrontendValue>,
    /// Where it leads.
    pub backends: BTreeMap<BackendKey, Backend>,
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
    /// Counters.
    pub counters: usize,
}
