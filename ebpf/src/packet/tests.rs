use proptest::prelude::*;

use super::*;

/// 10.0.0.1 to 192.168.1.9, TCP.
const V4: [u8; 20] = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 168, 1, 9];

fn v4(change: impl FnOnce(&mut [u8; 20])) -> Result<Ip, Skip> {
    let mut header = V4;
    change(&mut header);
    ipv4(&header)
}

fn v6(next_header: u8) -> Result<Ip, Skip> {
    v6_to(0xfd, next_header)
}

fn v6_to(destination: u8, next_header: u8) -> Result<Ip, Skip> {
    let mut header = [0; 40];
    header[0] = 0x60;
    header[24] = destination;
    header[6] = next_header;
    header[8] = 0xfd;
    header[39] = 9;
    ipv6(&header).and_then(|ip| is_transport(&ip).map(|_| ip))
}

#[test]
fn ipv4_is_read_as_v4_mapped() {
    let ip = v4(|_| ()).unwrap();
    assert_eq!(ip.source, mapped([10, 0, 0, 1]));
    assert_eq!(ip.destination, mapped([192, 168, 1, 9]));
    assert_eq!((ip.protocol, ip.header_len), (TCP, 20));
    assert_eq!(v4(|header| header[0] = 0x48).unwrap().header_len, 32, "options are skipped");
}

#[test]
fn what_is_not_translated_is_told_apart() {
    let cases: [(&str, Result<Ip, Skip>, Skip); 9] = [
        ("IPv6 in an IPv4 frame", v4(|h| h[0] = 0x65), Skip::Malformed),
        ("header shorter than a header", v4(|h| h[0] = 0x44), Skip::Malformed),
        ("shorter than its header", v4(|h| h[3] = 19), Skip::Malformed),
        ("fragment to a group", v4(|h| (h[6], h[16]) = (0x20, 239)), Skip::Other),
        ("group report", v6_to(0xff, 0), Skip::Other),
        ("GRE", v4(|h| h[9] = 47), Skip::Other),
        ("IPv4 in an IPv6 frame", ipv6(&[0x45; 40]), Skip::Malformed),
        ("authentication header", v6(51), Skip::ExtensionHeader),
        ("no next header", v6(59), Skip::Other),
    ];
    for (name, got, expected) in cases {
        assert_eq!(got, Err(expected), "{name}");
    }
}

#[test]
fn what_no_host_can_have_sent_is_told_apart() {
    for (source, is_martian) in [
        ([0, 0, 0, 0], true),
        ([0, 1, 2, 3], true),
        ([127, 0, 0, 1], true),
        ([224, 0, 0, 1], true),
        ([239, 255, 255, 255], true),
        ([255; 4], true),
        ([10, 0, 0, 0], false),
        // Clouds give this range to pods.
        ([240, 0, 0, 1], false),
        ([255, 255, 255, 254], false),
    ] {
        let read = v4(|header| header[12..16].copy_from_slice(&source));
        assert_eq!(read == Err(Skip::Martian), is_martian, "{source:?}");
        let read = v4(|header| header[16..20].copy_from_slice(&source));
        let is_group = is_martian && source[0] >= 224;
        assert_eq!(read == Err(Skip::Other), is_group, "to {source:?}");
    }
    let own = |last| {
        let mut address = [0; 16];
        address[15] = last;
        address
    };
    let host: Address = [0xfd; 16];
    for (source, destination, is_martian) in [
        (own(0), host, true),
        (own(1), host, true),
        ([0xff; 16], host, true),
        (mapped([10, 0, 0, 1]), host, true),
        (host, mapped([10, 96, 0, 1]), true),
        (own(2), host, false),
        (host, [0xfe; 16], false),
    ] {
        let mut header = [0; 40];
        (header[0], header[6]) = (0x60, TCP);
        header[8..24].copy_from_slice(&source);
        header[24..].copy_from_slice(&destination);
        assert_eq!(ipv6(&header) == Err(Skip::Martian), is_martian, "{source:?}");
    }
}

#[test]
fn fragments_are_told_from_each_other() {
    for (flags_and_offset, part) in [
        ([0x40, 0], Part::Whole),
        ([0x20, 0], Part::First),
        ([0x20, 1], Part::Later),
        ([0, 0x10], Part::Later),
    ] {
        let ip = v4(|h| [h[6], h[7]] = flags_and_offset).unwrap();
        assert_eq!(ip.part, part, "{flags_and_offset:?}");
    }
}

#[test]
fn legal_extension_headers_are_stepped_over() {
    let walk = |headers: &[[u8; 8]], first: u8| -> Result<Ip, Skip> {
        let mut ip = v6(first)?;
        for header in headers {
            assert!(!is_transport(&ip)?, "a header too many");
            extension(&mut ip, header)?;
        }
        Ok(ip)
    };
    let options = |next| [next, 0, 5, 2, 0, 0, 0, 0];
    let fragment = |offset: u8, next| [next, 0, 0, offset, 1, 2, 3, 4];
    let ip = walk(&[options(60), options(UDP)], 0).unwrap();
    assert_eq!((ip.protocol, ip.header_len, is_transport(&ip)), (UDP, 56, Ok(true)));
    for (offset, part) in [(0, Part::Whole), (1, Part::First), (8, Part::Later), (9, Part::Later)] {
        let ip = walk(&[fragment(offset, TCP)], 44).unwrap();
        assert_eq!((ip.part, ip.id, ip.header_len), (part, [1, 2, 3, 4], 48));
    }
    // Options behind it are in the first alone; what all have in common is what the header itself names.
    let first = walk(&[fragment(1, 60), options(TCP)], 44).unwrap();
    let later = walk(&[fragment(8, 60)], 44).unwrap();
    assert_eq!((first.part, first.protocol, first.fragmented), (Part::First, TCP, 60));
    assert_eq!((later.part, later.protocol, later.fragmented), (Part::Later, 60, 60));
    let last_stop = walk(&[[TCP, 0, 4, 0, 0, 0, 0, 0]], 43).unwrap();
    assert_eq!(last_stop.protocol, TCP);
    for header in [[TCP, 0, 0, 0, 0, 0, 0, 0], [TCP, 0, 4, 1, 0, 0, 0, 0]] {
        assert_eq!(walk(&[header], 43), Err(Skip::ExtensionHeader), "type 0, or on its way");
    }
}

#[test]
fn ipv6_is_read() {
    let ip = v6(UDP).unwrap();
    assert_eq!((ip.protocol, ip.header_len), (UDP, 40));
    assert_eq!((ip.source[0], ip.destination[15]), (0xfd, 9));
}

#[test]
fn only_a_bare_syn_opens_a_connection() {
    // 0x40 and 0x80 are ECN (RFC 3168 §6.1.1): an ECN-setup SYN carries both.
    for (flags, opens) in
        [(0x02, true), (0xc2, true), (0x12, false), (0x10, false), (0x03, false), (0x06, false)]
    {
        assert_eq!(opens_connection(flags), opens, "{flags:#04x}");
    }
}

#[test]
fn icmp_errors_are_told_from_questions_and_answers() {
    for (protocol, kind, error) in [
        (1, 0, false),
        (1, 3, true),
        (1, 8, false),
        (1, 11, true),
        (58, 1, true),
        (58, 2, true),
        (58, 128, false),
        (58, 135, false),
    ] {
        assert!(is_icmp(protocol));
        assert_eq!(is_icmp_error(protocol, kind), error, "protocol {protocol} type {kind}");
    }
    assert!(!is_icmp(TCP) && !is_icmp(UDP));
}

/// RFC 1071, over 16-bit words in memory order, as the kernel sums.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]])));
    fold(words.sum())
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// 0 and 0xffff are the same number in ones' complement.
fn same(a: u16, b: u16) -> bool {
    a == b || (a ^ b == 0xffff && (a == 0 || b == 0))
}

proptest! {
    #[test]
    fn checksum_after_a_change_equals_the_sum_computed_anew(
        old: [u8; 16], new: [u8; 16], rest: [u8; 32],
    ) {
        let before = [&old[..], &rest[..]].concat();
        let after = [&new[..], &rest[..]].concat();
        let added = u32::from(fold(difference(&old, &new)));
        prop_assert!(same(fold(u32::from(sum(&before)) + added), sum(&after)));
    }

    #[test]
    fn mapped_addresses_differ_by_their_last_four_bytes(old: [u8; 4], new: [u8; 4]) {
        let added = u32::from(fold(difference(&mapped(old), &mapped(new))));
        prop_assert!(same(fold(u32::from(sum(&old)) + added), sum(&new)));
        prop_assert!(is_mapped(&mapped(old)));
        prop_assert_eq!(unmapped(&mapped(old)), old);
    }

    #[test]
    fn no_header_makes_the_parsers_panic(bytes: [u8; 40]) {
        let mut short = [0; 20];
        short.copy_from_slice(&bytes[..20]);
        let _ = ipv4(&short);
        let _ = ipv6(&bytes).and_then(|mut ip| {
            extension(&mut ip, &[bytes[0]; 8])?;
            is_transport(&ip)
        });
    }
}
