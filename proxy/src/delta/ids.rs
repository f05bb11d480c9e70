//! Ids for sets, and for services without counters.

/// Ids skipped at a start: sets that ended shortly before it may still be named by connections.
const START_GAP: u32 = 1 << 20;

/// Gives out ids in a circle, never 0, so that an id that ended comes back as late as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    next: u32,
}

impl Default for Ids {
    fn default() -> Self {
        Self { next: 1 }
    }
}

impl Ids {
    /// Goes on well behind the newest of `used`: the one before the widest gap in the circle.
    pub fn after(used: impl IntoIterator<Item = u32>) -> Self {
        let mut used: Vec<u32> = used.into_iter().collect();
        used.sort_unstable();
        used.dedup();
        let Some(first) = used.first().copied() else { return Self::default() };
        let following = used.iter().copied().skip(1).chain([first]);
        let gaps = used.iter().zip(following).map(|(id, next)| (next.wrapping_sub(*id), *id));
        // A lone id is its own neighbour: the gap is the whole circle.
        let widest = gaps.max_by_key(|(gap, _)| gap.wrapping_sub(1));
        let (gap, newest) = widest.unwrap_or((0, first));
        let next = newest.wrapping_add(START_GAP.min(gap.wrapping_sub(1) / 2 + 1));
        Self { next: next.max(1) }
    }

    /// The next id that is not used. There must be one.
    pub fn allocate(&mut self, is_used: impl Fn(u32) -> bool) -> u32 {
        loop {
            let id = self.next;
            self.next = self.next.wrapping_add(1).max(1);
            if !is_used(id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_skip_used_ones_and_wrap_around_zero() {
        let mut ids = Ids { next: u32::MAX - 1 };
        let is_used = |id| id == u32::MAX || id == 2;
        let given: Vec<u32> = (0..3).map(|_| ids.allocate(is_used)).collect();
        assert_eq!(given, [u32::MAX - 1, 1, 3]);
    }

    #[test]
    fn a_start_goes_on_behind_the_newest_id_also_where_the_circle_closed() {
        for (used, expected) in [
            (vec![], 1),
            (vec![5], 5 + START_GAP),
            (vec![1, 2, 3], 3 + START_GAP),
            (vec![9, 7, 7, 8], 9 + START_GAP),
            (vec![u32::MAX, 1, 2], 2 + START_GAP),
            (vec![u32::MAX], START_GAP - 1),
            (vec![u32::MAX - START_GAP + 1], 1),
        ] {
            assert_eq!(Ids::after(used.clone()).next, expected, "{used:?}");
        }
    }

    #[test]
    fn a_crowded_circle_still_has_a_next_id() {
        let used = [0x4000_0000, 0x8000_0000, 0xc000_0000, 0xffff_ffff, 0x3fff_ffff];
        let mut ids = Ids::after(used);
        assert!(!used.contains(&ids.allocate(|id| used.contains(&id))));
    }
}
