//! Keys and values of the kernel maps: the contract between programs and agent.
//!
//! Every field is a byte array in network order or a native integer; there is no implicit padding
//! (the `Pod` derive refuses it: the kernel compares keys as bytes). A change of layout is a new
//! [`VERSION`], hence new map names, so that an old program never reads a new value.

mod connection;
mod reason;
mod settings;

use bytemuck::{Pod, Zeroable};

pub use connection::{Connection, EGRESS, INGRESS, PeerKey, SocketPeer, Tuple};
pub use reason::Reason;
pub use settings::{SETTINGS_INDEX, Settings};

/// Part of every map name (`frontends_v1`).
pub const VERSION: u32 = 1;

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;

/// IPv4 as `::ffff:a.b.c.d`, IPv6 as it is; network byte order.
pub type Address = [u8; 16];

/// `::ffff:0.0.0.0`: a NodePort frontend on every IPv4 address of the node.
pub const ANY_V4: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
/// `::`: a NodePort frontend on every IPv6 address of the node.
pub const ANY_V6: Address = [0; 16];

/// What a client dials. Key of `frontends`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FrontendKey {
    /// ClusterIP and the like, or [`ANY_V4`] / [`ANY_V6`] for a NodePort.
    pub address: Address,
    /// Port, network byte order.
    pub port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// Always 0 in this version.
    pub zero: u8,
}

/// What a frontend leads to. Value of `frontends`; flipping it is what makes a new backend set
/// visible.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FrontendValue {
    /// The backend set; a changed set gets a new id. Unused (0) when `backends` is 0.
    pub set_id: u32,
    /// Key of the service's counters; survives set changes.
    pub counter_id: u32,
    /// Backends in the set. 0 means REJECT.
    pub backends: u16,
    /// The first so many of them are on this node.
    pub local_backends: u16,
    /// `FLAG_*`.
    pub flags: u32,
}

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
#[repr(C)]
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

/// What happened to one service on one CPU. Value of `service_counters`, keyed by counter id; absent
/// until something happens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ServiceCounters {
    /// Connections, and datagrams of unconnected sockets, sent to a backend.
    pub selected: u64,
    /// Refused because the service has no backends.
    pub rejected: u64,
}

const _: () = assert!(size_of::<FrontendKey>() == 20);
const _: () = assert!(size_of::<FrontendValue>() == 16);
const _: () = assert!(size_of::<BackendKey>() == 8);
const _: () = assert!(size_of::<Backend>() == 20);
const _: () = assert!(size_of::<ServiceCounters>() == 16);
