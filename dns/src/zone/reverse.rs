//! Names of addresses: `4.3.2.1.in-addr.arpa` and the nibbles of `ip6.arpa` (RFC 1035 §3.5, RFC
//! 3596 §2.5).

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use fairlead_state::model::Key;

use super::{
    endpoints::{Label, Target},
    service::{ServiceNames, Whose},
    table::Place,
};
use crate::wire::name::{LowerName, WireName};

/// Address family of a reverse zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// One name of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(super) names: ServiceNames,
    pub(super) whose: Whose,
}

impl Pointer {
    /// Whether it is the Service's own address, not an endpoint's.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.whose, Whose::Own(_))
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.names.address(self.whose)
    }

    /// The endpoint's label; `None` for the Service's own address.
    pub(crate) fn label(&self) -> Option<Label<'_>> {
        self.names.target(self.whose).map(Target::label)
    }

    fn place(&self) -> (bool, &Key, Option<&str>, Option<IpAddr>) {
        let target = self.names.target(self.whose);
        let name = target.and_then(|target| target.name.as_deref());
        (!self.is_own(), &self.names.service.key, name, self.address())
    }

    /// Service and namespace.
    pub(crate) fn service(&self) -> [&[u8]; 2] {
        let key = &self.names.service.key;
        [key.name.as_bytes(), key.namespace.as_bytes()]
    }
}

/// So that the names of an address do not depend on the order of events.
impl Place for Pointer {
    fn order(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
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
