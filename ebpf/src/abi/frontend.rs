//! What clients dial and where it leads.

use bytemuck::{Pod, Zeroable};

use super::Address;

/// What a client dials. Key of `frontends`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FrontendKey {
    /// ClusterIP and the like, or [`ANY_V4`](super::ANY_V4) / [`ANY_V6`](super::ANY_V6) for a
    /// NodePort.
    pub address: Address,
    /// Port, network byte order; 0 with protocol 0: every other port of a ClusterIP.
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
    /// With [`FRONTEND_LOCAL`], the set whose first `local_backends` serve clients from outside.
    pub local_set_id: u32,
    /// Key of the service's counters; survives set changes.
    pub counter_id: u32,
    /// For so long a client that comes again meets the same backend; 0: no affinity.
    pub affinity_seconds: u32,
    /// Backends in the set. 0 means REJECT, or DROP with [`FRONTEND_DROPS`].
    pub backends: u16,
    /// Backends for clients from outside, with [`FRONTEND_LOCAL`]. 0 means DROP as long as there
    /// are others.
    pub local_backends: u16,
    /// The Service's own port, network byte order: what affinity is kept by, whatever was dialled.
    pub service_port: [u8; 2],
    /// `FRONTEND_*`.
    pub flags: u16,
}

/// A NodePort, load balancer address or external address: clients may be outside of the cluster.
pub const FRONTEND_EXTERNAL: u16 = 1;
/// `externalTrafficPolicy: Local`: clients from outside get backends of this node only.
pub const FRONTEND_LOCAL: u16 = 2;
/// Without backends packets are dropped, not refused: there are some, but not for this node's
/// clients (`internalTrafficPolicy: Local`).
pub const FRONTEND_DROPS: u16 = 4;
/// Only clients in the service's `source_ranges` are served.
pub const FRONTEND_SOURCE_RANGES: u16 = 8;
/// Of `other_ports`: another proxy serves this address.
pub const FRONTEND_FOREIGN: u16 = 32;
/// These four bits: which size the tables of its sets have ([`TableSize`](super::TableSize)), so that
/// every node sends a flow to the same backend; 0: they have none, and a random number decides.
pub const FRONTEND_MAGLEV: u16 = 0x0f00;

impl FrontendKey {
    /// Every port of a ClusterIP that has no frontend of its own.
    #[inline(always)]
    pub const fn other_ports(address: Address) -> Self {
        Self { address, port: [0; 2], protocol: 0, zero: 0 }
    }

    /// Whether this is [`FrontendKey::other_ports`].
    #[inline(always)]
    pub const fn is_other_ports(&self) -> bool {
        self.protocol == 0
    }
}

const _: () = assert!(size_of::<FrontendKey>() == 20);
const _: () = assert!(size_of::<FrontendValue>() == 24);
