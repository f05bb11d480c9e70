//! Whether a client is real: it names a number that only an answer to it can have told it.
//!
//! Whoever forges addresses is told nothing, and may send a second packet as well as a first. netfilter
//! measures it by its window (`tcp_in_window`). Datagrams have no numbers: there a second one after an answer is all
//! there is to see.

use aya_ebpf::programs::TcContext;
use fairlead_ebpf::{
    abi::{Connection, SCTP, TCP},
    connection::{is_twin, twin},
    packet::{ACK, RST},
};

use super::{frame::Frame, track};

/// Whether the packet, which met `entry`, is the client's and shows that it has had an answer. An answer leaves its
/// number for that, as long as nobody has shown it.
#[inline(never)]
pub(super) fn is_given(ctx: &TcContext, frame: &Frame, entry: &mut Connection) -> bool {
    let segment = &frame.segment;
    let protocol = frame.tuple.protocol;
    if protocol != TCP && protocol != SCTP {
        return entry.is_answered();
    }
    if entry.is_reply() {
        // A reset's is what it was told by the packet that it answers (RFC 9293 §3.10.7.1).
        if segment.flags & RST == 0
            && let Some(number) = frame.answer_number(ctx)
        {
            entry.number(number);
        }
        return false;
    }
    if !entry.is_answered() || (protocol == TCP && segment.flags & ACK == 0) {
        return false;
    }
    let Some(named) = frame.named_number(ctx) else { return false };
    let Some(reply) = track::entry(&twin(&frame.tuple, entry)) else { return false };
    if !is_twin(&frame.tuple, reply) || !reply.is_known_by(protocol, named) {
        return false;
    }
    if protocol == TCP {
        // The answer's own number has served; where the client goes on is what the answer acknowledged.
        reply.acknowledge(segment.sequence);
    }
    true
}
