//! What copies hold of a thread's memory: together, and those of one namespace.

use std::{cell::RefCell, collections::HashMap};

use fairlead_state::Name;

use super::gathered::BODY_BYTES_MAX;
use crate::serve::buffer::Budget;

/// One namespace's copies hold one of so many parts: its mirrors may never answer, and others' copies
/// still find room. Not one Ingress's: whoever may write one may write a dozen.
const SHARES: usize = 4;
/// However small a part would be, in bytes: a body that is copied at all fits beside its head.
const SHARE_BYTES_MIN: usize = BODY_BYTES_MAX + (64 << 10);

/// What the copies of one thread may hold.
#[derive(Debug)]
pub(crate) struct Shares {
    all: Budget,
    share_bytes: usize,
    /// By namespace: those whose copies hold something.
    shares: RefCell<HashMap<Name, Budget>>,
}

impl Shares {
    /// `bytes`: of all copies.
    pub(crate) fn new(bytes: usize) -> Self {
        let share_bytes = (bytes / SHARES).max(SHARE_BYTES_MIN);
        Self { all: Budget::new(bytes), share_bytes, shares: RefCell::default() }
    }

    /// What copies of this namespace may hold.
    pub(super) fn of(&self, namespace: &Name) -> Budget {
        let mut shares = self.shares.borrow_mut();
        if let Some(share) = shares.get(namespace) {
            return share.clone();
        }
        shares.retain(|_, share| share.is_shared());
        let share = self.all.part(self.share_bytes);
        shares.insert(namespace.clone(), share.clone());
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn attack_one_namespace_leaves_room_for_the_copies_of_others() {
        let (slow, other): (Name, Name) = ("slow".into(), "other".into());
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
    fn a_namespace_without_copies_is_forgotten_and_one_with_some_is_not() {
        let shares = Shares::new(16 * MIB);
        let held = shares.of(&"slow".into()).lease(4 * MIB);
        for name in 0..100 {
            let share = shares.of(&name.to_string().into());
            assert!(share.lease(1).is_some());
        }
        assert_eq!(shares.shares.borrow().len(), 2);
        assert!(shares.of(&"slow".into()).lease(1).is_none());
        drop(held);
    }
}
