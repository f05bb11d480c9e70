//! SCTP's checksum after a change of ports.
//!
//! CRC32c (RFC 9260 §6.8) is linear: what a change of the first four bytes does to it depends on
//! the change and on how much follows, not on what. So a packet need not be read to be changed.

/// Castagnoli's polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// In reflected order the highest bit is x^0.
const ONE: u32 = 1 << 31;
/// x^8: one byte further.
const ONE_BYTE: u32 = ONE >> 8;
/// Bits in the length of the longest packet.
const LEN_BITS: u32 = 16;

/// What the checksum field changes by when the port pair changes by `ports` (old xor new, as in
/// the packet) in an SCTP packet of `len` bytes: to be xored to the field as it is in the packet.
// Not inlined: sixteen products of thirty-two steps each.
#[inline(never)]
pub fn checksum_change(ports: [u8; 4], len: u32) -> [u8; 4] {
    let mut change = u32::from_le_bytes(ports);
    let mut power = ONE_BYTE;
    for bit in 0..LEN_BITS {
        let product = times(change, power);
        // Without a branch, for the verifier's sake.
        let is_set = 0u32.wrapping_sub((len >> bit) & 1);
        change = (product & is_set) | (change & !is_set);
        power = times(power, power);
    }
    change.to_le_bytes()
}

/// The product modulo the polynomial.
#[inline(always)]
fn times(one: u32, mut other: u32) -> u32 {
    let mut product = 0;
    for bit in 0..32 {
        product ^= other & 0u32.wrapping_sub((one >> (31 - bit)) & 1);
        other = (other >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(other & 1));
    }
    product
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, as the RFC has it.
    fn crc32c(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(crc & 1));
            }
        }
        !crc
    }

    #[test]
    fn the_reference_is_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "RFC 3720 and every catalogue");
    }

    proptest! {
        #[test]
        fn changed_ports_give_the_checksum_computed_anew(
            old: [u8; 4], new: [u8; 4], rest in prop::collection::vec(any::<u8>(), 8..1600),
        ) {
            let packet = |ports: [u8; 4]| -> Vec<u8> { [&ports[..], &rest[..]].concat() };
            let len = u32::try_from(4 + rest.len()).unwrap();
            let ports: [u8; 4] = core::array::from_fn(|at| old[at] ^ new[at]);
            let change = u32::from_le_bytes(checksum_change(ports, len));
            prop_assert_eq!(crc32c(&packet(old)) ^ change, crc32c(&packet(new)));
        }
    }
}
