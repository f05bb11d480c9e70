//! The way the kernel will route a packet, asked before it does.

use core::ptr;

use aya_ebpf::{bindings, helpers::generated::bpf_fib_lookup, programs::TcContext};
use bytemuck::{Pod, Zeroable};
use fairlead_ebpf::{
    abi::{Address, Tuple},
    packet,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// A neighbour need not be known yet: the packet itself makes the kernel ask for it.
const WAY: u32 = bindings::BPF_FIB_LOOKUP_SKIP_NEIGH;
const SUCCESS: i64 = bindings::BPF_FIB_LKUP_RET_SUCCESS as i64;
/// There is a way, and the packet is too large for it: what to do then is the kernel's to say.
const TOO_LARGE: i64 = bindings::BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;

/// `struct bpf_fib_lookup`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Query {
    family: u8,
    protocol: u8,
    source_port: [u8; 2],
    destination_port: [u8; 2],
    /// 0: whatever the packet's is.
    len: u16,
    device: u32,
    /// Read as type of service or flow label, written as metric.
    class: u32,
    /// IPv4 in the first four bytes; written, too.
    source: Address,
    destination: Address,
    /// VLAN and stations, written only.
    rest: [u32; 4],
}

const _: () = assert!(size_of::<Query>() == size_of::<bindings::bpf_fib_lookup>());

/// Makes `source` the address that the node's own packets to `backend` would have, as netfilter's
/// MASQUERADE does: of the route, or else of the device it leads through. `false`: there is no route, or
/// the kernel cannot say (before Linux 6.7, dab4e1f06cab, and 6.6.21).
#[inline(never)]
pub(crate) fn source(
    ctx: &TcContext,
    dialled: &Tuple,
    backend: &Address,
    source: &mut Address,
) -> bool {
    let is_ipv4 = packet::is_mapped(backend);
    // The kernel routes what arrived here from the client: rules may be about that.
    let mut query = Query {
        family: if is_ipv4 { AF_INET } else { AF_INET6 },
        protocol: dialled.protocol,
        // SAFETY: the context of a running program.
        device: unsafe { (*ctx.skb.skb).ifindex },
        source: narrow(&dialled.source, is_ipv4),
        destination: narrow(backend, is_ipv4),
        ..Query::zeroed()
    };
    let result = ask(ctx, &mut query, WAY | bindings::BPF_FIB_LOOKUP_SRC);
    if !matches!(result, SUCCESS | TOO_LARGE) {
        return false;
    }
    let [a, b, c, d, ..] = query.source;
    *source = if is_ipv4 { packet::mapped([a, b, c, d]) } else { query.source };
    // IPv4 has none where no device has an address.
    query.source != [0; 16]
}

/// The device, by index, by which a packet back to the client leaves; 0: the kernel does not say, as by a route with a tunnel of
/// its own, or where it forwards nothing.
#[inline(never)]
pub(crate) fn device_back(ctx: &TcContext, dialled: &Tuple) -> u32 {
    let is_ipv4 = packet::is_mapped(&dialled.source);
    let mut query = Query {
        family: if is_ipv4 { AF_INET } else { AF_INET6 },
        protocol: dialled.protocol,
        // SAFETY: the context of a running program.
        device: unsafe { (*ctx.skb.skb).ifindex },
        source: narrow(&dialled.destination, is_ipv4),
        destination: narrow(&dialled.source, is_ipv4),
        ..Query::zeroed()
    };
    if ask(ctx, &mut query, WAY) == SUCCESS { query.device } else { 0 }
}

#[inline(always)]
fn ask(ctx: &TcContext, query: &mut Query, flags: u32) -> i64 {
    let len = i32::try_from(size_of::<Query>()).unwrap_or_default();
    // SAFETY: as many bytes as it is told.
    unsafe { bpf_fib_lookup(ctx.skb.skb.cast(), ptr::from_mut(query).cast(), len, flags) }
}

#[inline(always)]
fn narrow(address: &Address, is_ipv4: bool) -> Address {
    if !is_ipv4 {
        return *address;
    }
    let [a, b, c, d] = packet::unmapped(address);
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}
