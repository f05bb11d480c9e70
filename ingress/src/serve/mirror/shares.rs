//! What copies hold of a thread's memory: together, and those of one Ingress.

use std::{cell::RefCell, collections::HashMap};

use fairlead_state::Key;

use super::gathered::BODY_BYTES_MAX;
use crate::serve::buffer::Budget;

/// One Ingress's copies hold one of so many parts: its mirror may never answer, and others' copies
/// still find room.
const SHARES: usize = 4;
/// However small a part would be, in bytes: a body that is copied at all fits beside its head.
const SHARE_BYTES_MIN: usize = BODY_BYTES_MAX + (64 << 10);

/// What the copies of one thread may hold.
#[derive(Debug)]
pub(crate) struct Shares {
    all: Budget,
    share_bytes: usize,
    /// By Ingress, so that a new form of it has no more: those whose copies hold something.
    shares: RefCell<HashMap<Key, Budget>>,
}

impl Shares {
    /// `bytes`: of all copies.
    pub(crate) fn new(bytes: usize) -> Self {
        let share_bytes = (bytes / SHARES).max(SHARE_BYTES_MIN);
        Self { all: Budget::new(bytes), share_bytes, shares: RefCell::default() }
    }

    /// What copies of this Ingress may hold.
    pub(super) fn of(&self, ingress: &Key) -> Budget {
        let mut shares = self.shares.borrow_mut();
        if let Some(share) = shares.get(ingress) {
            return share.clone();
        }
        shares.retain(|_, share| share.is_shared());
        let share = self.all.part(self.share_bytes);
        shares.insert(ingress.clone(), share.clone());
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn attack_one_ingress_leaves_room_for_the_copies_of_others() {
        let (slow, other) = (Key::new("a", "slow"), Key::new("b", "other"));
        for (all, share) in [
            (16 * MIB, 4 * MIB),
            (128 * MIB, 32 * MIB),
            // A whole body and its head, even so.
            (4 * MIB, SHARE_BYTES_MIN),
            (2 * MIB, SHARE_BYTES_MIN),
        ] {
            let shares = Shares::new(all);
            let held = shares.of(&slow).lease(share).unwrap();
            assert!(shares.of(&slow).lease(1).is_none(), "{all}");
            let left = (all - share).min(share);
            drop(shares.of(&other).lease(left).unwrap());
            drop(held);
            assert!(shares.of(&slow).lease(share).is_some(), "{all}");
        }
    }

    #[test]
    fn an_ingress_without_copies_is_forgotten_and_one_with_some_is_not() {
        let shares = Shares::new(16 * MIB);
        let held = shares.of(&Key::new("a", "slow")).lease(4 * MIB);
        for name in 0..100 {
            let share = shares.of(&Key::new("a", &*name.to_string()));
            assert!(share.lease(1).is_some());
        }
        assert_eq!(shares.shares.borrow().len(), 2);
        assert!(shares.of(&Key::new("a", "slow")).lease(1).is_none());
        drop(held);
    }
}
