//! Refusing in the service's name: a packet is turned into its answer and sent back.

use aya_ebpf::{
    bindings::{BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT},
    helpers::generated::bpf_skb_change_tail,
    programs::TcContext,
};
use fairlead_ebpf::{
    abi::TCP,
    packet::{self, ACK, ICMP, ICMP_HEADER_LEN, ICMPV6, IPV4_HEADER_LEN, IPV6_HEADER_LEN, RST},
    select::Origin,
};

use super::{
    back,
    frame::{Frame, load},
    steps,
};

const HOPS: u8 = 64;
/// What of the packet's transport header an error carries: enough to know the socket by.
const QUOTED: usize = 8;
/// Bytes copied at once: headers are so many times long.
const WORD: usize = 4;
/// IP headers, and what follows them, of packets that are answered by ICMP: all of IPv4's, of IPv6 the usual extension
/// headers. Answers fit every path (RFC 4443 §2.4).
const QUOTE_MAX: usize = 512;

/// TCP is reset, anything else told that the port is unreachable. What cannot be answered is
/// dropped; so is what was damaged on its way, whose ports and addresses may be anybody's.
#[inline(always)]
pub(crate) fn answer(ctx: &TcContext, frame: &Frame, origin: Origin) -> i32 {
    if !frame.is_intact(ctx) {
        return TC_ACT_SHOT;
    }
    let answered = if frame.tuple.protocol == TCP {
        reset(ctx, frame)
    } else if frame.is_ipv4() {
        unreachable_v4(ctx, frame)
    } else {
        unreachable_v6(ctx, frame)
    };
    match answered {
        Ok(()) => back::send(ctx, frame, origin),
        Err(_) => TC_ACT_SHOT,
    }
}

/// In place, field by field: sums that a device is yet to fill in stay so, and options and data
/// may stay where they are (RFC 9293 §3.5.3, RFC 1122 §4.2.2.12).
#[inline(never)]
fn reset(ctx: &TcContext, frame: &Frame) -> Result<(), i64> {
    let at = frame.transport();
    let [ports, sequence, acknowledged, rest]: [[u8; 4]; 4] =
        bytemuck::cast(load::<16>(ctx, at).map_err(|_| -1)?);
    let [offset, flags, _, _] = rest;
    if flags & RST != 0 {
        return Err(-1);
    }
    // SYN counts as one. Data on it is acknowledged with the next try, of which there is none.
    let next = u32::from_be_bytes(sequence).wrapping_add(1).to_be_bytes();
    let new_rest = [offset, RST | ACK, 0, 0];
    let sum = at + packet::TCP_CHECKSUM;
    for (old, new) in [(sequence, [0; 4]), (acknowledged, next), (rest, new_rest)] {
        let (old, new) = (u32::from_ne_bytes(old), u32::from_ne_bytes(new));
        ctx.l4_csum_replace(sum, old.into(), new.into(), 4)?;
    }
    let [a, b, c, d] = ports;
    ctx.store(at, &[c, d, a, b], 0)?;
    ctx.store(at + 4, &[0u8; 4], 0)?;
    ctx.store(at + 8, &next, 0)?;
    ctx.store(at + 12, &new_rest, 0)?;
    turn(ctx, frame)
}

/// Swaps the addresses, which no sum notices, and gives the packet its hops back.
#[inline(always)]
fn turn(ctx: &TcContext, frame: &Frame) -> Result<(), i64> {
    let (source, destination) = (&frame.tuple.source, &frame.tuple.destination);
    if !frame.is_ipv4() {
        let at = frame.network() + packet::IPV6_SOURCE;
        ctx.store(at, destination, 0)?;
        ctx.store(at + 16, source, 0)?;
        return ctx.store(frame.network() + 7, &HOPS, 0);
    }
    let at = frame.network() + packet::IPV4_SOURCE;
    ctx.store(at, &packet::unmapped(destination), 0)?;
    ctx.store(at + 4, &packet::unmapped(source), 0)?;
    let [hops, protocol]: [u8; 2] = load(ctx, frame.network() + 8).map_err(|_| -1)?;
    let word = |hops| u64::from(u16::from_ne_bytes([hops, protocol]));
    let sum = frame.network() + packet::IPV4_CHECKSUM;
    ctx.l3_csum_replace(sum, word(hops), word(HOPS), 2)?;
    ctx.store(frame.network() + 8, &HOPS, 0)
}

/// ICMP type 3 code 3 (RFC 792).
#[inline(never)]
fn unreachable_v4(ctx: &TcContext, frame: &Frame) -> Result<(), i64> {
    let message = frame.network() + IPV4_HEADER_LEN;
    let Quote { len, sum, .. } = quote(ctx, frame, IPV4_HEADER_LEN)?;
    let [a, b] = packet::checksum(packet::sum(&[3, 3]) + sum);
    let icmp = [3u8, 3, a, b, 0, 0, 0, 0];
    let [.., high, low] = (IPV4_HEADER_LEN + ICMP_HEADER_LEN + len).to_be_bytes();
    let start = [0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, ICMP];
    let [source, destination] =
        [&frame.tuple.destination, &frame.tuple.source].map(packet::unmapped);
    let sum = packet::sum(&start) + packet::sum(&source) + packet::sum(&destination);
    let sum = packet::checksum(sum);
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    ctx.store(frame.network(), &start, flags)?;
    ctx.store(frame.network() + packet::IPV4_CHECKSUM, &sum, flags)?;
    ctx.store(frame.network() + packet::IPV4_SOURCE, &source, flags)?;
    ctx.store(frame.network() + packet::IPV4_SOURCE + 4, &destination, flags)?;
    ctx.store(message, &icmp, flags)
}

/// ICMPv6 type 1 code 4 (RFC 4443 §3.1).
#[inline(never)]
fn unreachable_v6(ctx: &TcContext, frame: &Frame) -> Result<(), i64> {
    let message = frame.network() + IPV6_HEADER_LEN;
    let Quote { len, sum, .. } = quote(ctx, frame, IPV6_HEADER_LEN)?;
    let [.., high, low] = (ICMP_HEADER_LEN + len).to_be_bytes();
    let pseudo_header = packet::sum(&frame.tuple.source)
        + packet::sum(&frame.tuple.destination)
        + packet::sum(&[high, low, 0, ICMPV6]);
    let [a, b] = packet::checksum(pseudo_header + packet::sum(&[1, 4]) + sum);
    let icmp = [1u8, 4, a, b, 0, 0, 0, 0];
    let start = [0x60, 0, 0, 0, high, low, ICMPV6, HOPS];
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    ctx.store(frame.network(), &start, flags)?;
    let addresses = frame.network() + packet::IPV6_SOURCE;
    ctx.store(addresses, &frame.tuple.destination, flags)?;
    ctx.store(addresses + 16, &frame.tuple.source, flags)?;
    ctx.store(message, &icmp, flags)
}

/// What of a packet an error carries: its IP header, options and extension headers included, and [`QUOTED`] bytes more.
struct Quote<'a> {
    ctx: &'a TcContext,
    /// Where it started.
    network: usize,
    /// How many bytes.
    len: usize,
    /// How much further back they stand than they stood.
    shift: usize,
    /// Of their words.
    sum: u32,
    result: Result<(), i64>,
}

/// Makes room for an IP header of this length and ICMP's before what is quoted, which becomes all that follows.
#[inline(always)]
fn quote<'a>(ctx: &'a TcContext, frame: &Frame, header_len: usize) -> Result<Quote<'a>, i64> {
    let len = frame.transport() + QUOTED - frame.network();
    if len > QUOTE_MAX {
        return Err(-1);
    }
    let shift = header_len + ICMP_HEADER_LEN;
    resize(ctx, frame.network() + shift + len)?;
    let mut quote = Quote { ctx, network: frame.network(), len, shift, sum: 0, result: Ok(()) };
    let words = u32::try_from(len / WORD).unwrap_or_default();
    steps::repeat(words, &mut quote, quote_word);
    quote.result.map(|()| quote)
}

/// From behind: what is quoted may be longer than its way.
extern "C" fn quote_word(turn: u64, quote: &mut Quote<'_>) -> i64 {
    let before = usize::try_from(turn).unwrap_or_default() * WORD + WORD;
    let from = quote.network.wrapping_add(quote.len).wrapping_sub(before);
    let word: [u8; WORD] = load(quote.ctx, from).unwrap_or_default();
    quote.sum += packet::sum(&word);
    quote.result =
        quote.ctx.store(from.wrapping_add(quote.shift), &word, BPF_F_RECOMPUTE_CSUM.into());
    if quote.result.is_ok() { steps::GO_ON } else { steps::DONE }
}

#[inline(always)]
fn resize(ctx: &TcContext, len: usize) -> Result<(), i64> {
    let len = u32::try_from(len).unwrap_or_default();
    // SAFETY: the context of a running program.
    let result = unsafe { bpf_skb_change_tail(ctx.skb.skb, len, 0) };
    if result == 0 { Ok(()) } else { Err(result) }
}
