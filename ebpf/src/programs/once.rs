//! A packet is translated once on its way in, however many devices with programs stand on each other there: a bridge above its
//! ports, a macvlan or a VLAN's device above a card. A second program would take it for a stranger's new connection to the
//! backend, whose answers are the first one's, and give it another port.

use aya_ebpf::programs::TcContext;
use fairlead_ebpf::connection::{mark, rewritten};

use super::frame::Frame;

/// Whether a program at a device below has translated the packet.
///
/// It is said in `tc_index`, which stays with a packet from device to device, and which nothing but queueing disciplines
/// reads (Cilium's programs tell each other by it, too, in its lowest bits). By a number of the packet's own: the kernel hands
/// on what it unwraps in the same buffer (`skb_scrub_packet` and `xfrm_input` leave the field), and what was in a tunnel that
/// ends at a Service's endpoint here is another packet.
#[inline(always)]
pub(super) fn is_translated(ctx: &TcContext, frame: &Frame) -> bool {
    // SAFETY: the context of a running program.
    let noted = unsafe { (*ctx.skb.skb).tc_index };
    noted != 0 && is_mark(noted, frame)
}

// A function of its own: the verifier goes on from it once.
#[inline(never)]
fn is_mark(noted: u32, frame: &Frame) -> bool {
    noted == u32::from(mark(&frame.tuple))
}

/// The packet is about to become what the entry in `found` makes of it.
#[inline(never)]
pub(super) fn note(ctx: &TcContext, frame: &Frame) {
    let mark = mark(&rewritten(&frame.tuple, &frame.found));
    // SAFETY: as above; programs of this kind may write the field.
    unsafe {
        (*ctx.skb.skb).tc_index = mark.into();
    }
}

/// On its way out: it may come in again, from a pod that routes, or at a node within this one.
#[inline(always)]
pub(super) fn forget(ctx: &TcContext, frame: &Frame) {
    if is_translated(ctx, frame) {
        // SAFETY: as above.
        unsafe {
            (*ctx.skb.skb).tc_index = 0;
        }
    }
}
