//! Names of addresses: `4.3.2.1.in-addr.arpa` and the nibbles of `ip6.arpa` (RFC 1035 §3.5, RFC
//! 3596 §2.5).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::wire::name::{LowerName, WireName};

/// Address family of a reverse zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// One name of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    /// The endpoint's label in wire form; empty for a Service's own address. The empty one sorts
    /// first and wins.
    pub(crate) label: Arc<[u8]>,
    /// The wire form of `SERVICE.NAMESPACE`.
    pub(crate) service: Arc<[u8]>,
}

impl Family {
    /// The family of a reverse zone's name.
    pub(crate) fn of(zone: &WireName) -> Option<Self> {
        let zone = zone.as_bytes();
        if zone.ends_with(b"\x07in-addr\x04arpa\0") {
            return Some(Family::V4);
        }
        zone.ends_with(b"\x03ip6\x04arpa\0").then_some(Family::V6)
    }

    /// The address a name of this family stands for; `None` for any other name.
    pub(crate) fn address(self, name: &LowerName) -> Option<IpAddr> {
        match self {
            Family::V4 => v4(name).map(IpAddr::V4),
            Family::V6 => v6(name).map(IpAddr::V6),
        }
    }
}

fn v4(name: &LowerName) -> Option<Ipv4Addr> {
    if name.label_count() != 4 + 2 {
        return None;
    }
    let mut octets = [0; 4];
    for (label, octet) in octets.iter_mut().rev().enumerate() {
        let text = name.label(label);
        // `01` and `+1` would be further names of the same address.
        let leading_zero = text.len() > 1 && text.starts_with(b"0");
        if leading_zero || !text.iter().all(u8::is_ascii_digit) {
            return None;
        }
        *octet = std::str::from_utf8(text).ok()?.parse().ok()?;
    }
    Some(octets.into())
}

fn v6(name: &LowerName) -> Option<Ipv6Addr> {
    if name.label_count() != 32 + 2 {
        return None;
    }
    let mut address = 0_u128;
    for label in (0..32).rev() {
        let [digit] = *name.label(label) else { return None };
        address = address << 4 | u128::from(char::from(digit).to_digit(16)?);
    }
    Some(Ipv6Addr::from_bits(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_become_addresses() {
        let long = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.f.ip6.arpa";
        let cases = [
            ("4.3.2.1.in-addr.arpa", Family::V4, Some("1.2.3.4")),
            ("3.2.1.in-addr.arpa", Family::V4, None),
            ("x.3.2.1.in-addr.arpa", Family::V4, None),
            ("256.3.2.1.in-addr.arpa", Family::V4, None),
            ("04.3.2.1.in-addr.arpa", Family::V4, None),
            ("+4.3.2.1.in-addr.arpa", Family::V4, None),
            ("5.4.3.2.1.in-addr.arpa", Family::V4, None),
            (long, Family::V6, Some("fd00::1")),
            ("1.0.d.f.ip6.arpa", Family::V6, None),
        ];
        for (text, family, wanted) in cases {
            let mut name = LowerName::new();
            name.read(WireName::from_text(text).unwrap().as_bytes()).unwrap();
            assert_eq!(family.address(&name), wanted.map(|a| a.parse().unwrap()), "{text}");
        }
    }
}
