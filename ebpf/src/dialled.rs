//! What a dialled address is to the services: the same answer for the programs, which dial, and for
//! whoever explains what they would do.

use crate::{
    abi::{
        ANY_V4, ANY_V6, Address, FRONTEND_FOREIGN, FrontendEntry, FrontendKey, FrontendValue,
        SETTINGS_LOOPBACK_V4, SETTINGS_LOOPBACK_V6, Settings,
    },
    packet::is_mapped,
};

/// The maps a look-up needs.
pub trait Tables {
    /// What a frontend leads to; certainly this frontend's.
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendEntry>;
    /// The frontend that stands for every other port of an address.
    fn other_ports(&self, key: &FrontendKey) -> Option<FrontendValue>;
    /// The node's settings; `None` before the agent wrote any.
    fn settings(&self) -> Option<&Settings>;
    /// Whether NodePorts answer on the address, loopback aside.
    fn has_node_ports(&self, address: &Address) -> bool;
    /// Whether the address is one of the node's own, loopback aside.
    fn is_own(&self, address: &Address) -> bool;
}

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A frontend, under this key.
    Frontend(FrontendKey, FrontendEntry),
    /// A port that the service at this address does not have; its frontend for other ports.
    UnusedPort(FrontendValue),
    /// An address of the Service CIDR that no service has.
    Unallocated,
    /// None of theirs.
    Nothing,
}

/// Looks up what is dialled: a frontend, exact or the NodePort of any node address, or what is left
/// of service addresses. `is_own_namespace` decides whether loopback addresses mean the node.
#[inline(always)]
pub fn find<T: Tables>(
    tables: &T,
    dialled: &FrontendKey,
    is_own_namespace: impl FnOnce() -> bool,
) -> Found {
    // The unspecified address is a NodePort's key, but what is dialled by it is loopback.
    let is_unspecified = dialled.address == ANY_V4 || dialled.address == ANY_V6;
    if !is_unspecified && let Some(frontend) = tables.frontend(dialled) {
        return Found::Frontend(*dialled, frontend);
    }
    let Some(settings) = tables.settings() else { return Found::Nothing };
    if settings.is_node_port(dialled.port) {
        let is_node = tables.has_node_ports(&dialled.address)
            || (is_this_host(&dialled.address, settings.flags) && is_own_namespace());
        // Not by `as_node_port`: that makes 12,000 instructions more of sendmsg6 for the verifier.
        let address = if is_mapped(&dialled.address) { ANY_V4 } else { ANY_V6 };
        let key = FrontendKey { address, ..*dialled };
        if is_node && let Some(frontend) = tables.frontend(&key) {
            return Found::Frontend(key, frontend);
        }
    }
    if let Some(frontend) = tables.other_ports(&FrontendKey::other_ports(dialled.address)) {
        if frontend.flags & FRONTEND_FOREIGN != 0 {
            return Found::Nothing;
        }
        return Found::UnusedPort(frontend);
    }
    // Whatever range the cluster says: the node itself is no address that a Service lacks.
    if settings.is_service_address(&dialled.address) && !tables.is_own(&dialled.address) {
        return Found::Unallocated;
    }
    Found::Nothing
}

/// The address by which a source range is checked for the node's own processes: the one the node is
/// known by.
#[inline(always)]
pub fn node_identity(settings: &Settings, key: &FrontendKey) -> Address {
    if is_mapped(&key.address) { settings.address_v4 } else { settings.address_v6 }
}

/// Loopback, or unspecified, which dials loopback, where NodePorts answer there.
#[inline(always)]
fn is_this_host(address: &Address, flags: u32) -> bool {
    const LOOPBACK_V6: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    if is_mapped(address) {
        return flags & SETTINGS_LOOPBACK_V4 != 0 && (address[12] == 127 || *address == ANY_V4);
    }
    flags & SETTINGS_LOOPBACK_V6 != 0 && (*address == LOOPBACK_V6 || *address == ANY_V6)
}
