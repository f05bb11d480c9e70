//! Headers as bytes: what is where, and checksums after a change.

use crate::abi::{Address, TCP, UDP};

/// Length of an IPv4 header without options.
pub const IPV4_HEADER_LEN: usize = 20;
/// Length of an IPv6 header without extension headers.
pub const IPV6_HEADER_LEN: usize = 40;
/// Offset of the header checksum in an IPv4 header.
pub const IPV4_CHECKSUM: usize = 10;
/// Offset of the source address in an IPv4 header; the destination follows it.
pub const IPV4_SOURCE: usize = 12;
/// Offset of the source address in an IPv6 header; the destination follows it.
pub const IPV6_SOURCE: usize = 8;
/// Offset of the flags in a TCP header.
pub const TCP_FLAGS: usize = 13;
/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM: usize = 6;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The part of an IP header that decides what becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Where the next header starts, counted from the start of this one.
    pub header_len: usize,
    /// What the next header is: [`TCP`], [`UDP`] or ICMP of either version.
    pub protocol: u8,
    /// IPv4 as v4-mapped.
    pub source: Address,
    /// IPv4 as v4-mapped.
    pub destination: Address,
}

/// Why a packet is not looked at further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Some other protocol.
    Other,
    /// An ICMP error: it may concern a translated connection.
    IcmpError,
    /// A fragment: only the first one has ports.
    Fragment,
    /// IPv6 extension headers come first.
    ExtensionHeader,
    /// Contradicts itself.
    Malformed,
}

/// IPv4 as `::ffff:a.b.c.d`.
#[inline(always)]
pub const fn mapped(address: [u8; 4]) -> Address {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The IPv4 address in a v4-mapped one. Call it only for those.
#[inline(always)]
pub const fn unmapped(address: &Address) -> [u8; 4] {
    [address[12], address[13], address[14], address[15]]
}

/// Whether the address is IPv4 as v4-mapped.
#[inline(always)]
pub fn is_mapped(address: &Address) -> bool {
    address[..12] == crate::abi::ANY_V4[..12]
}

/// Reads an IPv4 header (RFC 791).
#[inline(always)]
pub fn ipv4(header: &[u8; IPV4_HEADER_LEN]) -> Result<Ip, Skip> {
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER_LEN {
        return Err(Skip::Malformed);
    }
    // 224.0.0.0/3: no service is multicast or broadcast.
    if header[16] >= 224 {
        return Err(Skip::Other);
    }
    let more_fragments_or_offset = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if more_fragments_or_offset != 0 {
        return Err(Skip::Fragment);
    }
    let protocol = header[9];
    match protocol {
        TCP | UDP | ICMP => Ok(Ip {
            header_len,
            protocol,
            source: mapped([header[12], header[13], header[14], header[15]]),
            destination: mapped([header[16], header[17], header[18], header[19]]),
        }),
        _ => Err(Skip::Other),
    }
}

/// Reads an IPv6 header (RFC 8200).
#[inline(always)]
pub fn ipv6(header: &[u8; IPV6_HEADER_LEN]) -> Result<Ip, Skip> {
    if header[0] >> 4 != 6 {
        return Err(Skip::Malformed);
    }
    // ff00::/8: no service is multicast. Group reports carry hop-by-hop options (RFC 3810 §5).
    if header[24] == 0xff {
        return Err(Skip::Other);
    }
    let mut source = [0; 16];
    let mut destination = [0; 16];
    source.copy_from_slice(&header[8..24]);
    destination.copy_from_slice(&header[24..40]);
    match header[6] {
        protocol @ (TCP | UDP | ICMPV6) => {
            Ok(Ip { header_len: IPV6_HEADER_LEN, protocol, source, destination })
        }
        44 => Err(Skip::Fragment),
        // Hop-by-hop, routing, authentication, destination options, mobility, HIP, shim6.
        0 | 43 | 51 | 60 | 135 | 139 | 140 => Err(Skip::ExtensionHeader),
        _ => Err(Skip::Other),
    }
}

/// Whether `protocol` is ICMP of either version.
#[inline(always)]
pub fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6)
}

/// Whether an ICMP message of this type reports an error (RFC 792, RFC 4443 §2.1).
#[inline(always)]
pub fn is_icmp_error(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        ICMPV6 => icmp_type < 128,
        _ => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
    }
}

/// Whether TCP flags open a connection from the client's side.
#[inline(always)]
pub fn opens_connection(tcp_flags: u8) -> bool {
    tcp_flags & (SYN | ACK | RST | FIN) == SYN
}

/// What replacing `old` by `new` adds to a ones' complement sum (RFC 1624, eqn. 3), for the
/// `to` argument of the `bpf_l3_csum_replace` and `bpf_l4_csum_replace` helpers.
///
/// The twelve bytes two v4-mapped addresses share cancel out, so IPv4 needs no case of its own.
#[inline(always)]
pub fn difference(old: &Address, new: &Address) -> u32 {
    let (old, new): ([u32; 4], [u32; 4]) = (bytemuck::cast(*old), bytemuck::cast(*new));
    let mut sum = 0u64;
    for (old, new) in old.into_iter().zip(new) {
        sum += u64::from(!old) + u64::from(new);
    }
    // Eight 32-bit words: the first fold leaves at most one bit of carry, the second none.
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    u32::try_from(sum).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
