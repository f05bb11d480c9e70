//! Numbers behind a few bits of something else (RFC 7541 5.1).

use super::Unread;

/// More bytes than any length or index here needs.
const MORE_BYTES_MAX: u32 = 4;

/// Takes a number off `input`, whose first byte has `bits` of it.
pub(super) fn take(input: &mut &[u8], bits: u32) -> Result<usize, Unread> {
    let (first, mut rest) = input.split_first().ok_or(Unread::Invalid)?;
    let most = (1_usize << bits) - 1;
    let mut number = usize::from(*first) & most;
    if number == most {
        for i in 0.. {
            let (byte, behind) = rest.split_first().ok_or(Unread::Invalid)?;
            rest = behind;
            if i >= MORE_BYTES_MAX {
                return Err(Unread::Invalid);
            }
            number += usize::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *input = rest;
    Ok(number)
}

/// Writes a number behind the bits of `first`.
pub(super) fn write(first: u8, bits: u32, number: usize, out: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if number < most {
        out.push(first | low(number));
        return;
    }
    out.push(first | low(most));
    let mut rest = number - most;
    while rest >= 0x80 {
        out.push(low(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(low(rest));
}

/// Of a number below 256.
fn low(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_has_these_examples() {
        for (number, bits, bytes) in
            [(10, 5, &[10][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42]), (31, 5, &[31, 0])]
        {
            let mut out = Vec::new();
            write(0, bits, number, &mut out);
            assert_eq!(out, bytes);
            let mut input = &[bytes, b"rest"].concat()[..];
            assert_eq!(take(&mut input, bits), Ok(number));
            assert_eq!(input, b"rest");
        }
    }

    #[test]
    fn what_is_cut_or_without_end_is_no_number() {
        for bytes in
            [&[][..], &[31], &[31, 128], &[31, 255, 255, 255, 255, 0], &[31, 128, 128, 128, 128, 0]]
        {
            assert_eq!(take(&mut &*bytes, 5), Err(Unread::Invalid), "{bytes:?}");
        }
        let most = 31 + (1 << 28) - 1;
        assert_eq!(take(&mut &[31, 255, 255, 255, 127][..], 5), Ok(most));
    }
}
