//! Keys and values of the kernel maps: the contract between programs and agent.
//!
//! Every field is a byte array in network order or a native integer; there is no implicit padding
//! (the `Pod` derive refuses it: the kernel compares keys as bytes). What is made of bytes is aligned
//! all the same: the target has no unaligned access, so the compiler would copy it byte by byte. A
//! map's name ends in the version of its own layout: another layout is another name, so that an old
//! program never reads a new value, and a map whose layout stays keeps its content over an upgrade.

mod affinity;
mod connection;
mod datagram;
mod event;
mod frontend;
mod maglev;
mod reason;
mod settings;

use bytemuck::{Pod, Zeroable};

pub use affinity::{Affinity, AffinityKey, SourceRangeKey};
pub use connection::{
    CONNECTION_ACKNOWLEDGED, CONNECTION_ANSWERED, CONNECTION_ASKED, CONNECTION_ASSURED,
    CONNECTION_COUNTED, CONNECTION_DOUBTED, CONNECTION_FIN, CONNECTION_MASQUERADED,
    CONNECTION_NUMBERED, CONNECTION_OTHER_FIN, CONNECTION_REPLY, CONNECTION_RESET,
    CONNECTION_UNANSWERED, Connection, EGRESS, FragmentKey, FragmentPorts, INGRESS, SocketPeer,
    Tuple,
};
pub use datagram::{DatagramFlow, PeerKey};
pub use event::{
    EVENT_AT_EGRESS, EVENT_AT_POD, EVENT_AT_SOCKET, EVENT_AT_UPLINK, EVENT_DROPPED,
    EVENT_NO_REASON, EVENT_PASSED, EVENT_REJECTED, EVENT_SERVED, EVENTS_BYTES, Event, LIVE_CLIENT,
    LIVE_INDEX, LIVE_TARGET, Live,
};
pub use frontend::{
    FIRST_BACKENDS_MAX, FRONTEND_DROPS, FRONTEND_EXTERNAL, FRONTEND_FOREIGN, FRONTEND_LOCAL,
    FRONTEND_MAGLEV, FRONTEND_SOURCE_RANGES, FirstBackends, FrontendEntry, FrontendKey,
    FrontendValue,
};
pub use maglev::{MaglevKey, MaglevPart, PART_PLACES, TableSize};
pub use reason::Reason;
pub use settings::{
    BARE_DEVICES_MAX, CIDRS_MAX, Cidr, NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS, SETTINGS_INDEX,
    SETTINGS_LOOPBACK_V4, SETTINGS_LOOPBACK_V6, SETTINGS_MASQUERADE_ALL, SETTINGS_NODE_SOCKETS,
    Settings,
};

/// Names of the maps, each ending in the version of its layout.
///
/// The ids in frontends are those of sets, tables, ranges and counters: another layout of frontends is a
/// new version of all of these, or programs that still run would lose what their frontends name while
/// the new maps are filled. Connections name counters, too: their flag for it is another one then.
///
/// A new version of connections or openings ends all that an earlier agent's programs have translated.
pub mod name {
    /// [`FrontendKey`](super::FrontendKey) to [`FrontendEntry`](super::FrontendEntry).
    pub const FRONTENDS: &str = "frontends_v4";
    /// [`BackendKey`](super::BackendKey) to [`Backend`](super::Backend).
    pub const BACKENDS: &str = "backends_v3";
    /// [`MaglevKey`](super::MaglevKey) to [`MaglevPart`](super::MaglevPart).
    pub const MAGLEV: &str = "maglev_v3";
    /// Address to `NODE_ADDRESS_*`.
    pub const NODE_ADDRESSES: &str = "node_addresses_v2";
    /// One [`Settings`](super::Settings).
    pub const SETTINGS: &str = "settings_v4";
    /// [`ServiceCounters::place`](super::ServiceCounters::place) to
    /// [`ServiceCounters`](super::ServiceCounters).
    pub const COUNTERS: &str = "service_counters_v5";
    /// [`RefusalKey`](super::RefusalKey) to count, for each CPU.
    pub const REFUSALS: &str = "service_refusals_v1";
    /// [`ServiceCounters::place`](super::ServiceCounters::place) to
    /// [`ServiceBytes`](super::ServiceBytes).
    pub const BYTES: &str = "service_bytes_v1";
    /// [`Reason`](super::Reason) to count.
    pub const DROPS: &str = "drops_v3";
    /// Socket to [`SocketPeer`](super::SocketPeer).
    pub const PEERS: &str = "peers_v1";
    /// [`PeerKey`](super::PeerKey) to [`SocketPeer`](super::SocketPeer), of UDP sockets that are connected.
    pub const CONNECTED_PEERS: &str = "connected_peers_v1";
    /// The same of those that are not.
    pub const DATAGRAM_PEERS: &str = "datagram_peers_v1";
    /// Socket to [`DatagramFlow`](super::DatagramFlow).
    pub const DATAGRAM_FLOWS: &str = "datagram_flows_v1";
    /// [`Tuple`](super::Tuple) to [`Connection`](super::Connection).
    pub const CONNECTIONS: &str = "connections_v2";
    /// The same for connections that are not assured yet.
    pub const OPENINGS: &str = "openings_v1";
    /// [`FragmentKey`](super::FragmentKey) to [`FragmentPorts`](super::FragmentPorts).
    pub const FRAGMENTS: &str = "fragments_v2";
    /// [`AffinityKey`](super::AffinityKey) to [`Affinity`](super::Affinity).
    pub const AFFINITIES: &str = "affinities_v1";
    /// [`SourceRangeKey`](super::SourceRangeKey) to its [`version`](super::SourceRangeKey::version).
    pub const SOURCE_RANGES: &str = "source_ranges_v4";
    /// One [`Live`](super::Live). This and the two below are never pinned: no version.
    pub const LIVE: &str = "live";
    /// A ring of [`Event`](super::Event)s.
    pub const EVENTS: &str = "events";
    /// Events there was no room for.
    pub const EVENTS_LOST: &str = "events_lost";
}

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;
/// IANA protocol number of SCTP.
pub const SCTP: u8 = 132;

/// IPv4 as `::ffff:a.b.c.d`, IPv6 as it is; network byte order.
pub type Address = [u8; 16];

/// `::ffff:0.0.0.0`: a NodePort frontend on every IPv4 address of the node.
pub const ANY_V4: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
/// `::`: a NodePort frontend on every IPv6 address of the node.
pub const ANY_V6: Address = [0; 16];

/// One slot of a backend set. Key of `backends`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct BackendKey {
    /// The set.
    pub set_id: u32,
    /// 0-based, below [`FrontendValue::backends`].
    pub slot: u32,
}

/// Where a connection goes. Value of `backends`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Backend {
    /// The endpoint's address.
    pub address: Address,
    /// The endpoint's own port, network byte order (endpoints of one service may differ).
    pub port: [u8; 2],
    /// `BACKEND_*`.
    pub flags: u16,
}

/// The backend is on this node: its replies pass this node anyway, so the client's address can be
/// kept.
pub const BACKEND_LOCAL: u16 = 1;

/// What happened to one service on one CPU. Value of the array map `service_counters`: first those of
/// CPU 0, by counter id, then those of the next. What a CPU counts shares no cache line with others.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ServiceCounters {
    /// Connections, and datagrams of unconnected sockets, sent to a backend.
    pub selected: u64,
}

/// What one service's clients sent and got, as far as it passed on one CPU. Value of the array map
/// `service_bytes`, which is as `service_counters` is, and where bytes are counted only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ServiceBytes {
    /// Of IP packets that were translated on their way to a backend, headers included.
    pub packets_to: u64,
    /// Of those on their way back.
    pub packets_from: u64,
    /// Of TCP, without headers: what sockets that have closed had sent and known to be received.
    pub sockets_to: u64,
    /// What they had received.
    pub sockets_from: u64,
}

/// Why one service refused or dropped connections, and datagrams of unconnected sockets. Key of the
/// per-CPU map `service_refusals`, whose values are counts: there is an entry for what has happened.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RefusalKey {
    /// The service, by [`FrontendValue::counter_id`].
    pub counter_id: u32,
    /// A [`Reason`].
    pub reason: u32,
}

/// Counters of one cache line; each CPU has a multiple of it.
pub const COUNTERS_PER_LINE: u32 = 8;

impl ServiceCounters {
    /// Where a service has its counters for a CPU, by [`FrontendValue::counter_id`], in a map that
    /// holds `per_cpu` for each. `None`: it is not counted.
    #[inline(always)]
    pub const fn place(counter_id: u32, cpu: u32, per_cpu: u32) -> Option<u32> {
        if counter_id >= per_cpu {
            return None;
        }
        Some(cpu.wrapping_mul(per_cpu).wrapping_add(counter_id))
    }
}

const _: () = assert!(size_of::<BackendKey>() == 8);
const _: () = assert!(size_of::<Backend>() == 20);
const _: () = assert!(size_of::<RefusalKey>() == 8);
const _: () = assert!(size_of::<ServiceBytes>() == 32);
const _: () = assert!(COUNTERS_PER_LINE as usize * size_of::<ServiceCounters>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_cpu_are_its_own_and_an_id_beyond_them_has_none() {
        for (counter_id, cpu, expected) in [
            (0, 0, Some(0)),
            (7, 0, Some(7)),
            (8, 0, None),
            (0, 1, Some(8)),
            (7, 3, Some(31)),
            (u32::MAX, 1, None),
        ] {
            assert_eq!(ServiceCounters::place(counter_id, cpu, 8), expected, "{counter_id} {cpu}");
        }
        assert_eq!(ServiceCounters::place(0, 0, 0), None, "nobody has said how many there are");
    }
}
