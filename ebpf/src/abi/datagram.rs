//! What is remembered of UDP sockets, by socket.

use bytemuck::{Pod, Zeroable};

use super::{Address, Backend, CONNECTION_ASSURED, Connection, FrontendKey, SocketPeer, UDP};
use crate::select;

/// A UDP socket and a backend it talks to. Key of `connected_peers` and of `datagram_peers`, whose values are
/// the [`SocketPeer`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct PeerKey {
    /// `SO_COOKIE` of the socket.
    pub socket: u64,
    /// The backend's address.
    pub backend: Address,
    /// Network byte order.
    pub backend_port: [u8; 2],
    /// Always 0.
    pub zero: [u8; 6],
}

/// With whom the datagrams stay that a socket sends without being connected. Value of the socket storage
/// `datagram_flows`: of several Services it is the last.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DatagramFlow {
    /// What the application dialled.
    pub frontend: Address,
    /// What it was given.
    pub backend: Backend,
    /// Where that was in its set last, 0 at first: looked at before it is searched for.
    pub slot: u32,
    /// When it was dialled last, in ticks (see `crate::connection::TICK_SHIFT`).
    pub seen: u32,
    /// Network byte order.
    pub frontend_port: [u8; 2],
    /// Always 0.
    pub zero: [u8; 2],
}

impl PeerKey {
    /// Of this socket.
    #[inline(always)]
    pub const fn of(socket: u64, peer: &SocketPeer) -> Self {
        let SocketPeer { backend, backend_port, .. } = *peer;
        Self { socket, backend, backend_port, zero: [0; 6] }
    }
}

impl DatagramFlow {
    /// Whether a datagram that is sent now belongs to it: to the same address, and before it is forgotten as a
    /// flow of packets is.
    #[inline(always)]
    pub fn is_of(&self, dialled: &FrontendKey, now: u32) -> bool {
        let Self { frontend, frontend_port, seen, .. } = *self;
        let of_packets = Connection { state: CONNECTION_ASSURED, seen, ..Connection::zeroed() };
        frontend_port == dialled.port
            && frontend == dialled.address
            && !of_packets.is_over(UDP, now)
    }
}

impl FrontendKey {
    /// Tells the Services apart that one socket sends to: by its cookie alone all with the same endpoints would be given
    /// the same one, and its answers would all bear one name.
    #[inline(always)]
    pub fn mixed(&self) -> u64 {
        let [high, low]: [u64; 2] = bytemuck::cast(self.address);
        select::avalanche(high ^ low.rotate_left(16) ^ u64::from(u16::from_be_bytes(self.port)))
    }
}

const _: () = assert!(size_of::<PeerKey>() == 32);
const _: () = assert!(size_of::<DatagramFlow>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_to_one_address_and_over_when_one_of_packets_is() {
        let flow = DatagramFlow {
            frontend: [7; 16],
            frontend_port: [0, 53],
            seen: 1000,
            ..DatagramFlow::zeroed()
        };
        for (name, address, port, now, expected) in [
            ("at once", [7; 16], 53, 1000, true),
            ("shortly before three minutes", [7; 16], 53, 1179, true),
            ("three minutes", [7; 16], 53, 1180, false),
            ("another core's tick is older", [7; 16], 53, 999, true),
            ("another Service", [8; 16], 53, 1000, false),
            ("another port", [7; 16], 54, 1000, false),
        ] {
            let dialled = FrontendKey { address, port: [0, port], protocol: UDP, zero: 0 };
            assert_eq!(flow.is_of(&dialled, now), expected, "{name}");
        }
    }
}
