//! PROXY protocol v1 and v2 (haproxy.org, proxy-protocol.txt): who connected to the balancer in
//! front. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The shortest header of either version: what may be read without taking a byte of what follows.
pub const SHORTEST_BYTES: usize = 15;
/// Of a line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
/// Addresses and a balancer's extensions; the format would allow 64 KiB.
const V2_BYTES_MAX: usize = V2_FIXED_BYTES + 2048;

/// What a beginning of a connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// So many more bytes are the header's at least, whatever they are.
    Needs(usize),
    /// A line whose end has not come: it is the header's up to and with its line feed.
    NeedsLineEnd,
    /// Complete.
    Proxied(Option<Route>),
    /// None.
    Invalid,
}

/// From where to where a client connected; without one the balancer speaks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The client.
    pub source: SocketAddr,
    /// The address it connected to.
    pub destination: SocketAddr,
}

/// Reads a header of which `bytes` is the beginning, and nothing beyond it.
pub fn parse(bytes: &[u8]) -> Header {
    if bytes.len() < SHORTEST_BYTES {
        let could_be = V1_START.starts_with(head(bytes, V1_START.len()))
            || V2_START.starts_with(head(bytes, V2_START.len()));
        let missing = SHORTEST_BYTES - bytes.len();
        return if could_be { Header::Needs(missing) } else { Header::Invalid };
    }
    if bytes.starts_with(V2_START) {
        return version2(bytes);
    }
    if !bytes.starts_with(V1_START) {
        return Header::Invalid;
    }
    match bytes.strip_suffix(b"\r\n") {
        Some(line) => version1(line).map_or(Header::Invalid, Header::Proxied),
        None if bytes.contains(&b'\n') || bytes.len() >= LINE_BYTES_MAX => Header::Invalid,
        None => Header::NeedsLineEnd,
    }
}

/// A header of version 1 that says so.
pub fn line(source: SocketAddr, destination: SocketAddr) -> String {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let family = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".to_owned(),
    };
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
}

fn head(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

fn version1(line: &[u8]) -> Option<Option<Route>> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let ip = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |word: &str| {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse::<u16>().ok().filter(|_| is_number)
    };
    let (source, destination) = (ip(words.next()?)?, ip(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    Some(Some(Route {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

fn version2(bytes: &[u8]) -> Header {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Header::Needs(V2_FIXED_BYTES - bytes.len());
    };
    let [.., version_and_command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_FIXED_BYTES + length > V2_BYTES_MAX {
        return Header::Invalid;
    }
    match length.checked_sub(rest.len()) {
        None => return Header::Invalid,
        Some(0) => {}
        Some(missing) => return Header::Needs(missing),
    }
    match (version_and_command, family) {
        (0x21, 0x11) => routed::<4, 12>(rest, |ip| Ipv4Addr::from(ip).into()),
        (0x21, 0x21) => routed::<16, 36>(rest, |ip| Ipv6Addr::from(ip).into()),
        // LOCAL, a health check of the balancer's own; or not TCP over IP.
        (0x20 | 0x21, _) => Header::Proxied(None),
        _ => Header::Invalid,
    }
}

/// Two addresses of `N` bytes, two ports, `ALL` bytes together; extensions follow.
fn routed<const N: usize, const ALL: usize>(bytes: &[u8], ip: fn([u8; N]) -> IpAddr) -> Header {
    let read = || {
        let bytes = bytes.first_chunk::<ALL>()?;
        let (source, rest) = bytes.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (source_port, rest) = rest.split_first_chunk::<2>()?;
        let destination_port = rest.first_chunk::<2>()?;
        Some(Route {
            source: SocketAddr::new(ip(*source), u16::from_be_bytes(*source_port)),
            destination: SocketAddr::new(ip(*destination), u16::from_be_bytes(*destination_port)),
        })
    };
    read().map_or(Header::Invalid, |route| Header::Proxied(Some(route)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(source: &str, destination: &str) -> Header {
        Header::Proxied(Some(Route {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_START, &[command, family], &length, rest].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        for (source, destination) in
            [("192.0.2.1:1234", "198.51.100.1:443"), ("[2001:db8::1]:1234", "[2001:db8::2]:443")]
        {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let read = parse(line(source, destination).as_bytes());
            assert_eq!(read, Header::Proxied(Some(Route { source, destination })));
        }
        let mixed = line("192.0.2.1:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
        assert_eq!(parse(mixed.as_bytes()), Header::Proxied(None));
    }

    #[test]
    fn headers_of_both_versions_are_read() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 1, 0xbb];
        let mut six = [0; 36];
        (six[15], six[31]) = (1, 2);
        six[32..].copy_from_slice(&[0, 80, 1, 0xbb]);
        let extended = [&four[..], &[4, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n".to_vec(),
                route("192.0.2.1:8080", "198.51.100.2:443"),
            ),
            (b"PROXY TCP6 ::1 ::2 80 443\r\n".to_vec(), route("[::1]:80", "[::2]:443")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Header::Proxied(None)),
            (b"PROXY UNKNOWN ffff::1 x 1 2\r\n".to_vec(), Header::Proxied(None)),
            (v2(0x21, 0x11, &four), route("192.0.2.1:8080", "198.51.100.2:443")),
            (v2(0x21, 0x11, &extended), route("192.0.2.1:8080", "198.51.100.2:443")),
            (v2(0x21, 0x21, &six), route("[::1]:80", "[::2]:443")),
            (v2(0x20, 0, &[]), Header::Proxied(None)),
            (v2(0x21, 0x31, &[0; 216]), Header::Proxied(None)),
        ] {
            assert_eq!(parse(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn anything_else_is_invalid() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 8080\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443 1\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 8080 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 +80 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 80 65536\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.1 198.51.100.2 80 443\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 198.51.100.2 80 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 80 443\n".to_vec(),
            format!("PROXY UNKNOWN{}", "x".repeat(100)).into_bytes(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 12]),
            v2(0x21, 0x11, &[0; 2049]),
        ] {
            assert_eq!(parse(&bytes), Header::Invalid, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_missing_is_never_more_than_the_header(
            extra in prop::collection::vec(any::<u8>(), 0..60), command in 0x20u8..0x22
        ) {
            let whole = v2(command, 0x11, &[&[0; 12][..], &extra].concat());
            for end in 0..whole.len() {
                match parse(&whole[..end]) {
                    Header::Needs(missing) => prop_assert!(end + missing <= whole.len()),
                    other => prop_assert!(false, "{other:?} at {end}"),
                }
            }
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&[V2_START, &bytes].concat());
            let _ = parse(&[V1_START, &bytes].concat());
        }
    }
}
