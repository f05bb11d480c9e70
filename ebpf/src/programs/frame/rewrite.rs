//! From one tuple to another, checksums included.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    programs::TcContext,
};
use fairlead_ebpf::{
    abi::{Address, INGRESS, SCTP, TCP, Tuple, UDP},
    packet::{self, Part},
    sctp,
};

use crate::programs::steps;

use super::{BPF_F_IPV6, Frame, KIND_LATER, load};

impl Frame {
    /// Makes the packet one of `new`. After an error it is spoilt.
    #[inline(always)]
    pub(crate) fn rewrite(&self, ctx: &TcContext, new: &Tuple) -> Result<(), i64> {
        let old = &self.tuple;
        // Destinations change on the way in, sources on the way out: never both.
        if old.hook == INGRESS {
            self.replace_address(ctx, &old.destination, &new.destination, true)?;
        } else {
            self.replace_address(ctx, &old.source, &new.source, false)?;
        }
        if self.kind == KIND_LATER {
            return Ok(());
        }
        if old.protocol == SCTP {
            return self.replace_sctp_ports(ctx, new);
        }
        self.replace_port(ctx, 0, old.source_port, new.source_port)?;
        self.replace_port(ctx, 2, old.destination_port, new.destination_port)
    }

    #[inline(always)]
    fn replace_address(
        &self,
        ctx: &TcContext,
        old: &Address,
        new: &Address,
        is_destination: bool,
    ) -> Result<(), i64> {
        let difference = u64::from(packet::difference(old, new));
        // The first fragment has the sum of all; SCTP's does not cover addresses.
        let has_sum = self.kind != KIND_LATER && self.tuple.protocol != SCTP;
        let flags = u64::from(BPF_F_PSEUDO_HDR) | self.keep_zero();
        let checksum = self.checksum();
        if self.is_ipv4() {
            if has_sum {
                ctx.l4_csum_replace(checksum, 0, difference, flags)?;
            }
            ctx.l3_csum_replace(self.network() + packet::IPV4_CHECKSUM, 0, difference, 0)?;
            let offset = packet::IPV4_SOURCE + if is_destination { 4 } else { 0 };
            return ctx.store(self.network() + offset, &packet::unmapped(new), 0);
        }
        if has_sum && ctx.l4_csum_replace(checksum, 0, difference, flags | BPF_F_IPV6).is_err() {
            ctx.l4_csum_replace(checksum, 0, difference, flags)?;
        }
        let offset = packet::IPV6_SOURCE + if is_destination { 16 } else { 0 };
        ctx.store(self.network() + offset, new, 0)
    }

    #[inline(always)]
    fn replace_port(
        &self,
        ctx: &TcContext,
        offset: usize,
        old: [u8; 2],
        new: [u8; 2],
    ) -> Result<(), i64> {
        let sum = (self.checksum(), self.keep_zero());
        replace_port(ctx, self.transport() + offset, sum, old, new)
    }

    /// Where the device fills the sum in later, what is written here does not matter.
    #[inline(always)]
    fn replace_sctp_ports(&self, ctx: &TcContext, new: &Tuple) -> Result<(), i64> {
        let [[a, b], [c, d]] = [self.tuple.source_port, self.tuple.destination_port];
        let [[e, f], [g, h]] = [new.source_port, new.destination_port];
        let ports = [a ^ e, b ^ f, c ^ g, d ^ h];
        if ports == [0; 4] {
            return Ok(());
        }
        // What the sum changes by depends on the length of the whole, which the first fragment does not know.
        if self.ip.part != Part::Whole {
            return Err(-1);
        }
        let at = self.transport() + packet::SCTP_CHECKSUM;
        let [i, j, k, l]: [u8; 4] = load(ctx, at).map_err(|_| -1)?;
        let mut change = sctp::Change::new(ports, self.transport_len());
        steps::repeat(sctp::Change::STEPS, &mut change, sctp_step);
        let [m, n, o, p] = change.bytes();
        ctx.store(at, &[i ^ m, j ^ n, k ^ o, l ^ p], 0)?;
        ctx.store(self.transport(), &[e, f, g, h], 0)
    }

    #[inline(always)]
    pub(super) fn checksum(&self) -> usize {
        let offset =
            if self.tuple.protocol == TCP { packet::TCP_CHECKSUM } else { packet::UDP_CHECKSUM };
        self.transport() + offset
    }

    /// In UDP a sum of zero says that there is none (RFC 768), and must go on saying so.
    #[inline(always)]
    fn keep_zero(&self) -> u64 {
        if self.tuple.protocol == UDP { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
    }
}

extern "C" fn sctp_step(_: u64, change: &mut sctp::Change) -> i64 {
    change.step();
    steps::GO_ON
}

/// Writes the port at `at` and brings `sum`, an offset and the helper's flags, along.
#[inline(always)]
pub(super) fn replace_port(
    ctx: &TcContext,
    at: usize,
    (sum, flags): (usize, u64),
    old: [u8; 2],
    new: [u8; 2],
) -> Result<(), i64> {
    if old == new {
        return Ok(());
    }
    let word = |port| u64::from(u16::from_ne_bytes(port));
    ctx.l4_csum_replace(sum, word(old), word(new), 2 | flags)?;
    ctx.store(at, &new, 0)
}
