//! TCP sockets that close: what they sent and received is their service's.
//!
//! Only sockets that were led to a backend ask to be told of: all others cost a look at their
//! establishment.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_TCP_CLOSE, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::bpf_sk_storage_get,
    programs::SockOpsContext,
};
use fairlead_ebpf::{
    abi::{FrontendKey, SocketPeer, TCP},
    dialled::{self, Found},
};

use super::maps;

/// One of a socket's events.
#[inline(always)]
pub(crate) fn event(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB if peer(ctx).is_some() => {
            let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
            // Without it the socket is not counted.
            let _ = ctx.set_cb_flags(flags.cast_signed());
        }
        // Old state, new state.
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => count(ctx),
        _ => {}
    }
}

/// For the service that has the address now: a socket keeps what it dialled, and a service's series
/// end with it.
#[inline(always)]
fn count(ctx: &SockOpsContext) {
    let Some(SocketPeer { frontend, frontend_port, .. }) = peer(ctx) else { return };
    let dialled = FrontendKey { address: frontend, port: frontend_port, protocol: TCP, zero: 0 };
    // It was led there: loopback addresses meant the node.
    if let Found::Frontend(_, frontend) = dialled::find(&maps::AT_DEVICE, &dialled, || true) {
        let sent = read(ctx, offset_of!(bpf_sock_ops, bytes_acked));
        let received = read(ctx, offset_of!(bpf_sock_ops, bytes_received));
        maps::add_socket(frontend.counter_id, sent, received);
    }
}

/// What the socket was connected to, if that is a service.
#[inline(always)]
fn peer(ctx: &SockOpsContext) -> Option<SocketPeer> {
    let offset = offset_of!(bpf_sock_ops, __bindgen_anon_2);
    let field = ctx.ops.wrapping_byte_add(offset).cast::<*mut bpf_sock>();
    // SAFETY: the kernel's context, valid throughout the program; this is where the socket is.
    let sk = unsafe { field.read_volatile() };
    if sk.is_null() {
        return None;
    }
    let map = (&raw const maps::PEERS).cast_mut();
    // SAFETY: a map and the socket of a valid context.
    let peer = unsafe { bpf_sk_storage_get(map.cast(), sk.cast(), core::ptr::null_mut(), 0) };
    // SAFETY: null or the socket's own storage, which lives as long as the socket.
    unsafe { peer.cast::<SocketPeer>().as_ref() }.copied()
}

/// Reads a field of the context. Volatile: the verifier wants each accessed as declared.
#[inline(always)]
fn read(ctx: &SockOpsContext, offset: usize) -> u64 {
    let field = ctx.ops.wrapping_byte_add(offset).cast::<u64>();
    // SAFETY: valid throughout the program; the verifier refuses programs that read what is no field.
    unsafe { field.read_volatile() }
}
