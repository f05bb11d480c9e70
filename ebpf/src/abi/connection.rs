//! What is remembered of a connection: by socket, and by packet.

use bytemuck::{Pod, Zeroable};

use super::Address;

/// The tuple of a packet on its way in, before it is routed.
pub const INGRESS: u8 = 0;
/// The tuple of a packet on its way out, after it was routed.
pub const EGRESS: u8 = 1;

/// A packet as it passes one hook. Key of `connections`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Tuple {
    /// Where the packet says it comes from.
    pub source: Address,
    /// Where the packet is bound for.
    pub destination: Address,
    /// Network byte order.
    pub source_port: [u8; 2],
    /// Network byte order.
    pub destination_port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// [`INGRESS`] or [`EGRESS`].
    pub hook: u8,
    /// Always 0.
    pub zero: [u8; 2],
}

/// How such a packet is rewritten. Value of `connections`.
///
/// As in netfilter, destinations change before routing and sources after it: a source address of
/// the node's own, arriving from outside, would be taken for forged (RFC 1812 §5.3.7).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Connection {
    /// The new destination at [`INGRESS`], the new source at [`EGRESS`].
    pub address: Address,
    /// The new source port, network byte order.
    pub source_port: [u8; 2],
    /// The new destination port, network byte order.
    pub destination_port: [u8; 2],
    /// The backend set this connection's backend was last seen in; 0 for replies and for what
    /// leaves the node, which belong to no set. With [`CONNECTION_NUMBERED`] it is no set, but a number.
    pub set_id: u32,
    /// With [`CONNECTION_COUNTED`]: the service whose bytes its packets are, by
    /// `FrontendValue::counter_id`; 0: of none.
    pub counter_id: u32,
    /// The backend's `BACKEND_*` flags, and [`CONNECTION_MASQUERADED`].
    pub flags: u16,
    /// `CONNECTION_*`.
    pub state: u16,
    /// When a packet last met this entry, in ticks (see `crate::connection::TICK_SHIFT`).
    pub seen: u32,
}

/// In `flags`: as it was opened, clients' addresses were to be hidden from all backends, and no
/// `externalTrafficPolicy: Local` had promised this one's.
pub const CONNECTION_MASQUERADED: u16 = 0x8000;

/// The entry is for packets on the way back to the client.
pub const CONNECTION_REPLY: u16 = 1;
/// A packet has come back from the backend.
pub const CONNECTION_ANSWERED: u16 = 2;
/// A TCP FIN was seen in this entry's direction.
pub const CONNECTION_FIN: u16 = 4;
/// A TCP FIN was seen in the other direction.
pub const CONNECTION_OTHER_FIN: u16 = 8;
/// The client has gone on after an answer, and in a way that only who has had it can know: both ends are real. Until
/// then the entry may be a flood's, and stands in `openings`.
pub const CONNECTION_ASSURED: u16 = 32;
/// A TCP RST was seen in either direction, and nothing since in this entry's; with [`CONNECTION_DOUBTED`] in neither.
pub const CONNECTION_RESET: u16 = 16;

/// This entry's packets count for `counter_id`. Without it that field says nothing: in entries of
/// earlier agents, which are kept, it is a backend's slot.
pub const CONNECTION_COUNTED: u16 = 64;
/// In the entry of replies: `set_id` is the number by which the client can show that it has had an
/// answer: of TCP the sequence number of the last one, of SCTP the tag the backend asked for. Earlier agents' programs
/// take such an entry for one of a set that is gone, which is nothing to replies. Other numbers are told by
/// [`CONNECTION_ACKNOWLEDGED`] and [`CONNECTION_ASKED`].
pub const CONNECTION_NUMBERED: u16 = 128;
/// With [`CONNECTION_NUMBERED`]: the number is what this direction's last TCP packet acknowledged, by which the other
/// direction's resets are measured.
pub const CONNECTION_ACKNOWLEDGED: u16 = 256;
/// The RST that was seen may be forged: whatever either side says then takes it back.
pub const CONNECTION_DOUBTED: u16 = 512;
/// A first packet has met this connection, which is open, and nothing else has since. In the entry for requests of TCP, with
/// [`CONNECTION_NUMBERED`], the number is what a refusal of it acknowledges.
pub const CONNECTION_ASKED: u16 = 1024;
/// Nobody has answered that packet: the next one came a while later.
pub const CONNECTION_UNANSWERED: u16 = 2048;

/// What a socket dialled and what it got. Value of the socket storage `peers`, of `connected_peers` and of
/// `datagram_peers`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SocketPeer {
    /// What the application dialled.
    pub frontend: Address,
    /// What it is connected to.
    pub backend: Address,
    /// Network byte order.
    pub frontend_port: [u8; 2],
    /// Network byte order.
    pub backend_port: [u8; 2],
}

/// The packet a fragment belongs to, as it passes one hook. Key of `fragments`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FragmentKey {
    /// Where the fragment says it comes from.
    pub source: Address,
    /// Where it is bound for.
    pub destination: Address,
    /// Identification of the packet, as in the header (RFC 791, RFC 8200 §4.5).
    pub id: [u8; 4],
    /// What all its fragments say comes next: an IANA protocol number, or an extension header of IPv6 that only the first
    /// one has (RFC 8200 §4.5).
    pub protocol: u8,
    /// [`INGRESS`] or [`EGRESS`].
    pub hook: u8,
    /// Always 0.
    pub zero: [u8; 2],
}

/// What only the first fragment has. Value of `fragments`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FragmentPorts {
    /// Network byte order.
    pub source: [u8; 2],
    /// Network byte order.
    pub destination: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// Always 0.
    pub zero: [u8; 3],
}

const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<FragmentPorts>() == 8);
const _: () = assert!(size_of::<Tuple>() == 40);
const _: () = assert!(size_of::<Connection>() == 36);
const _: () = assert!(size_of::<SocketPeer>() == 36);
