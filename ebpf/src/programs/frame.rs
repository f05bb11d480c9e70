//! Frames at the uplink: read into a tuple, rewritten to another.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    programs::TcContext,
};
use bytemuck::Zeroable;
use fairlead_ebpf::{
    abi::{Address, INGRESS, TCP, Tuple, UDP},
    packet::{self, Ip, Skip},
};

use super::low_half;

/// Uplinks are Ethernet devices.
const ETHERNET_HEADER_LEN: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Linux 6.16 (ead7f9b8de65) and stable kernels since: without it an IPv6 address change spoils
/// the sum of devices that report CHECKSUM_COMPLETE.
const BPF_F_IPV6: u64 = 1 << 7;

/// A TCP or UDP packet, and where its parts are.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(crate) struct Frame {
    pub(crate) tuple: Tuple,
    /// 4 or 6.
    version: u32,
    /// Where the TCP or UDP header starts.
    transport: u32,
}

impl Frame {
    /// Reads the frame that passes `hook`.
    // Not inlined: its two headers leave the stack again.
    #[inline(never)]
    pub(crate) fn parse(&mut self, ctx: &TcContext, hook: u8) -> Result<(), Skip> {
        let (version, ip) = match u16::from_be(low_half(ctx.skb.protocol())) {
            ETH_P_IP => (4, packet::ipv4(&load(ctx, ETHERNET_HEADER_LEN)?)?),
            ETH_P_IPV6 => (6, packet::ipv6(&load(ctx, ETHERNET_HEADER_LEN)?)?),
            _ => return Err(Skip::Other),
        };
        let Ip { header_len, protocol, source, destination } = ip;
        let transport = ETHERNET_HEADER_LEN + header_len;
        if packet::is_icmp(protocol) {
            let [icmp_type]: [u8; 1] = load(ctx, transport)?;
            let is_error = packet::is_icmp_error(protocol, icmp_type);
            return Err(if is_error { Skip::IcmpError } else { Skip::Other });
        }
        let [a, b, c, d]: [u8; 4] = load(ctx, transport)?;
        self.tuple = Tuple {
            source,
            destination,
            source_port: [a, b],
            destination_port: [c, d],
            protocol,
            hook,
            zero: [0; 2],
        };
        self.version = version;
        self.transport = u32::try_from(transport).unwrap_or_default();
        Ok(())
    }

    /// Whether the packet may be the first of a connection.
    #[inline(always)]
    pub(crate) fn is_opening(&self, ctx: &TcContext) -> Result<bool, Skip> {
        if self.tuple.protocol == UDP {
            return Ok(true);
        }
        let [flags]: [u8; 1] = load(ctx, self.transport() + packet::TCP_FLAGS)?;
        Ok(packet::opens_connection(flags))
    }

    /// Makes the packet one of `new`, checksums included. After an error it is spoilt.
    #[inline(always)]
    pub(crate) fn rewrite(&self, ctx: &TcContext, new: &Tuple) -> Result<(), i64> {
        let old = &self.tuple;
        // Destinations change on the way in, sources on the way out: never both.
        if old.hook == INGRESS {
            self.replace_address(ctx, &old.destination, &new.destination, true)?;
        } else {
            self.replace_address(ctx, &old.source, &new.source, false)?;
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
        let flags = u64::from(BPF_F_PSEUDO_HDR) | self.keep_zero();
        let checksum = self.checksum();
        if self.version == 4 {
            ctx.l4_csum_replace(checksum, 0, difference, flags)?;
            ctx.l3_csum_replace(ETHERNET_HEADER_LEN + packet::IPV4_CHECKSUM, 0, difference, 0)?;
            let offset = packet::IPV4_SOURCE + if is_destination { 4 } else { 0 };
            return ctx.store(ETHERNET_HEADER_LEN + offset, &packet::unmapped(new), 0);
        }
        if ctx.l4_csum_replace(checksum, 0, difference, flags | BPF_F_IPV6).is_err() {
            ctx.l4_csum_replace(checksum, 0, difference, flags)?;
        }
        let offset = packet::IPV6_SOURCE + if is_destination { 16 } else { 0 };
        ctx.store(ETHERNET_HEADER_LEN + offset, new, 0)
    }

    #[inline(always)]
    fn replace_port(
        &self,
        ctx: &TcContext,
        offset: usize,
        old: [u8; 2],
        new: [u8; 2],
    ) -> Result<(), i64> {
        if old == new {
            return Ok(());
        }
        let word = |port| u64::from(u16::from_ne_bytes(port));
        ctx.l4_csum_replace(self.checksum(), word(old), word(new), 2 | self.keep_zero())?;
        ctx.store(self.transport() + offset, &new, 0)
    }

    #[inline(always)]
    fn transport(&self) -> usize {
        self.transport as usize
    }

    #[inline(always)]
    fn checksum(&self) -> usize {
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

#[inline(always)]
fn load<const LEN: usize>(ctx: &TcContext, offset: usize) -> Result<[u8; LEN], Skip> {
    // The helper refuses what is cut short.
    ctx.load(offset).map_err(|_| Skip::Malformed)
}
