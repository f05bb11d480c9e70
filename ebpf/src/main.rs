//! The kernel programs. See `README.md` for what is attached where.
//!
//! For `bpf` targets this is a `no_std` object; on the host it is an empty program, so that clippy
//! and editors see the same code.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod programs;

use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr, classifier, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext, TcContext},
};
use fairlead_ebpf::select::Origin;
use programs::{
    connected, dial, ended, peer, sent,
    sockaddr::{Call, V4, V6},
    uplink,
};

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    dial::connect(&Call::<V4>::new(ctx))
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    dial::connect(&Call::<V6>::new(ctx))
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sent::sendmsg(&Call::<V4>::new(ctx))
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sent::sendmsg(&Call::<V6>::new(ctx))
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    peer::recvmsg(&Call::<V4>::new(ctx))
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    peer::recvmsg(&Call::<V6>::new(ctx))
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    peer::getpeername(&Call::<V4>::new(ctx))
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    peer::getpeername(&Call::<V6>::new(ctx))
}

#[cgroup_sock(sock_release)]
#[expect(clippy::needless_pass_by_value, reason = "the signature the macro calls")]
fn socket_release(ctx: SockContext) -> i32 {
    connected::released(&ctx);
    // Nobody can refuse it.
    1
}

#[sock_ops]
#[expect(clippy::needless_pass_by_value, reason = "the signature the macro calls")]
fn socket_bytes(ctx: SockOpsContext) -> u32 {
    ended::event(&ctx);
    // Anything else would be an error to the kernel.
    1
}

#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the signature the macro calls")]
fn uplink_ingress(ctx: TcContext) -> i32 {
    uplink::ingress(&ctx, Origin::Outside)
}

#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the signature the macro calls")]
fn pod_ingress(ctx: TcContext) -> i32 {
    uplink::ingress(&ctx, Origin::Inside)
}

#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the signature the macro calls")]
fn uplink_egress(ctx: TcContext) -> i32 {
    uplink::egress(&ctx)
}

// Most helpers are for programs under a GPL-compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
