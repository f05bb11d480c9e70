//! recvmsg and getpeername: the application sees what it dialled.

use fairlead_ebpf::abi::{Address, PeerKey, SocketPeer};

use super::{
    maps,
    sockaddr::{ALLOW, Call, Family},
};

/// recvmsg: the source of a datagram.
#[inline(always)]
pub(crate) fn recvmsg<F: Family>(call: &Call<F>) -> i32 {
    let (backend, backend_port) = (call.address(), call.port());
    if show_connected(call, &backend, backend_port) {
        return ALLOW;
    }
    let key = PeerKey { socket: call.socket_cookie(), backend, backend_port, zero: [0; 6] };
    // SAFETY: the reference ends with the copy, under RCU.
    if let Some(peer) = unsafe { maps::DATAGRAM_PEERS.get(key).copied() } {
        call.set(&peer.frontend, peer.frontend_port);
    }
    ALLOW
}

/// getpeername: whom a connected socket talks to.
#[inline(always)]
pub(crate) fn getpeername<F: Family>(call: &Call<F>) -> i32 {
    show_connected(call, &call.address(), call.port());
    ALLOW
}

/// Whether it was the backend this socket was given. Anything else is shown as it is: the memory
/// may be of an earlier connect that failed, or of a datagram from someone else.
#[inline(always)]
fn show_connected<F: Family>(call: &Call<F>, address: &Address, port: [u8; 2]) -> bool {
    let Some(SocketPeer { frontend, backend, frontend_port, backend_port }) = call.peer().copied()
    else {
        return false;
    };
    let is_backend = backend == *address && backend_port == port;
    if is_backend {
        call.set(&frontend, frontend_port);
    }
    is_backend
}
