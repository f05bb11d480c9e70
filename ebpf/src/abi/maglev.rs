//! Consistent hashing: which of a set's backends each place of its table has.
//!
//! A set of a frontend with [`FRONTEND_MAGLEV`](super::FRONTEND_MAGLEV) has one table over all of
//! its slots, cut into parts. Like the set it is whole before a frontend leads to it and never
//! changes.

use bytemuck::{Pod, Zeroable};

use super::FRONTEND_MAGLEV;

/// Places of one part of a table.
pub const PART_PLACES: u32 = 64;

/// A part of a set's table. Key of `maglev`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct MaglevKey {
    /// The set.
    pub set_id: u32,
    /// 0-based.
    pub part: u32,
}

/// The slots behind these places. Value of `maglev`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct MaglevPart {
    /// Slots of the set.
    pub slots: [u16; PART_PLACES as usize],
}

/// How many places a table has: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableSize(u16);

impl TableSize {
    /// All of them, the smallest first.
    pub const ALL: [Self; 9] =
        [Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7), Self(8), Self(9)];

    /// The one with so many places.
    pub fn with(places: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.places() == places)
    }

    /// That of the sets of a frontend with these flags; `None`: they have no tables.
    #[inline(always)]
    pub const fn of(flags: u16) -> Option<Self> {
        match (flags & FRONTEND_MAGLEV) >> FRONTEND_MAGLEV.trailing_zeros() {
            0 => None,
            size => Some(Self(size)),
        }
    }

    /// The flags of frontends whose sets have tables of this size.
    pub const fn flags(self) -> u16 {
        self.0 << FRONTEND_MAGLEV.trailing_zeros()
    }

    /// How many places.
    #[inline(always)]
    pub const fn places(self) -> u32 {
        128u32.wrapping_shl(self.0 as u32)
    }

    /// How many parts they are cut into.
    pub const fn parts(self) -> u32 {
        self.places() / PART_PLACES
    }
}

const _: () = assert!(size_of::<MaglevKey>() == 8);
// With the kernel's header of 64 bytes an element fills its memory class of 192.
const _: () = assert!(size_of::<MaglevPart>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_found_by_its_places_and_by_the_flags_it_gives() {
        for (size, bits) in TableSize::ALL.into_iter().zip(8..) {
            assert_eq!(size.places(), 1 << bits);
            assert_eq!(TableSize::with(size.places()), Some(size));
            assert_eq!(TableSize::of(size.flags() | 0xff), Some(size));
            assert_eq!(size.flags() & !FRONTEND_MAGLEV, 0);
        }
        assert_eq!(TableSize::of(!FRONTEND_MAGLEV), None);
        assert_eq!(TableSize::with(1000), None);
        assert_eq!(TableSize::ALL.map(TableSize::parts), [4, 8, 16, 32, 64, 128, 256, 512, 1024]);
    }
}
