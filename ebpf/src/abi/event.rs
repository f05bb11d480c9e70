//! What the programs tell of a decision, and of which decisions they tell.

use bytemuck::{Pod, Zeroable};

use super::Address;

/// The one index of the array maps `live` and `events_lost`.
pub const LIVE_INDEX: u32 = 0;
/// Bytes of the ring `events`: some 2,300 decisions that nobody has read yet.
pub const EVENTS_BYTES: usize = 256 << 10;

/// Of which decisions the programs tell. Value of the array map `live`; all zero: of none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Live {
    /// One in so many is told of; 0: none.
    pub one_in: u32,
    /// `LIVE_*`.
    pub flags: u32,
    /// With [`LIVE_CLIENT`], `SO_NETNS_COOKIE` of the client's sockets; 0: not known.
    pub netns_cookie: u64,
    /// With [`LIVE_CLIENT`], the source of its packets.
    pub client: Address,
    /// With [`LIVE_TARGET`], the dialled address.
    pub dialled: Address,
    /// With [`LIVE_TARGET`], the service, whatever address of it is dialled; 0: none.
    pub counter_id: u32,
    /// Always 0.
    pub zero: u32,
}

/// Only what one client dials.
pub const LIVE_CLIENT: u32 = 1;
/// Only what dials one service or address.
pub const LIVE_TARGET: u32 = 2;

impl Live {
    /// Whether a decision about this service, dialled at this address, is asked for.
    #[inline(always)]
    pub fn is_for(&self, counter_id: u32, dialled: &Address) -> bool {
        self.flags & LIVE_TARGET == 0
            || (counter_id != 0 && counter_id == self.counter_id)
            || *dialled == self.dialled
    }

    /// Whether one for this client is: by the namespace of a socket (0: a packet), or by the source
    /// of a packet (all zero: a socket).
    #[inline(always)]
    pub fn is_from(&self, netns_cookie: u64, client: &Address) -> bool {
        self.flags & LIVE_CLIENT == 0
            || (netns_cookie != 0 && netns_cookie == self.netns_cookie)
            || *client == self.client
    }
}

/// What became of a new connection or a flow's first datagram. An entry of the ring `events`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// `SO_NETNS_COOKIE` of the socket; 0: a packet.
    pub netns_cookie: u64,
    /// The source of the packet; all zero: a socket, which has no address yet.
    pub client: Address,
    /// What was dialled.
    pub dialled: Address,
    /// What it leads to; all zero where it leads nowhere.
    pub backend: Address,
    /// The name of the thread that called (`comm` of proc(5)); all zero: a packet.
    pub process: [u8; 16],
    /// Its process, as the node's own PID namespace counts them; 0: a packet.
    pub pid: u32,
    /// The service, by its counters; 0: none.
    pub counter_id: u32,
    /// Network byte order; 0: a socket, or an address was all that could be read.
    pub client_port: [u8; 2],
    /// Network byte order.
    pub dialled_port: [u8; 2],
    /// Network byte order.
    pub backend_port: [u8; 2],
    /// The Service's own port, network byte order; 0: a port it does not have.
    pub service_port: [u8; 2],
    /// IANA protocol number; 0: not known.
    pub protocol: u8,
    /// `EVENT_*` up to [`EVENT_DROPPED`].
    pub outcome: u8,
    /// A [`Reason`](super::Reason), or [`EVENT_NO_REASON`].
    pub reason: u8,
    /// Where: `EVENT_AT_*`.
    pub hook: u8,
    /// Always 0.
    pub zero: [u8; 4],
}

/// It is no service's: nobody is told.
pub const EVENT_PASSED: u8 = 0;
/// It was given a backend.
pub const EVENT_SERVED: u8 = 1;
/// The client was told that nobody serves it.
pub const EVENT_REJECTED: u8 = 2;
/// A packet was dropped, or a socket told that the host cannot be reached.
pub const EVENT_DROPPED: u8 = 3;
/// There is none: it was served.
pub const EVENT_NO_REASON: u8 = u8::MAX;

/// connect(2) or sendmsg(2) of this node.
pub const EVENT_AT_SOCKET: u8 = 0;
/// A packet from a pod's device.
pub const EVENT_AT_POD: u8 = 1;
/// A packet from an uplink.
pub const EVENT_AT_UPLINK: u8 = 2;
/// A packet on its way out.
pub const EVENT_AT_EGRESS: u8 = 3;

const _: () = assert!(size_of::<Live>() == 56);
const _: () = assert!(size_of::<Event>() == 104);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::mapped;

    const CLIENT: Address = mapped([10, 244, 1, 9]);
    const DIALLED: Address = mapped([10, 96, 0, 9]);
    const OTHER: Address = mapped([10, 96, 0, 10]);

    #[test]
    fn a_target_is_a_service_or_an_address_and_what_is_no_service_has_no_number_in_common() {
        let live =
            |flags, counter_id| Live { flags, counter_id, dialled: DIALLED, ..Live::zeroed() };
        for (live, counter_id, dialled, expected) in [
            (live(0, 0), 7, OTHER, true),
            (live(LIVE_TARGET, 7), 7, OTHER, true),
            (live(LIVE_TARGET, 7), 8, DIALLED, true),
            (live(LIVE_TARGET, 7), 8, OTHER, false),
            (live(LIVE_TARGET, 0), 0, OTHER, false),
            (live(LIVE_TARGET, 0), 0, DIALLED, true),
        ] {
            assert_eq!(live.is_for(counter_id, &dialled), expected, "{live:?} {counter_id}");
        }
    }

    #[test]
    fn a_client_is_a_namespace_at_its_sockets_and_an_address_in_its_packets() {
        let live =
            |flags, netns_cookie| Live { flags, netns_cookie, client: CLIENT, ..Live::zeroed() };
        let socket = [0; 16];
        for (live, netns_cookie, client, expected) in [
            (live(0, 0), 5, socket, true),
            (live(LIVE_CLIENT, 5), 5, socket, true),
            (live(LIVE_CLIENT, 5), 6, socket, false),
            (live(LIVE_CLIENT, 0), 0, OTHER, false),
            (live(LIVE_CLIENT, 0), 6, socket, false),
            (live(LIVE_CLIENT, 5), 0, CLIENT, true),
        ] {
            assert_eq!(live.is_from(netns_cookie, &client), expected, "{live:?} {netns_cookie}");
        }
    }
}
