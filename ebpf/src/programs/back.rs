//! The way back of an answer that a packet has been turned into.

use core::ptr;

use aya_ebpf::{
    bindings::{self, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, TC_ACT_SHOT},
    helpers::generated::{
        bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head, bpf_skb_get_tunnel_key,
        bpf_skb_set_tunnel_key,
    },
    programs::TcContext,
};
use bytemuck::{Pod, Zeroable};
use fairlead_ebpf::select::Origin;

use super::{
    frame::{Frame, load},
    route,
};

/// `linux/if_packet.h`.
const PACKET_OTHERHOST: u32 = 3;
/// Of the outer packet.
const HOPS: u8 = 64;
/// Of Ethernet.
const LINK_HEADER_LEN: u32 = 14;

/// `struct bpf_tunnel_key`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TunnelKey {
    id: u32,
    /// IPv4 in the first word, native byte order.
    remote: [u32; 4],
    class: u8,
    hops: u8,
    flags: u16,
    label: u32,
    local: [u32; 4],
}

const _: () = assert!(size_of::<TunnelKey>() == size_of::<bindings::bpf_tunnel_key>());

/// Sends the packet back the way it came. Returns the verdict.
///
/// A device alone is no way where it leads to many: `tunl0` and the like go by the route that a packet has (`ip_tunnel_xmit`),
/// devices in `external` mode by the tunnel it names, and what has neither is lost there. A frame from outside that is for
/// another station than the device is the bridge's, whose port this is, or was flooded: in the name of that station a switch
/// would learn a wrong way to it.
// Not inlined: what it needs is no part of the stack under the longest way through the program.
#[inline(never)]
pub(super) fn send(ctx: &TcContext, frame: &Frame, origin: Origin) -> i32 {
    let is_in_tunnel = enter_tunnel(ctx);
    // SAFETY: the context of a running program.
    let device = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: the context of a running program.
    let pkt_type = unsafe { (*ctx.skb.skb).pkt_type };
    let is_others = matches!(origin, Origin::Outside) && pkt_type == PACKET_OTHERHOST;
    if !is_in_tunnel && (is_others || !frame.has_stations()) {
        let device = route::device_back(ctx, &frame.tuple);
        if device != 0 && (frame.has_stations() || add_link_header(ctx).is_ok()) {
            // SAFETY: no parameters, of no length.
            return verdict(unsafe { bpf_redirect_neigh(device, ptr::null_mut(), 0, 0) });
        }
    }
    if frame.has_stations() && swap_stations(ctx).is_err() {
        return TC_ACT_SHOT;
    }
    // SAFETY: a helper without pointers.
    verdict(unsafe { bpf_redirect(device, 0) })
}

#[inline(always)]
fn verdict(verdict: i64) -> i32 {
    i32::try_from(verdict).unwrap_or(TC_ACT_SHOT)
}

/// To whoever handed it over.
#[inline(always)]
fn swap_stations(ctx: &TcContext) -> Result<(), i64> {
    let [to, from]: [[u8; 6]; 2] = bytemuck::cast(load::<12>(ctx, 0).map_err(|_| -1)?);
    ctx.store(0, &from, 0)?;
    ctx.store(6, &to, 0)
}

/// Names the tunnel that the packet came by, if its device has told it. `false`: it has not.
#[inline(never)]
fn enter_tunnel(ctx: &TcContext) -> bool {
    let v6 = u64::from(BPF_F_TUNINFO_IPV6);
    // An outer packet of IPv4 needs no checksum (RFC 7348 §5), one of IPv6 does (RFC 6935 §5).
    enter_tunnel_of(ctx, 0, BPF_F_ZERO_CSUM_TX.into()) || enter_tunnel_of(ctx, v6, v6)
}

#[inline(always)]
fn enter_tunnel_of(ctx: &TcContext, from: u64, to: u64) -> bool {
    let mut key = TunnelKey::zeroed();
    let len = u32::try_from(size_of::<TunnelKey>()).unwrap_or_default();
    let skb = ctx.skb.skb;
    // SAFETY: as many bytes as it is told.
    if unsafe { bpf_skb_get_tunnel_key(skb, (&raw mut key).cast(), len, from) } != 0 {
        return false;
    }
    // What is read as the other's is written as the other's.
    key.hops = HOPS;
    // SAFETY: as above.
    unsafe { bpf_skb_set_tunnel_key(skb, (&raw mut key).cast(), len, to) == 0 }
}

/// Room for it, as the kernel looks for a neighbour by what has one only.
#[inline(always)]
fn add_link_header(ctx: &TcContext) -> Result<(), i64> {
    // SAFETY: the context of a running program.
    let result = unsafe { bpf_skb_change_head(ctx.skb.skb, LINK_HEADER_LEN, 0) };
    if result == 0 { Ok(()) } else { Err(result) }
}
