//! What is remembered of UDP sockets, by socket.

use bytemuck::{Pod, Zeroable};

use super::{Address, SocketPeer};

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

impl PeerKey {
    /// Of this socket.
    #[inline(always)]
    pub const fn of(socket: u64, peer: &SocketPeer) -> Self {
        let SocketPeer { backend, backend_port, .. } = *peer;
        Self { socket, backend, backend_port, zero: [0; 6] }
    }
}

const _: () = assert!(size_of::<PeerKey>() == 32);
