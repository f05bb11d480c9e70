//! From bytes to a tuple.

use aya_ebpf::{bindings::BPF_ANY, programs::TcContext};
use fairlead_ebpf::{
    abi::{FragmentKey, FragmentPorts, Tuple},
    packet::{self, Ip, Part, Skip},
};

use super::{ETHERNET_HEADER_LEN, Frame, KIND_ERROR, KIND_LATER, KIND_PING, KIND_WHOLE, load};
use crate::programs::{low_half, maps};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Length of the largest frame whose IPv4 header can say its length.
const IPV4_LEN_MAX: u32 = 14 + 0xffff;

impl Frame {
    /// Reads the frame that passes `hook`.
    // Not inlined: its headers leave the stack again.
    #[inline(never)]
    pub(crate) fn parse(&mut self, ctx: &TcContext, hook: u8) -> Result<(), Skip> {
        self.version = 0;
        // Tagged frames come again, without the tag, on the device of their VLAN.
        // SAFETY: the context of a running program.
        if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
            return Err(Skip::Other);
        }
        self.version = match u16::from_be(low_half(ctx.skb.protocol())) {
            ETH_P_IP => 4,
            ETH_P_IPV6 => 6,
            _ => return Err(Skip::Other),
        };
        let ip = ip(ctx, ETHERNET_HEADER_LEN, self.version)?;
        let transport = ETHERNET_HEADER_LEN + ip.header_len;
        self.transport = offset(transport);
        self.end = offset(ETHERNET_HEADER_LEN + ip.len);
        if self.end > ctx.len() {
            return Err(Skip::Malformed);
        }
        self.tuple = Tuple {
            source: ip.source,
            destination: ip.destination,
            source_port: [0; 2],
            destination_port: [0; 2],
            protocol: ip.protocol,
            hook,
            zero: [0; 2],
        };
        if packet::is_icmp(ip.protocol) {
            return self.parse_icmp(ctx, &ip);
        }
        self.kind = KIND_WHOLE;
        if ip.part == Part::Whole {
            let [a, b, c, d]: [u8; 4] = load(ctx, transport)?;
            (self.tuple.source_port, self.tuple.destination_port) = ([a, b], [c, d]);
            return Ok(());
        }
        self.parse_fragment(ctx, &ip)
    }

    /// Only the first fragment has ports: it leaves them to the others.
    #[inline(always)]
    fn parse_fragment(&mut self, ctx: &TcContext, ip: &Ip) -> Result<(), Skip> {
        let Tuple { source, destination, hook, .. } = self.tuple;
        let protocol = ip.protocol;
        let key = FragmentKey { source, destination, id: ip.id, protocol, hook, zero: [0; 2] };
        if ip.part == Part::First {
            let [a, b, c, d]: [u8; 4] = load(ctx, self.transport())?;
            (self.tuple.source_port, self.tuple.destination_port) = ([a, b], [c, d]);
            let ports = FragmentPorts { source: [a, b], destination: [c, d] };
            // Without the entry later fragments pass untranslated, and are counted then.
            let _ = maps::FRAGMENTS.insert(key, ports, BPF_ANY.into());
            return Ok(());
        }
        self.kind = KIND_LATER;
        // SAFETY: the reference ends with the copy, under RCU.
        let ports = unsafe { maps::FRAGMENTS.get(key).copied() }.ok_or(Skip::Fragment)?;
        (self.tuple.source_port, self.tuple.destination_port) = (ports.source, ports.destination);
        Ok(())
    }

    /// An error carries the head of the packet it is about, which went the other way.
    #[inline(always)]
    fn parse_icmp(&mut self, ctx: &TcContext, outer: &Ip) -> Result<(), Skip> {
        if outer.part != Part::Whole {
            return Err(Skip::Other);
        }
        let [icmp_type]: [u8; 1] = load(ctx, self.transport())?;
        if packet::is_echo_request(outer.protocol, icmp_type) {
            self.kind = KIND_PING;
            return Ok(());
        }
        if !packet::is_icmp_error(outer.protocol, icmp_type) {
            return Err(Skip::Other);
        }
        let inner = self.transport() + packet::ICMP_HEADER_LEN;
        let ip = ip(ctx, inner, self.version)?;
        if packet::is_icmp(ip.protocol) || ip.part == Part::Later {
            return Err(Skip::Other);
        }
        let transport = inner + ip.header_len;
        let [a, b, c, d]: [u8; 4] = load(ctx, transport)?;
        self.kind = KIND_ERROR;
        self.inner = offset(inner);
        self.inner_transport = offset(transport);
        self.tuple.source = ip.destination;
        self.tuple.destination = ip.source;
        (self.tuple.source_port, self.tuple.destination_port) = ([c, d], [a, b]);
        self.tuple.protocol = ip.protocol;
        Ok(())
    }
}

/// The IP header at `offset`, and the extension headers behind it.
#[inline(always)]
fn ip(ctx: &TcContext, offset: usize, version: u32) -> Result<Ip, Skip> {
    if version == 4 {
        let mut header: [u8; packet::IPV4_HEADER_LEN] = load(ctx, offset)?;
        // Merged segments may be too many for the field, which then is 0 (BIG TCP). How many does
        // not matter here.
        if header[2..4] == [0, 0] && ctx.len() > IPV4_LEN_MAX {
            header[2..4].fill(0xff);
        }
        return packet::ipv4(&header);
    }
    let mut ip = packet::ipv6(&load(ctx, offset)?)?;
    for _ in 0..packet::EXTENSIONS_MAX {
        if packet::is_transport(&ip)? {
            return Ok(ip);
        }
        let header = load(ctx, offset + ip.header_len)?;
        packet::extension(&mut ip, &header)?;
    }
    if packet::is_transport(&ip)? { Ok(ip) } else { Err(Skip::ExtensionHeader) }
}

#[inline(always)]
fn offset(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or_default()
}
