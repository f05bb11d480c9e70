//! How much room the maps have, and who found none.

use super::{Actual, FullMap};
use crate::image::Capacities;

/// How many entries the maps have room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub(super) frontends: usize,
    /// Entries of `frontends` that can be given up.
    spare: usize,
    pub(super) slots: usize,
    pub(super) parts: usize,
    pub(super) ranges: usize,
}

/// What a service found no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lack {
    /// Nothing but what keeps flows of datagrams where they are.
    pub is_beside: bool,
    /// Where.
    pub map: FullMap,
    /// With so many free entries it is worth another try.
    pub needs: usize,
}

impl Lack {
    pub(super) fn of(map: FullMap, needs: usize) -> Self {
        Self { is_beside: false, map, needs }
    }

    /// Of a place beside a frontend.
    pub fn beside() -> Self {
        Self { is_beside: true, ..Self::of(FullMap::Frontends, 1) }
    }
}

impl Room {
    /// Beside what the maps hold.
    pub fn of(actual: &Actual, capacities: Capacities) -> Self {
        Self {
            frontends: capacities.frontends.saturating_sub(actual.frontends().len()),
            spare: actual.beside(),
            slots: capacities.backends.saturating_sub(actual.slots()),
            parts: capacities.maglev.saturating_sub(actual.parts()),
            ranges: capacities.source_ranges.saturating_sub(actual.ranges()),
        }
    }

    /// Whether there may be room now.
    pub fn is_enough(&self, lack: &Lack) -> bool {
        let free = match lack.map {
            FullMap::Frontends if lack.is_beside => self.frontends,
            FullMap::Frontends => self.frontends + self.spare,
            FullMap::Backends => self.slots,
            FullMap::Maglev => self.parts,
            FullMap::SourceRanges => self.ranges,
        };
        free >= lack.needs
    }
}
