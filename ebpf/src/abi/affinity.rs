//! Who may be a client of a service, and which backend a client met last.

use bytemuck::{Pod, Zeroable};

use super::Address;
use crate::packet::is_mapped;

/// A client of a service's port. Key of `affinities`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct AffinityKey {
    /// The client's address; for sockets, whose address is not chosen yet, the cookie of their
    /// network namespace and zeros.
    pub client: Address,
    /// The service, by its counters.
    pub counter_id: u32,
    /// The Service's own port, network byte order.
    pub service_port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// IP version of the backends: 4 or 6.
    pub version: u8,
}

/// The backend it met. Value of `affinities`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Affinity {
    /// The backend's address.
    pub address: Address,
    /// Its port, network byte order.
    pub port: [u8; 2],
    /// Its `BACKEND_*` flags.
    pub flags: u16,
    /// When the client last came, in seconds of the monotonic clock.
    pub seen_seconds: u32,
}

/// A range of addresses that may use a service's load balancer addresses. Key of the prefix trie
/// `source_ranges`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct SourceRangeKey {
    /// Bits of what follows that count.
    pub prefix_len: u32,
    /// The service, by its counters.
    pub counter_id: u32,
    /// The range's first address, or a client's.
    pub address: Address,
}

impl SourceRangeKey {
    /// Prefix length of a single address.
    pub const BITS: u32 = 32 + 128;

    /// IP version of a range whose bits behind its prefix are zero, 4 or 6: the value beside it.
    pub fn version(&self) -> u32 {
        if is_mapped(&self.address) { 4 } else { 6 }
    }

    /// Whether the longest range that covers `client` lets it in, by its [`version`](Self::version): `::/0` covers what is
    /// v4-mapped, but means IPv6 alone (kube-proxy sorts ranges by family). A range of IPv4 is longer than any such.
    #[inline(always)]
    pub fn lets_in(version: u32, client: &Address) -> bool {
        // Not by ways: the verifier goes each to its end.
        (version == 4) | !is_mapped(client)
    }
}

const _: () = assert!(size_of::<AffinityKey>() == 24);
const _: () = assert!(size_of::<Affinity>() == 24);
const _: () = assert!(size_of::<SourceRangeKey>() == 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::mapped;

    #[test]
    fn a_range_lets_in_clients_of_its_own_family_alone() {
        let (ipv4, ipv6) = (mapped([203, 0, 113, 7]), [0xfd; 16]);
        for (what, bits, address, lets_in_ipv4, lets_in_ipv6) in [
            ("203.0.113.0/24", 96 + 24, mapped([203, 0, 113, 0]), true, true),
            ("0.0.0.0/0", 96, mapped([0; 4]), true, true),
            ("::/0", 0, [0; 16], false, true),
            (
                "::fffe:0:0/95",
                95,
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0, 0],
                false,
                true,
            ),
            ("fd00::/8", 8, [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false, true),
        ] {
            let range = SourceRangeKey { prefix_len: 32 + bits, counter_id: 1, address };
            let lets_in = |client| SourceRangeKey::lets_in(range.version(), client);
            // That no range of IPv4 covers a client of IPv6 is for the look-up to see.
            assert_eq!((lets_in(&ipv4), lets_in(&ipv6)), (lets_in_ipv4, lets_in_ipv6), "{what}");
        }
    }
}
