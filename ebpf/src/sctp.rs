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

/// What the checksum field changes by when the port pair of an SCTP packet changes: computed step by
/// step, of which the programs' verifier sees one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    change: u32,
    /// x^(8 * 2^step).
    power: u32,
    /// What is left of the length.
    len: u32,
}

impl Change {
    /// Steps until it is done.
    pub const STEPS: u32 = LEN_BITS;

    /// `ports` are old xor new, as in the packet, which is `len` bytes long.
    #[inline(always)]
    pub fn new(ports: [u8; 4], len: u32) -> Self {
        Self { change: u32::from_le_bytes(ports), power: ONE_BYTE, len }
    }

    /// Takes the next bit of the length into account.
    #[inline(always)]
    pub fn step(&mut self) {
        if self.len & 1 != 0 {
            self.change = times(self.change, self.power);
        }
        self.power = times(self.power, self.power);
        self.len >>= 1;
    }

    /// To be xored to the field as it is in the packet.
    #[inline(always)]
    pub fn bytes(&self) -> [u8; 4] {
        self.change.to_le_bytes()
    }
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
            let mut change = Change::new(ports, len);
            for _ in 0..Change::STEPS {
                change.step();
            }
            let change = u32::from_le_bytes(change.bytes());
            prop_assert_eq!(crc32c(&packet(old)) ^ change, crc32c(&packet(new)));
        }
    }
}
