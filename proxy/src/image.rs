//! Everything the service maps hold.

use std::collections::BTreeMap;

use fairlead_ebpf::abi::{Backend, BackendKey, FrontendKey, FrontendValue};

/// The content of the service maps at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What clients dial.
    pub frontends: BTreeMap<FrontendKey, FrontendValue>,
    /// Where it leads.
    pub backends: BTreeMap<BackendKey, Backend>,
}
