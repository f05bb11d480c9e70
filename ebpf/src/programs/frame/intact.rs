//! Whether a packet is as it was sent.

use core::hint::black_box;

use aya_ebpf::{
    helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes},
    programs::TcContext,
};
use fairlead_ebpf::{
    abi::{TCP, UDP},
    packet::{self, Part},
};

use super::{Frame, KIND_WHOLE, load};
use crate::programs::{maps, steps};

/// Bytes summed up at once: no more fit into what `bpf_csum_diff` works on.
const BLOCK_LEN: u32 = 512;
/// So many bytes, aligned: they are set to zero word by word.
pub(crate) type Block = [u64; BLOCK_LEN as usize / size_of::<u64>()];
/// Offset of the length in a UDP header.
const UDP_LEN: usize = 4;
const UDP_HEADER_LEN: u32 = 8;

/// What is being summed up.
struct Segment<'a> {
    ctx: &'a TcContext,
    from: u32,
    len: u32,
    sum: u32,
    is_read: bool,
}

impl Frame {
    /// Whether the checksum of TCP or UDP holds, or is yet to be filled in by a device: then the sum of the pseudo-header
    /// stands there. Of fragments, and of what else has ports, nobody here knows; netfilter sees to the same as it
    /// refuses (`nf_reject_verify_csum`).
    #[inline(never)]
    pub(crate) fn is_intact(&self, ctx: &TcContext) -> bool {
        let protocol = self.tuple.protocol;
        let is_known = matches!(protocol, TCP | UDP) && self.ip.part == Part::Whole;
        if !is_known || self.kind != KIND_WHOLE {
            return true;
        }
        let Ok(field) = load::<2>(ctx, self.checksum()) else { return false };
        let mut len = self.transport_len();
        if protocol == UDP {
            let Ok(said) = load(ctx, self.transport() + UDP_LEN) else { return false };
            let said = u32::from(u16::from_be_bytes(said));
            if said < UDP_HEADER_LEN || said > len {
                return false;
            }
            // None, which IPv6 does not allow (RFC 8200 §8.1).
            if field == [0; 2] {
                return self.is_ipv4();
            }
            len = said;
        }
        let pseudo_header = packet::sum(&self.tuple.source)
            + packet::sum(&self.tuple.destination)
            + packet::sum(&len.to_be_bytes())
            + packet::sum(&[0, protocol]);
        if packet::checksum(pseudo_header) == field.map(|byte| !byte) {
            return true;
        }
        let mut segment = Segment { ctx, from: self.transport, len, sum: 0, is_read: true };
        steps::repeat(len.div_ceil(BLOCK_LEN), &mut segment, add_block);
        let sum = (segment.sum & 0xffff) + (segment.sum >> 16);
        segment.is_read && packet::checksum(pseudo_header + sum) == [0; 2]
    }
}

extern "C" fn add_block(turn: u64, segment: &mut Segment<'_>) -> i64 {
    let done = u32::try_from(turn & 0xffff).unwrap_or_default().wrapping_mul(BLOCK_LEN);
    let left = segment.len.wrapping_sub(done);
    let skb = segment.ctx.skb.skb.cast();
    let Some(block) = maps::block() else { return steps::DONE };
    let from = segment.from.wrapping_add(done);
    let result = if left >= BLOCK_LEN {
        // SAFETY: a running program's context, and as many bytes as there is room for.
        unsafe { bpf_skb_load_bytes(skb, from, block.as_mut_ptr().cast(), BLOCK_LEN) }
    } else {
        // The verifier sees this bound, the compiler takes another one for as good.
        let len = black_box(left) & (BLOCK_LEN - 1);
        if len == 0 {
            return steps::DONE;
        }
        // What is missing counts for nothing.
        block.fill(0);
        // SAFETY: as above, and fewer bytes.
        unsafe { bpf_skb_load_bytes(skb, from, block.as_mut_ptr().cast(), len) }
    };
    if result != 0 {
        segment.is_read = false;
        return steps::DONE;
    }
    let to = block.as_mut_ptr().cast();
    // SAFETY: aligned map memory; nothing is read from the null pointer.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, to, BLOCK_LEN, segment.sum) };
    segment.sum = u32::try_from(sum & 0xffff_ffff).unwrap_or_default();
    steps::GO_ON
}
