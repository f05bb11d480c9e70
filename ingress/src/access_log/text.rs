//! Bytes of a line: escaped, and numbers, without going through `fmt`. Pure.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// What of a value is not written as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Escape {
    /// nginx's default: `"`, `\` and whatever is not printable ASCII become `\xHH`; nothing is `-`.
    #[default]
    Text,
    /// For strings of JSON (RFC 8259 7); nothing is nothing.
    Json,
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

impl Escape {
    fn is_plain(self, b: u8) -> bool {
        (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\'
    }

    /// A value; whatever it holds, it is one word of one line.
    pub(super) fn push(self, value: &[u8], out: &mut Vec<u8>) {
        if value.is_empty() {
            return self.push_nothing(out);
        }
        // Nearly always; without a branch for each byte many are seen at once.
        if value.iter().fold(true, |all, b| all & self.is_plain(*b)) {
            return out.extend_from_slice(value);
        }
        let mut rest = value;
        while let Some(at) = rest.iter().position(|b| !self.is_plain(*b)) {
            let (plain, special) = rest.split_at(at);
            out.extend_from_slice(plain);
            let Some((special, after)) = special.split_first() else { break };
            self.push_special(*special, out);
            rest = after;
        }
        out.extend_from_slice(rest);
    }

    pub(super) fn push_nothing(self, out: &mut Vec<u8>) {
        if self == Self::Text {
            out.push(b'-');
        }
    }

    fn push_special(self, b: u8, out: &mut Vec<u8>) {
        let hex =
            [b >> 4, b & 15].map(|digit| HEX.get(usize::from(digit)).copied().unwrap_or(b'0'));
        match (self, b) {
            (Self::Text, _) => out.extend_from_slice(b"\\x"),
            (Self::Json, b'"' | b'\\') => return out.extend_from_slice(&[b'\\', b]),
            // Bytes of fields are no UTF-8: each is taken for the character of its number.
            (Self::Json, _) => out.extend_from_slice(b"\\u00"),
        }
        out.extend_from_slice(&hex);
    }
}

/// In decimal.
pub(super) fn push_number(mut number: u64, out: &mut Vec<u8>) {
    if let Ok(digit @ 0..=9) = u8::try_from(number) {
        return out.push(b'0' + digit);
    }
    let mut digits = [0; 20];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// Seconds with three places.
pub(super) fn push_seconds(time: Duration, out: &mut Vec<u8>) {
    push_number(time.as_secs(), out);
    let ms = time.subsec_millis();
    let [a, b, c] = [100, 10, 1].map(|place| b'0' + (ms / place % 10) as u8);
    out.extend_from_slice(&[b'.', a, b, c]);
}

pub(super) fn push_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address {
        SocketAddr::V4(v4) => {
            push_ip((*v4.ip()).into(), out);
            out.push(b':');
            push_number(v4.port().into(), out);
        }
        // Writing to a Vec cannot fail.
        SocketAddr::V6(_) => _ = write!(out, "{address}"),
    }
}

pub(super) fn push_ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                push_number(octet.into(), out);
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(_) => _ = write!(out, "{address}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pushed(escape: Escape, value: &[u8]) -> String {
        let mut out = Vec::new();
        escape.push(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn log_injection_nothing_ends_a_value_or_a_line() {
        for (value, text, json) in [
            (&b"plain"[..], "plain", "plain"),
            (b"", "-", ""),
            (b"a\" 200 \"b", "a\\x22 200 \\x22b", "a\\\" 200 \\\"b"),
            (b"a\r\n127.0.0.1 - -", "a\\x0D\\x0A127.0.0.1 - -", "a\\u000D\\u000A127.0.0.1 - -"),
            (b"\x1b[2J", "\\x1B[2J", "\\u001B[2J"),
            (b"\\", "\\x5C", "\\\\"),
            (b"\xe4\x00\x7f", "\\xE4\\x00\\x7F", "\\u00E4\\u0000\\u007F"),
        ] {
            assert_eq!(pushed(Escape::Text, value), text);
            assert_eq!(pushed(Escape::Json, value), json);
        }
    }

    #[test]
    fn numbers_and_addresses_are_as_usual() {
        let mut out = Vec::new();
        for number in [0, 7, 9, 10, 255, 256, u64::MAX] {
            push_number(number, &mut out);
            out.push(b' ');
        }
        for ms in [0, 7, 1_234, 60_010] {
            push_seconds(Duration::from_millis(ms), &mut out);
            out.push(b' ');
        }
        for address in ["10.0.200.1:80", "[2001:db8::1]:8080"] {
            push_address(address.parse().unwrap(), &mut out);
            out.push(b' ');
        }
        let expected = "0 7 9 10 255 256 18446744073709551615 0.000 0.007 1.234 60.010 10.0.200.1:80 \
                        [2001:db8::1]:8080 ";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_printable_and_json_stays_json(value: Vec<u8>) {
            for escape in [Escape::Text, Escape::Json] {
                let out = pushed(escape, &value);
                prop_assert!(out.bytes().all(|b| (b' '..=b'~').contains(&b)));
            }
            let quoted = format!("\"{}\"", pushed(Escape::Json, &value));
            let parsed: String = serde_json::from_str(&quoted).unwrap();
            let expected: String = value.iter().map(|b| char::from(*b)).collect();
            prop_assert_eq!(parsed, expected);
        }
    }
}
