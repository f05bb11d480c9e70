//! The one Huffman code of HPACK (RFC 7541 5.2, appendix B). It is canonical: the lengths of its codes
//! say all of it.

use super::Unread;

/// Of the codes of all bytes, and of the end, which is never sent.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const END: usize = 256;
const LENGTH_MAX: usize = 30;
/// Bits that are looked up at once: those of nearly all that is sent.
const SHORT_BITS: u32 = 8;

static TABLE: Table = Table::new();

/// All codes, by length and then by value.
struct Table {
    /// By the first eight bits: what it is and how many of them, or no bits if it is longer.
    short: [(u8, u8); 1 << SHORT_BITS],
    symbols: [u16; LENGTHS.len()],
    /// By length: the first code, its place in `symbols`, and how many there are.
    first: [u32; LENGTH_MAX + 1],
    place: [usize; LENGTH_MAX + 1],
    count: [u32; LENGTH_MAX + 1],
}

impl Table {
    #[expect(clippy::indexing_slicing, reason = "while compiling, where a wrong index is an error")]
    #[expect(clippy::cast_possible_truncation, reason = "numbers below 257")]
    const fn new() -> Self {
        let mut table = Self {
            short: [(0, 0); 1 << SHORT_BITS],
            symbols: [0; LENGTHS.len()],
            first: [0; LENGTH_MAX + 1],
            place: [0; LENGTH_MAX + 1],
            count: [0; LENGTH_MAX + 1],
        };
        let (mut code, mut place, mut length) = (0_u32, 0, 1);
        while length <= LENGTH_MAX {
            code <<= 1;
            table.first[length] = code;
            table.place[length] = place;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    table.symbols[place] = symbol as u16;
                    if length <= SHORT_BITS as usize {
                        let spare = SHORT_BITS as usize - length;
                        let mut i = (code as usize) << spare;
                        let end = (code as usize + 1) << spare;
                        while i < end {
                            table.short[i] = (symbol as u8, length as u8);
                            i += 1;
                        }
                    }
                    table.count[length] += 1;
                    code += 1;
                    place += 1;
                }
                symbol += 1;
            }
            length += 1;
        }
        table
    }

    /// The code longer than eight bits that `bits` begin with, and its length.
    fn long(&self, bits: u64, held: u32) -> Option<(u8, u32)> {
        let mut length = SHORT_BITS + 1;
        while length <= held {
            let at = usize::try_from(length).ok()?;
            let code = u32::try_from(bits >> (u64::BITS - length)).ok()?;
            // Shorter codes are smaller: this one begins here or later.
            let offset = code.checked_sub(*self.first.get(at)?)?;
            if offset < *self.count.get(at)? {
                let place = self.place.get(at)? + usize::try_from(offset).ok()?;
                let symbol = usize::from(*self.symbols.get(place)?);
                return (symbol != END).then_some((u8::try_from(symbol).ok()?, length));
            }
            length += 1;
        }
        None
    }
}

/// Appends what is coded in `input`.
///
/// # Errors
/// It has the end's code in it, or something else than a part of that at its end.
pub(in super::super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Unread> {
    let mut input = input.iter();
    // The next bits, the first of them highest.
    let (mut bits, mut held) = (0_u64, 0_u32);
    loop {
        while held <= u64::BITS - 8
            && let Some(byte) = input.next()
        {
            bits |= u64::from(*byte) << (u64::BITS - 8 - held);
            held += 8;
        }
        let top = usize::try_from(bits >> (u64::BITS - SHORT_BITS)).unwrap_or(0);
        let (symbol, length) = TABLE.short.get(top).copied().unwrap_or_default();
        let length = u32::from(length);
        let (symbol, length) = if length > 0 && length <= held {
            (symbol, length)
        } else if held < 8 && is_padding(bits, held) {
            return Ok(());
        } else {
            TABLE.long(bits, held).ok_or(Unread::Invalid)?
        };
        out.push(symbol);
        bits <<= length;
        held -= length;
    }
}

/// Ones only (RFC 7541 5.2).
fn is_padding(bits: u64, held: u32) -> bool {
    bits.leading_ones() >= held
}

/// Appends `text` in code.
#[cfg(any(test, feature = "fuzzing"))]
pub(in super::super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let codes = codes();
    let (mut bits, mut held) = (0_u64, 0_u32);
    for byte in text {
        let Some((code, length)) = codes.get(usize::from(*byte)) else { continue };
        bits = (bits << length) | u64::from(*code);
        held += length;
        while held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).unwrap_or_default());
        }
    }
    if held > 0 {
        let spare = 8 - held;
        let last = (bits << spare) | ((1 << spare) - 1);
        out.push(u8::try_from(last & 0xff).unwrap_or_default());
    }
}

/// Of all symbols.
#[cfg(any(test, feature = "fuzzing"))]
fn codes() -> Vec<(u32, u32)> {
    let mut next = TABLE.first;
    let code = |length: &u8| {
        let next = next.get_mut(usize::from(*length))?;
        *next += 1;
        Some((*next - 1, u32::from(*length)))
    };
    LENGTHS.iter().filter_map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Unread> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    /// RFC 7541 C.4 and C.6 have these.
    #[test]
    fn the_rfc_has_these_examples() {
        let cases: [(&str, &[u8]); 5] = [
            ("www.example.com", b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"),
            ("no-cache", b"\xa8\xeb\x10\x64\x9c\xbf"),
            ("custom-key", b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f"),
            ("302", b"\x64\x02"),
            ("", b""),
        ];
        for (text, code) in cases {
            assert_eq!(decoded(code).unwrap(), text.as_bytes());
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            assert_eq!(out, code);
        }
    }

    /// Appendix B lists them; the first and the last of some lengths.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let codes = codes();
        for (symbol, code, length) in [
            (b'0', 0x0, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (b'z', 0x7b, 7),
            (b'&', 0xf8, 8),
            (b'Z', 0xfd, 8),
            (b'!', 0x3f8, 10),
            (b'|', 0x7fc, 11),
            (0, 0x1ff8, 13),
            (249, 0x0ff_ffffe, 28),
            (22, 0x3fff_fffe, 30),
        ] {
            assert_eq!(codes[usize::from(symbol)], (code, length), "{symbol}");
        }
        assert_eq!(codes[END], (0x3fff_ffff, 30));
    }

    #[test]
    fn whatever_is_coded_is_read_again() {
        let all: Vec<u8> = (0..=255).collect();
        for start in 0..all.len() {
            for length in [1, 2, 3, 7, 8, 255] {
                let text = all.get(start..start + length).unwrap_or(&all[start..]);
                let mut code = Vec::new();
                encode(text, &mut code);
                assert_eq!(decoded(&code).unwrap(), text);
            }
        }
    }

    #[test]
    fn an_end_is_less_than_a_byte_of_ones() {
        for (code, expected) in [
            (&b"\x07"[..], Ok(&b"0"[..])),
            // Zeros instead of ones, and a whole byte of ones.
            (b"\x00", Err(Unread::Invalid)),
            (b"\x06", Err(Unread::Invalid)),
            (b"\x07\xff", Err(Unread::Invalid)),
            (b"\xff", Err(Unread::Invalid)),
            // The end itself, and a code that is cut.
            (b"\xff\xff\xff\xff", Err(Unread::Invalid)),
            (b"\xff\xff\xff\xfc", Err(Unread::Invalid)),
            (b"\xff\xc0", Err(Unread::Invalid)),
        ] {
            assert_eq!(decoded(code).as_deref(), expected.as_deref(), "{code:x?}");
        }
    }
}
