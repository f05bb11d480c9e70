//! Who may be a client of a service, and which backend a client met last.

use bytemuck::{Pod, Zeroable};

use super::Address;

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
}

const _: () = assert!(size_of::<AffinityKey>() == 24);
const _: () = assert!(size_of::<Affinity>() == 24);
const _: () = assert!(size_of::<SourceRangeKey>() == 24);
