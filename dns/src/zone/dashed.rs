//! Labels made of addresses: `10-1-0-4`, `fd00--a1`.

use std::{
    fmt::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
};

use crate::wire::name::LABEL_BYTES_MAX;

/// A label's text, made without allocating.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dashed {
    bytes: [u8; LABEL_BYTES_MAX],
    length: usize,
}

impl Dashed {
    /// The label of an address: its dots or colons as dashes; it must not end in one.
    pub(crate) fn of(address: IpAddr) -> Self {
        let mut label = Self { bytes: [0; LABEL_BYTES_MAX], length: 0 };
        // The longest address has 39 characters.
        let _ = match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                write!(label, "{a}-{b}-{c}-{d}")
            }
            IpAddr::V6(v6) => write!(label, "{v6}"),
        };
        label.replace(b':', b'-');
        label.replace(b'.', b'-');
        if label.as_bytes().ends_with(b"-") {
            let _ = label.write_char('0');
        }
        label
    }

    /// Without the length in front.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn text(label: &[u8], dash: u8) -> Option<Self> {
        let mut text = Self { bytes: [0; LABEL_BYTES_MAX], length: label.len() };
        text.bytes.get_mut(..label.len())?.copy_from_slice(label);
        text.replace(b'-', dash);
        Some(text)
    }

    fn replace(&mut self, from: u8, to: u8) {
        for byte in self.bytes.get_mut(..self.length).unwrap_or_default() {
            *byte = if *byte == from { to } else { *byte };
        }
    }
}

impl Write for Dashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The address that a label stands for, however it is written; an IPv4 address may be one in IPv6.
pub(crate) fn address(label: &[u8]) -> Option<IpAddr> {
    let dashes = label.iter().filter(|byte| **byte == b'-').count();
    let is_v4 = dashes == 3 && !label.windows(2).any(|two| two == b"--");
    let text = Dashed::text(label, if is_v4 { b'.' } else { b':' })?;
    let text = str::from_utf8(text.as_bytes()).ok()?;
    if is_v4 {
        return text.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    text.parse::<Ipv6Addr>().ok().map(|v6| v6.to_canonical())
}

/// The address whose label this is, letter by letter.
pub(crate) fn exact_address(label: &[u8]) -> Option<IpAddr> {
    address(label).filter(|address| Dashed::of(*address).as_bytes() == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_labels() {
        // Label, the address it stands for, whether it is that address' own label.
        let cases = [
            ("10-1-0-4", Some("10.1.0.4"), true),
            ("255-255-255-255", Some("255.255.255.255"), true),
            ("010-1-0-4", None, false),
            ("10-1-0", None, false),
            ("10-1-0-256", None, false),
            ("fd00--a1", Some("fd00::a1"), true),
            ("fd00-0-0-0-0-0-0-a1", Some("fd00::a1"), false),
            ("fd00-1--0", Some("fd00:1::"), true),
            ("fd00-1--", Some("fd00:1::"), false),
            ("1-2-3-4-5-6-7-8", Some("1:2:3:4:5:6:7:8"), true),
            ("fd00.-a1", None, false),
            // Mapped addresses are their IPv4 selves, as CoreDNS has them; no endpoint has one.
            ("--ffff-a01-4", Some("10.1.0.4"), false),
            ("--ffff-10-1-0-4", Some("::ffff:10:1:0:4"), true),
            ("web-0", None, false),
            ("---", None, false),
            ("", None, false),
        ];
        for (label, wanted, is_own) in cases {
            let wanted = wanted.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(address(label.as_bytes()), wanted, "{label}");
            assert_eq!(exact_address(label.as_bytes()), wanted.filter(|_| is_own), "{label}");
        }
    }
}
