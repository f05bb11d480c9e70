//! Ethernet frames, built and read by other code than the programs'.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, SocketAddr};

use fairlead_ebpf::abi::{SCTP, TCP, UDP};

/// TCP flags.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
const FIN: u8 = 0x01;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;

/// What is sent, or what a frame was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) protocol: u8,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// Of TCP; 0 for UDP.
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    /// A SYN or a datagram.
    pub(crate) fn first(protocol: u8, from: &str, to: &str) -> Self {
        Self {
            protocol,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            flags: if protocol == TCP { SYN } else { 0 },
            // Odd, so that the checksum's padding is exercised.
            payload: b"hello".to_vec(),
        }
    }

    /// A later packet the same way.
    pub(crate) fn later(&self) -> Self {
        self.with_flags(ACK)
    }

    /// What the receiver answers.
    pub(crate) fn reply(&self) -> Self {
        Self { from: self.to, to: self.from, ..self.with_flags(SYN | ACK) }
    }

    /// The last packet its sender sends.
    pub(crate) fn fin(&self) -> Self {
        self.with_flags(FIN | ACK)
    }

    /// Breaks the connection off.
    pub(crate) fn reset(&self) -> Self {
        self.with_flags(RST)
    }

    fn with_flags(&self, flags: u8) -> Self {
        Self { flags: if self.protocol == TCP { flags } else { 0 }, ..self.clone() }
    }

    /// The frame, with correct checksums.
    pub(crate) fn frame(&self) -> Vec<u8> {
        self.frame_with(&[])
    }

    /// The same with IPv4 options, a multiple of four bytes.
    pub(crate) fn frame_with(&self, options: &[u8]) -> Vec<u8> {
        let mut transport = self.transport();
        let offset = checksum_offset(self.protocol);
        let sum = !sum(&[pseudo_header(self, transport.len()), transport.clone()].concat());
        // RFC 768: a computed zero is sent as all ones.
        let sum = if self.protocol == UDP && sum == 0 { 0xffff } else { sum };
        transport[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
        let header = ip_header(self, transport.len(), options);
        [vec![2; 6], vec![4; 6], ethertype(self.from.ip()), header, transport].concat()
    }

    /// Of a TCP packet what follows the IP header, at this place in its connection.
    pub(crate) fn segment(&self, sequence: u32, acknowledged: u32) -> Vec<u8> {
        let mut segment = self.transport();
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        let sum = !sum(&[pseudo_header(self, segment.len()), segment.clone()].concat());
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let rest = if self.protocol == TCP {
            [[0; 8].as_slice(), &[0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
        } else {
            let len = u16::try_from(8 + self.payload.len()).unwrap();
            [len.to_be_bytes(), [0, 0]].concat()
        };
        [ports, rest, self.payload.clone()].concat()
    }

    /// Reads a frame whose IPv4 header has `options` bytes of options; every checksum must hold.
    pub(crate) fn read_with(frame: &[u8], options: usize) -> Self {
        let packet = Self::parse(frame, options);
        let is_ipv4 = is_ipv4(frame);
        let (header, transport) = frame[14..].split_at(if is_ipv4 { 20 + options } else { 40 });
        if is_ipv4 {
            assert_eq!(sum(header), 0xffff, "IPv4 header checksum of {packet:?}");
        }
        let offset = checksum_offset(packet.protocol);
        if packet.protocol == TCP || transport[offset..offset + 2] != [0, 0] {
            let all = [pseudo_header(&packet, transport.len()), transport.to_vec()].concat();
            assert_eq!(sum(&all), 0xffff, "TCP or UDP checksum of {packet:?}");
        }
        packet
    }

    /// As [`Packet::read`], whatever the checksums.
    pub(crate) fn read_unchecked(frame: &[u8]) -> Self {
        Self::parse(frame, 0)
    }

    fn parse(frame: &[u8], options: usize) -> Self {
        let is_ipv4 = is_ipv4(frame);
        let ip = &frame[14..];
        let (header_len, protocol) = if is_ipv4 { (20 + options, ip[9]) } else { (40, ip[6]) };
        let (header, transport) = ip.split_at(header_len);
        let address = |v4: usize, v6: usize| -> IpAddr {
            if is_ipv4 {
                IpAddr::from(<[u8; 4]>::try_from(&header[v4..v4 + 4]).unwrap())
            } else {
                IpAddr::from(<[u8; 16]>::try_from(&header[v6..v6 + 16]).unwrap())
            }
        };
        let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        Self {
            protocol,
            from: (address(12, 8), port(0)).into(),
            to: (address(16, 24), port(2)).into(),
            flags: if protocol == TCP { transport[13] } else { 0 },
            payload: transport[if protocol == TCP { 20 } else { 8 }..].to_vec(),
        }
    }

    /// As [`Packet::read_with`], without options.
    pub(crate) fn read(frame: &[u8]) -> Self {
        Self::read_with(frame, 0)
    }
}

/// Takes the UDP checksum out of an IPv4 frame: there is none (RFC 768).
pub(crate) fn without_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    frame[14 + 20 + 6..14 + 20 + 8].fill(0);
    frame
}

/// So many bytes from `from` on, a multiple of eight, of what follows a packet's IP header, as a fragment of it.
pub(crate) fn fragment(frame: &[u8], from: usize, len: usize) -> Vec<u8> {
    let (header, payload) = frame.split_at(if is_ipv4(frame) { 34 } else { 54 });
    let to = payload.len().min(from + len);
    let has_more = to < payload.len();
    let (offset, len) = (u16::try_from(from).unwrap(), u16::try_from(to - from).unwrap());
    if is_ipv4(frame) {
        let mut fragment = [header, &payload[from..to]].concat();
        let place = (offset / 8) | if has_more { 0x2000 } else { 0 };
        fragment[16..18].copy_from_slice(&(20 + len).to_be_bytes());
        fragment[20..22].copy_from_slice(&place.to_be_bytes());
        refresh_header(&mut fragment);
        return fragment;
    }
    // RFC 8200 §4.5.
    let [high, low] = (offset | u16::from(has_more)).to_be_bytes();
    let extension = [frame[20], 0, high, low, 0, 0, 0, 1];
    let mut fragment = [header, &extension, &payload[from..to]].concat();
    fragment[18..20].copy_from_slice(&(8 + len).to_be_bytes());
    fragment[20] = 44;
    fragment
}

/// The packet whose fragments, side by side in this order, are these. They must be of the same two hosts, as whoever puts
/// them together sees to (RFC 791, RFC 8200 §4.5).
pub(crate) fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let first = &fragments[0];
    let hosts = if is_ipv4(first) { 26..34 } else { 22..54 };
    for fragment in fragments {
        assert_eq!(fragment[hosts.clone()], first[hosts.clone()], "of one packet");
    }
    let (header_end, start) = if is_ipv4(first) { (34, 34) } else { (54, 62) };
    let payload: Vec<u8> = fragments.iter().flat_map(|part| part[start..].to_vec()).collect();
    let len = u16::try_from(payload.len()).unwrap();
    let mut whole = [&first[..header_end], &payload].concat();
    if is_ipv4(first) {
        whole[16..18].copy_from_slice(&(20 + len).to_be_bytes());
        whole[20..22].copy_from_slice(&[0x40, 0]);
        refresh_header(&mut whole);
    } else {
        whole[18..20].copy_from_slice(&len.to_be_bytes());
        whole[20] = first[54];
    }
    whole
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x00]
}

fn ethertype(ip: IpAddr) -> Vec<u8> {
    if ip.is_ipv4() { vec![0x08, 0x00] } else { vec![0x86, 0xdd] }
}

/// Gives an IPv4 header without options its checksum.
pub(crate) fn refresh_header(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = !sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// An SCTP packet with one chunk of this type and no content.
pub(crate) fn sctp(from: &str, to: &str, chunk: u8) -> Vec<u8> {
    sctp_tagged(from, to, chunk, [9; 4])
}

/// The same with this verification tag.
pub(crate) fn sctp_tagged(from: &str, to: &str, chunk: u8, tag: [u8; 4]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let chunk = [chunk, 0, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    let mut packet = [&ports[..], &tag, &[0; 4], &chunk].concat();
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    let outer = Packet { protocol: SCTP, from, to, flags: 0, payload: vec![] };
    let header = ip_header(&outer, packet.len(), &[]);
    [vec![2; 6], vec![4; 6], ethertype(from.ip()), header, packet].concat()
}

/// Both ends of an SCTP packet, whose checksums must hold.
pub(crate) fn read_sctp(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let (header, transport) = frame[14..].split_at(if is_ipv4(frame) { 20 } else { 40 });
    if is_ipv4(frame) {
        assert_eq!(sum(header), 0xffff, "IPv4 header checksum");
    }
    let mut packet = transport.to_vec();
    let found: [u8; 4] = packet[8..12].try_into().unwrap();
    packet[8..12].fill(0);
    assert_eq!(u32::from_le_bytes(found), crc32c(&packet), "SCTP checksum");
    let Packet { from, to, .. } = Packet::read_unchecked(frame);
    (from, to)
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 };
        }
    }
    !crc
}

/// "Packet too big" (RFC 1191, RFC 8201) from `router` to `to`, about `packet`.
pub(crate) fn too_big(router: IpAddr, to: IpAddr, packet: &Packet) -> Vec<u8> {
    let start = if router.is_ipv4() { [3, 4] } else { [2, 0] };
    icmp_error(router, to, start, 1280, packet)
}

/// "Port unreachable" (RFC 792, RFC 4443 §3.1) from `host` to `to`, about `packet`.
pub(crate) fn unreachable(host: IpAddr, to: IpAddr, packet: &Packet) -> Vec<u8> {
    let start = if host.is_ipv4() { [3, 3] } else { [1, 4] };
    icmp_error(host, to, start, 0, packet)
}

/// An error of this type and code, with this in the second half of its header.
fn icmp_error(from: IpAddr, to: IpAddr, start: [u8; 2], rest: u32, packet: &Packet) -> Vec<u8> {
    let quoted = packet.frame()[14..].to_vec();
    let protocol = if from.is_ipv4() { 1 } else { 58 };
    let mut message = [&start[..], &[0, 0], &rest.to_be_bytes(), &quoted].concat();
    let ends = (SocketAddr::new(from, 0), SocketAddr::new(to, 0));
    let outer = Packet { protocol, from: ends.0, to: ends.1, flags: 0, payload: vec![] };
    let covered = if from.is_ipv4() {
        message.clone()
    } else {
        [pseudo_header(&outer, message.len()), message.clone()].concat()
    };
    let sum = !sum(&covered);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = ip_header(&outer, message.len(), &[]);
    [vec![2; 6], vec![4; 6], ethertype(from), header, message].concat()
}

/// Sender, receiver and message of an ICMP frame; its checksums must hold.
fn read_icmp(frame: &[u8]) -> (IpAddr, IpAddr, &[u8]) {
    let is_ipv4 = is_ipv4(frame);
    let ip = &frame[14..];
    let (header, message) = ip.split_at(if is_ipv4 { 20 } else { 40 });
    let address = |v4: usize, v6: usize| -> IpAddr {
        if is_ipv4 {
            IpAddr::from(<[u8; 4]>::try_from(&header[v4..v4 + 4]).unwrap())
        } else {
            IpAddr::from(<[u8; 16]>::try_from(&header[v6..v6 + 16]).unwrap())
        }
    };
    let (from, to) = (address(12, 8), address(16, 24));
    let (len, said) = if is_ipv4 {
        assert_eq!(sum(header), 0xffff, "IPv4 header checksum");
        assert_eq!(sum(message), 0xffff, "ICMP checksum");
        (ip.len(), [header[2], header[3]])
    } else {
        let (from, to) = (SocketAddr::new(from, 0), SocketAddr::new(to, 0));
        let outer = Packet { protocol: 58, from, to, flags: 0, payload: vec![] };
        let all = [pseudo_header(&outer, message.len()), message.to_vec()].concat();
        assert_eq!(sum(&all), 0xffff, "ICMPv6 checksum");
        (message.len(), [header[4], header[5]])
    };
    assert_eq!(usize::from(u16::from_be_bytes(said)), len, "length in the IP header");
    (from, to, message)
}

/// Sender, receiver and quote of "port unreachable", whose code depends on the version.
pub(crate) fn read_unreachable(frame: &[u8], v4: u8, v6: u8) -> (IpAddr, IpAddr, &[u8]) {
    let (from, to, message) = read_icmp(frame);
    let expected = if from.is_ipv4() { [3, v4] } else { [1, v6] };
    assert_eq!(message[..2], expected, "type and code");
    (from, to, &message[8..])
}

/// Sender, receiver and quoted packet, whose IP header must be right, of "packet too big". (The
/// quoted transport checksum is not: nobody looks at it.)
pub(crate) fn read_too_big(frame: &[u8]) -> (IpAddr, IpAddr, Packet) {
    let (from, to, message) = read_icmp(frame);
    let quoted = [&frame[..14], &message[8..]].concat();
    let is_ipv4 = from.is_ipv4();
    if is_ipv4 {
        assert_eq!(sum(&quoted[14..34]), 0xffff, "quoted IPv4 header's checksum");
    }
    (from, to, Packet::read_unchecked(&quoted))
}

fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

fn ip_header(packet: &Packet, transport_len: usize, options: &[u8]) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let addresses = [octets(packet.from.ip()), octets(packet.to.ip())].concat();
    if packet.from.is_ipv6() {
        let len = u16::try_from(transport_len).unwrap().to_be_bytes();
        let start = [0x60, 0, 0, 0, len[0], len[1], packet.protocol, 64];
        return [start.to_vec(), addresses].concat();
    }
    let header_len = 20 + options.len();
    let len = u16::try_from(header_len + transport_len).unwrap().to_be_bytes();
    let version_and_len = 0x40 | u8::try_from(header_len / 4).unwrap();
    let start = [version_and_len, 0, len[0], len[1], 0, 1, 0x40, 0, 64, packet.protocol, 0, 0];
    let mut header = [start.to_vec(), addresses, options.to_vec()].concat();
    let checksum = !sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// RFC 793 §3.1 and RFC 8200 §8.1 in a form that sums alike for both.
fn pseudo_header(packet: &Packet, transport_len: usize) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let len = u16::try_from(transport_len).unwrap().to_be_bytes();
    let end = [len[0], len[1], 0, packet.protocol];
    [octets(packet.from.ip()), octets(packet.to.ip()), end.to_vec()].concat()
}

/// RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
