//! What the programs must know about the node.

use bytemuck::{Pod, Zeroable};

use super::Address;
use crate::select::scale;

/// The one index of the array map `settings`.
pub const SETTINGS_INDEX: u32 = 0;

/// The node, as the programs see it. Value of `settings`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// `SO_NETNS_COOKIE` of the node's own network namespace: only there do loopback addresses
    /// mean the node.
    pub netns_cookie: u64,
    /// Source address towards IPv4 backends on other nodes where the client dialled no node
    /// address; all zero: none.
    pub address_v4: Address,
    /// The same for IPv6.
    pub address_v6: Address,
    /// First port of the NodePort range, native byte order.
    pub node_port_first: u16,
    /// Last port of the NodePort range, inclusive.
    pub node_port_last: u16,
    /// First port of the range for source translation.
    pub snat_port_first: u16,
    /// Last port of the range for source translation, inclusive.
    pub snat_port_last: u16,
}

impl Settings {
    /// Whether a NodePort may be meant. Ports outside cost the programs no further look-up.
    #[inline(always)]
    pub fn is_node_port(&self, port: [u8; 2]) -> bool {
        let port = u16::from_be_bytes(port);
        self.node_port_first <= port && port <= self.node_port_last
    }

    /// One of the ports for source translation, in network byte order; `random` decides which.
    #[inline(always)]
    pub fn snat_port(&self, random: u32) -> [u8; 2] {
        let span = u32::from(self.snat_port_last.saturating_sub(self.snat_port_first));
        let offset = u16::try_from(scale(random, span + 1)).unwrap_or_default();
        self.snat_port_first.wrapping_add(offset).to_be_bytes()
    }
}

const _: () = assert!(size_of::<Settings>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(node: (u16, u16), snat: (u16, u16)) -> Settings {
        Settings {
            node_port_first: node.0,
            node_port_last: node.1,
            snat_port_first: snat.0,
            snat_port_last: snat.1,
            ..Settings::zeroed()
        }
    }

    #[test]
    fn node_port_range_is_inclusive() {
        let settings = settings((30000, 32767), (61000, 65535));
        for (port, expected) in
            [(29999u16, false), (30000, true), (32767, true), (32768, false), (80, false)]
        {
            assert_eq!(settings.is_node_port(port.to_be_bytes()), expected, "{port}");
        }
    }

    #[test]
    fn snat_ports_cover_their_range_and_never_leave_it() {
        for (first, last) in [(61000u16, 65535u16), (40000, 40000), (1, 65535)] {
            let settings = settings((1, 0), (first, last));
            let port = |random| u16::from_be_bytes(settings.snat_port(random));
            assert_eq!(port(0), first);
            assert_eq!(port(u32::MAX), last);
            assert!((first..=last).contains(&port(0x8000_0000)));
        }
    }
}
