//! Headers as bytes: what is where, and checksums after a change.

use bytemuck::Zeroable;

use crate::abi::{Address, SCTP, TCP, UDP};

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
/// Offset of the sequence number in a TCP header.
pub const TCP_SEQUENCE: usize = 4;
/// Offset of the acknowledgement number in a TCP header.
pub const TCP_ACKNOWLEDGED: usize = 8;
/// Offset of the flags in a TCP header.
pub const TCP_FLAGS: usize = 13;
/// Bytes of a TCP header from the sequence number to the flags.
pub const TCP_NUMBERS_LEN: usize = TCP_FLAGS + 1 - TCP_SEQUENCE;
/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM: usize = 6;
/// Offset of the verification tag in an SCTP header (RFC 9260 §3.1).
pub const SCTP_TAG: usize = 4;
/// Offset of the checksum in an SCTP header (RFC 9260 §3.1).
pub const SCTP_CHECKSUM: usize = 8;
/// Offset of the first chunk's type in an SCTP packet.
pub const SCTP_CHUNK: usize = 12;
/// Offset of the tag that a packet of INIT or INIT ACK asks for.
pub const SCTP_INITIATE_TAG: usize = 16;
/// The chunk that opens an association.
pub const INIT: u8 = 1;
/// The chunk that accepts it.
pub const INIT_ACK: u8 = 2;
/// Offset of the checksum in an ICMP message of either version.
pub const ICMP_CHECKSUM: usize = 2;
/// What precedes the packet an ICMP error is about.
pub const ICMP_HEADER_LEN: usize = 8;
/// Extension headers of one packet that are looked behind; more are nobody's habit.
pub const EXTENSIONS_MAX: usize = 4;

/// Bytes behind the IP header without which there is no transport header: TCP's (RFC 9293 §3.1), UDP's (RFC 768), SCTP's
/// with that of its first chunk (RFC 9260 §3), ICMP's.
#[inline(always)]
pub const fn transport_len_min(protocol: u8) -> usize {
    match protocol {
        TCP => 20,
        SCTP => 16,
        _ => 8,
    }
}

/// IANA protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IANA protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// TCP flag: the sender has no more to say.
pub const FIN: u8 = 0x01;
/// TCP flag: the sender's numbers begin here.
pub const SYN: u8 = 0x02;
/// TCP flag: the connection is refused or broken off.
pub const RST: u8 = 0x04;
/// TCP flag: the acknowledgement number counts.
pub const ACK: u8 = 0x10;

/// What a TCP header says of its place in the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
pub struct Segment {
    /// Sequence number, host byte order.
    pub sequence: u32,
    /// Acknowledgement number, host byte order; it counts only with [`ACK`].
    pub acknowledged: u32,
    /// [`FIN`], [`SYN`] and so on; 0 where there is no TCP header.
    pub flags: u8,
}

impl Segment {
    /// Of what is no TCP, or has no header.
    pub const NONE: Self = Self { sequence: 0, acknowledged: 0, flags: 0 };

    /// Reads the bytes from the sequence number to the flags.
    #[inline(always)]
    pub const fn read(bytes: [u8; TCP_NUMBERS_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, _, flags] = bytes;
        let (sequence, acknowledged) = ([a, b, c, d], [e, f, g, h]);
        Self {
            sequence: u32::from_be_bytes(sequence),
            acknowledged: u32::from_be_bytes(acknowledged),
            flags,
        }
    }
}

/// Which part of a packet a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
#[repr(u32)]
pub enum Part {
    /// All of it.
    Whole = 0,
    /// The first fragment, which has the ports.
    First,
    /// Another fragment: no ports.
    Later,
}

/// The part of an IP header that decides what becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub struct Ip {
    /// Where the transport header starts, counted from the start of this one.
    pub header_len: usize,
    /// Length of the whole, this header included, as it says itself.
    pub len: usize,
    /// What the next header is: [`TCP`], [`UDP`], [`SCTP`] or ICMP of either version; in between, and in fragments after
    /// the first, an extension header of IPv6.
    pub protocol: u8,
    /// IPv4 as v4-mapped.
    pub source: Address,
    /// IPv4 as v4-mapped.
    pub destination: Address,
    /// Whether it is a fragment.
    pub part: Part,
    /// What fragments of one packet have in common.
    pub id: [u8; 4],
    /// What they say comes behind the header that makes them fragments: the same in all, whatever follows it in the first.
    pub fragmented: u8,
}

/// Why a packet is not looked at further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Some other protocol.
    Other,
    /// A fragment whose first one was not seen.
    Fragment,
    /// IPv6 extension headers that are not looked behind.
    ExtensionHeader,
    /// Contradicts itself.
    Malformed,
    /// From an address no host can have.
    Martian,
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
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER_LEN || len < header_len {
        return Err(Skip::Malformed);
    }
    let [.., a, b, c, d, i, j, k, l] = *header;
    let source = [a, b, c, d];
    if is_group([i, j, k, l]) {
        return Err(Skip::Other);
    }
    // RFC 1122 §3.2.1.3: "this network" and loopback never leave a host.
    if is_group(source) || matches!(source[0], 0 | 127) {
        return Err(Skip::Martian);
    }
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let protocol = header[9];
    if !matches!(protocol, TCP | UDP | SCTP | ICMP) {
        return Err(Skip::Other);
    }
    Ok(Ip {
        header_len,
        len,
        protocol,
        source: mapped(source),
        destination: mapped([i, j, k, l]),
        part: part(flags_and_offset & 0x1fff, flags_and_offset & 0x2000 != 0),
        id: [0, 0, header[4], header[5]],
        fragmented: protocol,
    })
}

/// 224.0.0.0/4 and the limited broadcast: no host, and no service. (240.0.0.0/4 is in use.)
#[inline(always)]
fn is_group(address: [u8; 4]) -> bool {
    address[0] & 0xf0 == 0xe0 || address == [255; 4]
}

/// `::` and `::1`, which no packet has on a wire.
#[inline(always)]
fn is_own(address: &Address) -> bool {
    let [high, low]: [u64; 2] = bytemuck::cast(*address);
    high == 0 && u64::from_be(low) <= 1
}

/// Reads an IPv6 header (RFC 8200). Extension headers may follow: see [`extension`].
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
    // RFC 4291 §2.5.3, §2.7. Here v4-mapped means an IPv4 packet: one in IPv6 is forged.
    if source[0] == 0xff || is_own(&source) || is_mapped(&source) || is_mapped(&destination) {
        return Err(Skip::Martian);
    }
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    Ok(Ip {
        header_len: IPV6_HEADER_LEN,
        len: IPV6_HEADER_LEN + payload,
        protocol: header[6],
        source,
        destination,
        part: Part::Whole,
        id: [0; 4],
        fragmented: 0,
    })
}

/// Whether the next header is known; `false` as long as extension headers follow.
#[inline(always)]
pub fn is_transport(ip: &Ip) -> Result<bool, Skip> {
    match ip.protocol {
        TCP | UDP | SCTP | ICMPV6 => Ok(true),
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION => Ok(ip.part == Part::Later),
        // Authentication, mobility, HIP, shim6: what they protect may not be changed.
        51 | 135 | 139 | 140 => Err(Skip::ExtensionHeader),
        _ => Err(Skip::Other),
    }
}

/// Steps over an extension header, which begins with `header` (RFC 8200 §4).
#[inline(always)]
pub fn extension(ip: &mut Ip, header: &[u8; 8]) -> Result<(), Skip> {
    let kind = ip.protocol;
    ip.protocol = header[0];
    if kind == FRAGMENT {
        let offset_and_flags = u16::from_be_bytes([header[2], header[3]]);
        ip.header_len += 8;
        ip.part = part(offset_and_flags >> 3, offset_and_flags & 1 != 0);
        ip.id = [header[4], header[5], header[6], header[7]];
        ip.fragmented = ip.protocol;
        return Ok(());
    }
    // Type 0 is deprecated (RFC 5095); of others the destination is not the last one yet.
    if kind == ROUTING && (header[2] == 0 || header[3] != 0) {
        return Err(Skip::ExtensionHeader);
    }
    ip.header_len += (usize::from(header[1]) + 1) * 8;
    Ok(())
}

#[inline(always)]
fn part(offset: u16, has_more: bool) -> Part {
    match (offset, has_more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
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

/// Whether an ICMP message of this type asks for an echo.
#[inline(always)]
pub fn is_echo_request(protocol: u8, icmp_type: u8) -> bool {
    icmp_type == if protocol == ICMPV6 { 128 } else { 8 }
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

/// RFC 1071 over the words of `bytes` in memory order, folded; add up with others before inverting.
#[inline(always)]
pub fn sum<const LEN: usize>(bytes: &[u8; LEN]) -> u32 {
    let mut sum = 0u32;
    let (pairs, _) = bytes.as_chunks::<2>();
    for pair in pairs {
        sum += u32::from(u16::from_ne_bytes(*pair));
    }
    sum
}

/// The checksum field that makes up for `sum`, in memory order.
#[inline(always)]
pub fn checksum(mut sum: u32) -> [u8; 2] {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from(sum & 0xffff).unwrap_or_default()).to_ne_bytes()
}

#[cfg(test)]
mod tests;
