//! Names as text the way CoreDNS's plugins see them: lower case, escaped (RFC 4343 §2.1), with the
//! final dot.

use super::name::{LABEL_BYTES_MAX, LowerName, NAME_BYTES_MAX};

/// Every byte escaped as `\DDD`.
const TEXT_BYTES_MAX: usize = 4 * NAME_BYTES_MAX;

/// A name's text, without an allocation.
pub(crate) struct NameText {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl NameText {
    /// Of a name.
    pub(crate) fn of(name: &LowerName) -> Self {
        let mut text = Self { bytes: [0; TEXT_BYTES_MAX], length: 0 };
        for index in 0..name.label_count() {
            for byte in name.label(index) {
                text.put(*byte);
            }
            text.push(b'.');
        }
        if text.length == 0 {
            text.push(b'.');
        }
        text
    }

    fn put(&mut self, byte: u8) {
        match byte {
            // What miekg/dns escapes, CoreDNS's library.
            b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' | b'$' => {
                self.push(b'\\');
                self.push(byte);
            }
            b' '..=b'~' => self.push(byte),
            _ => {
                self.push(b'\\');
                for digit in [byte / 100, byte / 10 % 10, byte % 10] {
                    self.push(b'0' + digit);
                }
            }
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// The wire form of a text; `None` if it is no name.
pub(crate) fn to_wire(text: &str) -> Option<Vec<u8>> {
    if text == "." {
        return Some(vec![0]);
    }
    let mut wire = vec![];
    let mut label = vec![];
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'.' => end_label(&mut wire, &mut label)?,
            b'\\' => {
                let first = bytes.next()?;
                if first.is_ascii_digit() {
                    let rest = [bytes.next()?, bytes.next()?];
                    let code = [first, rest[0], rest[1]].iter().try_fold(0_u16, |sum, digit| {
                        digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0'))
                    });
                    label.push(u8::try_from(code?).ok()?);
                } else {
                    label.push(first);
                }
            }
            byte => label.push(byte),
        }
    }
    if !label.is_empty() {
        end_label(&mut wire, &mut label)?;
    }
    wire.push(0);
    (wire.len() > 1 && wire.len() <= NAME_BYTES_MAX).then_some(wire)
}

fn end_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Option<()> {
    let length = u8::try_from(label.len()).ok()?;
    if length == 0 || label.len() > LABEL_BYTES_MAX {
        return None;
    }
    wire.push(length);
    wire.append(label);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_names_they_came_from() {
        let cases: [(&[u8], &str); 5] = [
            (b"\0", "."),
            (b"\x03www\x07example\0", "www.example."),
            (b"\x03a.b\x01c\0", "a\\.b.c."),
            (b"\x04_tcp\x02\x00\xff\0", "_tcp.\\000\\255."),
            (b"\x04a b;\x01*\0", "a\\ b\\;.*."),
        ];
        for (wire, text) in cases {
            let mut name = LowerName::new();
            name.read(wire).unwrap();
            assert_eq!(NameText::of(&name).as_str(), text);
            assert_eq!(to_wire(text).as_deref(), Some(wire), "{text}");
        }
        let long = format!("{}.", "x".repeat(64));
        let longer = "abcdefg.".repeat(32);
        for bad in ["", "a..b.", ".a.", "a\\", "a\\25", "a\\256.", &long, &longer] {
            assert_eq!(to_wire(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_name_of_bytes_that_all_need_escaping_has_room() {
        let wire = [&[63][..], &[0; 63], &[63], &[1; 63], &[63], &[2; 63], &[61], &[3; 61], &[0]];
        let mut name = LowerName::new();
        name.read(&wire.concat()).unwrap();
        assert_eq!(to_wire(NameText::of(&name).as_str()), Some(wire.concat()));
    }
}
