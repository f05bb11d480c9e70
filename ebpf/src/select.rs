//! Which backend of a set a connection gets.

/// A slot below `backends`, evenly spread over `random`. `None` for an empty set.
#[inline(always)]
pub fn slot(random: u32, backends: u16) -> Option<u32> {
    if backends == 0 {
        return None;
    }
    Some(scale(random, u32::from(backends)))
}

/// A number below `bound`, evenly spread over `random`; 0 where `bound` is.
///
/// Multiply and shift instead of a remainder: no division on the data path, and no bias worth
/// naming (Lemire, "Fast Random Integer Generation in an Interval", 2019).
#[inline(always)]
pub fn scale(random: u32, bound: u32) -> u32 {
    high(u64::from(random) * u64::from(bound))
}

/// The upper half, which always fits.
#[inline(always)]
fn high(number: u64) -> u32 {
    u32::try_from(number >> 32).unwrap_or_default()
}

/// Spreads an identifier (a socket cookie counts up by one) over all 32 bits, the same every time.
#[inline(always)]
pub fn mix(identifier: u64) -> u32 {
    // The finaliser of splitmix64: full avalanche in two multiplications.
    let mut x = identifier;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    high(x ^ (x >> 31))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ends_of_the_range() {
        assert_eq!(slot(0, 0), None);
        assert_eq!(slot(u32::MAX, 0), None);
        assert_eq!(slot(0, 7), Some(0));
        assert_eq!(slot(u32::MAX, 7), Some(6));
        assert_eq!(slot(u32::MAX, u16::MAX), Some(65534));
    }

    #[test]
    fn consecutive_cookies_spread_evenly() {
        let mut hits = [0u32; 7];
        for cookie in 1..=70_000u64 {
            hits[slot(mix(cookie), 7).unwrap() as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (9_700..10_300).contains(hits)), "{hits:?}");
    }

    proptest! {
        #[test]
        fn always_inside_the_set(random: u32, backends in 1u16..) {
            prop_assert!(slot(random, backends).unwrap() < u32::from(backends));
        }
    }
}
