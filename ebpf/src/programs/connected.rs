//! UDP sockets that are connected: the agent finds them by their notes when their backend is gone, and for as
//! long as they live, however many come and go meanwhile (each look-up of a name is a socket of its own).

use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_ANY, bpf_sock},
    helpers::{bpf_get_socket_cookie, generated::bpf_sk_storage_get},
    programs::SockContext,
};
use fairlead_ebpf::abi::{PeerKey, Reason, SocketPeer, UDP};

use super::{
    maps,
    sockaddr::{Call, Family},
};

/// Takes the note away of what the socket was connected to, unless that is what it is being connected to.
#[inline(always)]
pub(crate) fn forget_other<F: Family>(call: &Call<F>, peer: &SocketPeer) {
    let key = PeerKey::of(call.socket_cookie(), peer);
    if let Some(before) = call.peer() {
        let before = PeerKey::of(key.socket, before);
        if before != key {
            // The agent may have been first.
            let _ = maps::CONNECTED_PEERS.remove(before);
        }
    }
}

/// Notes what the socket is being connected to, which it remembers itself.
#[inline(always)]
pub(crate) fn note<F: Family>(call: &Call<F>, peer: &SocketPeer) {
    let key = PeerKey::of(call.socket_cookie(), peer);
    // SAFETY: the reference ends with the comparison, under RCU; a value that changes meanwhile
    // is written anew, nothing worse.
    let is_known = unsafe { maps::CONNECTED_PEERS.get(key) }.is_some_and(|known| known == peer);
    if !is_known && maps::CONNECTED_PEERS.insert(key, peer, BPF_ANY.into()).is_err() {
        maps::count(Reason::PeerNotStored);
    }
}

/// It is being connected to something that is no service.
#[inline(always)]
pub(crate) fn forget<F: Family>(call: &Call<F>) {
    if let Some(peer) = call.peer() {
        // The agent may have been first.
        let _ = maps::CONNECTED_PEERS.remove(PeerKey::of(call.socket_cookie(), peer));
    }
}

/// A socket of any protocol is closed.
#[inline(always)]
pub(crate) fn released(ctx: &SockContext) {
    let field = ctx.sock.wrapping_byte_add(offset_of!(bpf_sock, protocol)).cast::<u32>();
    // SAFETY: the kernel's context, valid throughout the program; this is where the protocol is.
    // Volatile: the verifier wants the field accessed as declared.
    if unsafe { field.read_volatile() } != UDP.into() {
        return;
    }
    let map = (&raw const maps::PEERS).cast_mut();
    // SAFETY: a map and the socket of a valid context.
    let peer = unsafe { bpf_sk_storage_get(map.cast(), ctx.as_ptr(), core::ptr::null_mut(), 0) };
    // SAFETY: null or the socket's own storage, which lives as long as the socket.
    let Some(peer) = (unsafe { peer.cast::<SocketPeer>().as_ref() }) else { return };
    // SAFETY: the helper takes this program type's context.
    let socket = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // One that was never connected after all has none.
    let _ = maps::CONNECTED_PEERS.remove(PeerKey::of(socket, peer));
}
