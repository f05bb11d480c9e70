//! From what the maps hold to what they must hold, in an order that readers never notice.

use fairlead_ebpf::abi::{Backend, BackendKey, FrontendKey, FrontendValue};

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
    /// Counters of new services.
    PutCounters(Vec<u32>),
    /// Counters of services that are no more.
    DeleteCounters(Vec<u32>),
}
