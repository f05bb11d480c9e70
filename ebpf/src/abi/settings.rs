//! What the programs must know about the node.

use bytemuck::{Pod, Zeroable};

use super::Address;
use crate::select::{flow, scale};

/// The one index of the array map `settings`.
pub const SETTINGS_INDEX: u32 = 0;

/// The node, as the programs see it. Value of `settings`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// `SO_NETNS_COOKIE` of the node's own network namespace: only there do loopback addresses
    /// mean the node.
    pub netns_cookie: u64,
    /// Source address towards IPv4 backends on other nodes where the kernel cannot say which is that of
    /// the route; all zero: none.
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
    /// `SETTINGS_*`.
    pub flags: u32,
    /// How many of `service_cidrs` there are.
    pub service_cidr_count: u32,
    /// Counters that each CPU has in `service_counters`.
    pub counters_per_cpu: u32,
    /// Services of which each CPU has bytes in `service_bytes`; 0: they are not counted.
    pub bytes_per_cpu: u32,
    /// Where ClusterIPs come from: what is in them and not allotted is dropped.
    pub service_cidrs: [Cidr; CIDRS_MAX],
    /// Devices, by index, whose packets begin with their IP header; 0 after the last.
    pub bare_devices: [u32; BARE_DEVICES_MAX],
}

/// NodePorts answer on IPv4 loopback addresses.
pub const SETTINGS_LOOPBACK_V4: u32 = 1;
/// NodePorts answer on `::1`.
pub const SETTINGS_LOOPBACK_V6: u32 = 2;
/// Every packet to a service gets the node's address, whoever sends it, but for those that come by an external address
/// under `externalTrafficPolicy: Local`.
pub const SETTINGS_MASQUERADE_ALL: u32 = 4;
/// Sockets of other network namespaces than the node's are left alone: their packets are met at their devices.
pub const SETTINGS_NODE_SOCKETS: u32 = 8;
/// Flag in `node_addresses`: the address is the node's own.
pub const NODE_ADDRESS_OWN: u32 = 1;
/// Flag in `node_addresses`: NodePorts answer on it.
pub const NODE_ADDRESS_PORTS: u32 = 2;
/// Service CIDRs that are known to the programs.
pub const CIDRS_MAX: usize = 16;
/// Devices without an Ethernet header that are known to the programs.
pub const BARE_DEVICES_MAX: usize = 8;

/// An address range.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Cidr {
    /// Its first address.
    pub address: [u64; 2],
    /// Ones where addresses must agree with it.
    pub mask: [u64; 2],
}

impl Cidr {
    /// The range of `address` with the first `prefix_len` bits; 96 more for IPv4 as v4-mapped.
    pub fn new(address: Address, prefix_len: u32) -> Self {
        let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix_len)).unwrap_or(0);
        let mask: [u64; 2] = bytemuck::cast(mask.to_be_bytes());
        let address: [u64; 2] = bytemuck::cast(address);
        Self { address: [address[0] & mask[0], address[1] & mask[1]], mask }
    }

    /// Whether `address` is in it.
    #[inline(always)]
    pub fn contains(&self, address: &Address) -> bool {
        let address: [u64; 2] = bytemuck::cast(*address);
        address[0] & self.mask[0] == self.address[0] && address[1] & self.mask[1] == self.address[1]
    }
}

impl Settings {
    /// Whether a NodePort may be meant. Ports outside cost the programs no further look-up.
    #[inline(always)]
    pub fn is_node_port(&self, port: [u8; 2]) -> bool {
        let port = u16::from_be_bytes(port);
        self.node_port_first <= port && port <= self.node_port_last
    }

    /// Whether the device's packets have no Ethernet header.
    #[inline(always)]
    pub fn is_bare(&self, device: u32) -> bool {
        for bare in &self.bare_devices {
            if *bare == 0 {
                return false;
            }
            if *bare == device {
                return true;
            }
        }
        false
    }

    /// Whether the address is one ClusterIPs are taken from.
    #[inline(always)]
    pub fn is_service_address(&self, address: &Address) -> bool {
        for (index, cidr) in (0u32..).zip(&self.service_cidrs) {
            if index >= self.service_cidr_count {
                return false;
            }
            if cidr.contains(address) {
                return true;
            }
        }
        false
    }

    /// The port a client's connection is translated to first, in network byte order. Each port of one
    /// client has its own, as many as there are: however fast a client opens connections, its own
    /// earlier ones are not in the way, and a port that is used again meets the entries of before.
    #[inline(always)]
    pub fn snat_port_of(&self, client: &Address, port: [u8; 2]) -> [u8; 2] {
        let start = flow(client, [0; 2], 0) >> u16::BITS;
        self.nth_snat_port((start + u32::from(u16::from_be_bytes(port))) % self.snat_ports())
    }

    /// Any of the ports for source translation, in network byte order; `random` decides which.
    #[inline(always)]
    pub fn snat_port(&self, random: u32) -> [u8; 2] {
        self.nth_snat_port(scale(random, self.snat_ports()))
    }

    #[inline(always)]
    fn snat_ports(&self) -> u32 {
        u32::from(self.snat_port_last.saturating_sub(self.snat_port_first)) + 1
    }

    #[inline(always)]
    fn nth_snat_port(&self, n: u32) -> [u8; 2] {
        let offset = u16::try_from(n).unwrap_or_default();
        self.snat_port_first.wrapping_add(offset).to_be_bytes()
    }
}

const _: () = assert!(size_of::<Settings>() == 64 + 32 * CIDRS_MAX + 4 * BARE_DEVICES_MAX);

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
    fn devices_without_an_ethernet_header_are_those_before_the_first_gap() {
        let mut settings = settings((1, 0), (1, 1));
        assert!(!settings.is_bare(1));
        settings.bare_devices = [7, 9, 0, 11, 0, 0, 0, 0];
        assert_eq!(
            [7, 8, 9, 11].map(|device| settings.is_bare(device)),
            [true, false, true, false]
        );
        settings.bare_devices = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!([8, 9].map(|device| settings.is_bare(device)), [true, false]);
    }

    #[test]
    fn service_addresses_are_those_of_the_first_cidrs() {
        use crate::packet::mapped;
        let mut settings = settings((1, 0), (1, 1));
        settings.service_cidrs[0] = Cidr::new(mapped([10, 96, 3, 4]), 96 + 12);
        settings.service_cidrs[1] = Cidr::new([0xfd; 16], 112);
        settings.service_cidrs[2] = Cidr::new([0; 16], 0);
        settings.service_cidr_count = 2;
        let mut last = [0xfd; 16];
        last[15] = 1;
        for (address, expected) in [
            (mapped([10, 96, 0, 0]), true),
            (mapped([10, 111, 255, 255]), true),
            (mapped([10, 112, 0, 0]), false),
            (last, true),
            ([0xfe; 16], false),
        ] {
            assert_eq!(settings.is_service_address(&address), expected, "{address:?}");
        }
        settings.service_cidr_count = 3;
        assert!(settings.is_service_address(&[0xfe; 16]), "a range may be everything");
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

    #[test]
    fn ports_of_one_client_are_translated_to_as_many_others() {
        let client = |last: u8| crate::packet::mapped([203, 0, 113, last]);
        for (first, last) in [(1024u16, 29999u16), (61000, 61063), (40000, 40000)] {
            let settings = settings((1, 0), (first, last));
            for client in (1..=50).map(client) {
                let ports = (32_768u16..).take(usize::from(last - first) + 1);
                let translated: std::collections::BTreeSet<u16> = ports
                    .map(|port| settings.snat_port_of(&client, port.to_be_bytes()))
                    .map(u16::from_be_bytes)
                    .collect();
                assert!(translated.iter().copied().eq(first..=last), "{client:?}");
            }
        }
        let settings = settings((1, 0), (1024, 29999));
        let of = |client| settings.snat_port_of(&client, [0x9c, 0x40]);
        assert_ne!(of(client(1)), of(client(2)), "clients begin in different places");
    }
}
