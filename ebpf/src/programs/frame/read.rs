//! From bytes to a tuple.

use aya_ebpf::{bindings::BPF_ANY, programs::TcContext};
use fairlead_ebpf::{
    abi::{FragmentKey, FragmentPorts, INGRESS, Tuple},
    packet::{self, Ip, Part, Skip},
};

use super::{Frame, KIND_ERROR, KIND_LATER, KIND_PING, KIND_WHOLE, load};
use crate::programs::{low_half, maps};

/// The part of a tag that names the VLAN (IEEE 802.1Q §9.6).
const VLAN_ID: u32 = 0x0fff;
/// `linux/if_packet.h`.
const PACKET_BROADCAST: u32 = 1;
const PACKET_MULTICAST: u32 = 2;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Source and destination, with which the headers of TCP, UDP and SCTP begin.
const PORTS_LEN: usize = 4;
/// Length of the largest packet whose IPv4 header can say its length.
pub(super) const IPV4_LEN_MAX: u32 = 0xffff;
/// The same of IPv6, whose header does not count itself.
const IPV6_LEN_MAX: u32 = IPV4_LEN_MAX + 40;

impl Frame {
    /// Reads the frame that passes `hook`.
    // Not inlined: its headers leave the stack again.
    #[inline(never)]
    pub(crate) fn parse(&mut self, ctx: &TcContext, hook: u8) -> Result<(), Skip> {
        self.version = 0;
        // Tagged frames come again, without the tag, on the device of their VLAN. VLAN 0 is none: such a tag says a
        // priority only, and the frame is this device's own (IEEE 802.1Q §6.9.1, __netif_receive_skb_core).
        // SAFETY: the context of a running program.
        if unsafe { (*ctx.skb.skb).vlan_tci } & VLAN_ID != 0 {
            return Err(Skip::Other);
        }
        // The kernel opens no connection by a frame for all stations (tcp_v4_rcv, ip_forward), and answers none (RFC 1122
        // §3.2.2). One for another station is: a pod on a bridge sends to the bridge's address.
        // SAFETY: as above.
        let pkt_type = unsafe { (*ctx.skb.skb).pkt_type };
        if hook == INGRESS && matches!(pkt_type, PACKET_BROADCAST | PACKET_MULTICAST) {
            return Err(Skip::Other);
        }
        self.version = match u16::from_be(low_half(ctx.skb.protocol())) {
            ETH_P_IP => 4,
            ETH_P_IPV6 => 6,
            _ => return Err(Skip::Other),
        };
        self.network = maps::link_len(ctx);
        let network = self.network();
        read_ip(ctx, network, self.version, &mut self.ip)?;
        self.transport = offset(network + self.ip.header_len);
        self.end = offset(network + self.ip.len);
        if self.end > ctx.len() {
            return Err(Skip::Malformed);
        }
        // What follows the packet in its frame is padding, which the kernel cuts off: neither ports nor extension headers
        // are read from it.
        let least = match self.ip.part {
            Part::Later => 0,
            _ => packet::transport_len_min(self.ip.protocol),
        };
        if self.transport() + least > self.end() {
            return Err(Skip::Malformed);
        }
        self.tuple.source = self.ip.source;
        self.tuple.destination = self.ip.destination;
        (self.tuple.source_port, self.tuple.destination_port) = ([0; 2], [0; 2]);
        (self.tuple.protocol, self.tuple.hook, self.tuple.zero) = (self.ip.protocol, hook, [0; 2]);
        if packet::is_icmp(self.ip.protocol) {
            return self.parse_icmp(ctx);
        }
        self.kind = KIND_WHOLE;
        match self.ip.part {
            Part::Whole => self.read_ports(ctx),
            Part::First | Part::Later => self.parse_fragment(ctx),
        }
    }

    #[inline(always)]
    fn read_ports(&mut self, ctx: &TcContext) -> Result<(), Skip> {
        let [a, b, c, d]: [u8; 4] = load(ctx, self.transport())?;
        (self.tuple.source_port, self.tuple.destination_port) = ([a, b], [c, d]);
        Ok(())
    }

    /// Only the first fragment has ports: it leaves them to the others.
    #[inline(never)]
    fn parse_fragment(&mut self, ctx: &TcContext) -> Result<(), Skip> {
        let Tuple { source, destination, protocol, hook, .. } = self.tuple;
        let Ip { id, fragmented, .. } = self.ip;
        let key = FragmentKey { source, destination, id, protocol: fragmented, hook, zero: [0; 2] };
        if self.ip.part == Part::First {
            self.read_ports(ctx)?;
            let Tuple { source_port, destination_port, .. } = self.tuple;
            let ports = FragmentPorts {
                source: source_port,
                destination: destination_port,
                protocol,
                zero: [0; 3],
            };
            // Without the entry later fragments pass untranslated, and are counted then.
            let _ = maps::FRAGMENTS.insert(key, ports, BPF_ANY.into());
            return Ok(());
        }
        self.kind = KIND_LATER;
        // SAFETY: the reference ends with the copy, under RCU.
        let ports = unsafe { maps::FRAGMENTS.get(key).copied() }.ok_or(Skip::Fragment)?;
        (self.tuple.source_port, self.tuple.destination_port) = (ports.source, ports.destination);
        self.tuple.protocol = ports.protocol;
        Ok(())
    }

    /// An error carries the head of the packet it is about, which went the other way.
    #[inline(always)]
    fn parse_icmp(&mut self, ctx: &TcContext) -> Result<(), Skip> {
        if self.ip.part != Part::Whole {
            return Err(Skip::Other);
        }
        let protocol = self.ip.protocol;
        let [icmp_type]: [u8; 1] = load(ctx, self.transport())?;
        if packet::is_echo_request(protocol, icmp_type) {
            self.kind = KIND_PING;
            return Ok(());
        }
        if !packet::is_icmp_error(protocol, icmp_type) {
            return Err(Skip::Other);
        }
        let inner = self.transport() + packet::ICMP_HEADER_LEN;
        read_ip(ctx, inner, self.version, &mut self.quoted)?;
        if packet::is_icmp(self.quoted.protocol) || self.quoted.part == Part::Later {
            return Err(Skip::Other);
        }
        let transport = inner + self.quoted.header_len;
        if transport + PORTS_LEN > self.end() {
            return Err(Skip::Malformed);
        }
        let [a, b, c, d]: [u8; 4] = load(ctx, transport)?;
        self.kind = KIND_ERROR;
        self.inner = offset(inner);
        self.inner_transport = offset(transport);
        self.tuple.source = self.quoted.destination;
        self.tuple.destination = self.quoted.source;
        (self.tuple.source_port, self.tuple.destination_port) = ([c, d], [a, b]);
        self.tuple.protocol = self.quoted.protocol;
        Ok(())
    }
}

/// The IP header at `offset`, and the extension headers behind it.
///
/// `ip` is in a map: of what is written there the verifier remembers nothing, so that each way
/// through the headers does not make another of all that follows.
///
/// Merged segments may be too many for the field that says their length, which then is 0 (BIG TCP;
/// a hop-by-hop option may say it, RFC 2675). How many does not matter here.
#[inline(never)]
fn read_ip(ctx: &TcContext, offset: usize, version: u32, ip: &mut Ip) -> Result<(), Skip> {
    let left = ctx.len().wrapping_sub(self::offset(offset));
    if version == 4 {
        let mut header: [u8; packet::IPV4_HEADER_LEN] = load(ctx, offset)?;
        if header[2..4] == [0, 0] && left > IPV4_LEN_MAX {
            header[2..4].fill(0xff);
        }
        *ip = packet::ipv4(&header)?;
        return Ok(());
    }
    let mut header: [u8; packet::IPV6_HEADER_LEN] = load(ctx, offset)?;
    if header[4..6] == [0, 0] && left > IPV6_LEN_MAX {
        header[4..6].fill(0xff);
    }
    *ip = packet::ipv6(&header)?;
    for _ in 0..packet::EXTENSIONS_MAX {
        if packet::is_transport(ip)? {
            return Ok(());
        }
        let header = load(ctx, offset + ip.header_len)?;
        packet::extension(ip, &header)?;
    }
    if packet::is_transport(ip)? { Ok(()) } else { Err(Skip::ExtensionHeader) }
}

#[inline(always)]
fn offset(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or_default()
}
