//! A packet is translated once on its way in, however many devices with programs stand on each other there: a bridge above its
//! ports, a macvlan or a VLAN's device above a card. A second program would take it for a stranger's new connection to the
//! backend, whose answers are the first one's, and give it another port.

use aya_ebpf::programs::TcContext;

/// In `tc_index`, which stays with a packet from device to device, and which nothing but classifiers of a queueing discipline
/// reads (Cilium's programs tell each other by it, too, in its lowest bits).
const TRANSLATED: u32 = 0xfa1d;

/// Whether a program at a device below has translated the packet.
#[inline(always)]
pub(super) fn is_translated(ctx: &TcContext) -> bool {
    // SAFETY: the context of a running program.
    unsafe { (*ctx.skb.skb).tc_index == TRANSLATED }
}

#[inline(always)]
pub(super) fn note(ctx: &TcContext) {
    // SAFETY: as above; programs of this kind may write the field.
    unsafe {
        (*ctx.skb.skb).tc_index = TRANSLATED;
    }
}

/// On its way out: it may come in again, from a pod that routes, or at a node within this one.
#[inline(always)]
pub(super) fn forget(ctx: &TcContext) {
    if is_translated(ctx) {
        // SAFETY: as above.
        unsafe {
            (*ctx.skb.skb).tc_index = 0;
        }
    }
}
