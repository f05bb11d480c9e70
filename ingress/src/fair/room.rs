//! Room for what is remembered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_state::Name;

use super::Shares;

/// Room, in bytes or whatever is counted.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Mutex<Shares>>);

/// Some of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    room: Room,
    namespace: Name,
    count: usize,
}

impl Room {
    pub(crate) fn new(all: usize) -> Self {
        Self(Arc::new(Mutex::new(Shares::new(all))))
    }

    /// `None`: there is not so much for this namespace.
    pub(crate) fn lease(&self, namespace: &Name, count: usize) -> Option<Lease> {
        let mut shares = self.shares();
        if !shares.has(count, shares.held(namespace)) {
            return None;
        }
        shares.take(count, namespace);
        Some(Lease { room: self.clone(), namespace: namespace.clone(), count })
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        // Nothing is left half done by whoever held it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.room.shares().give_back(self.count, &self.namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_a_namespace_leaves_half_of_the_room_and_what_is_dropped_is_there_again() {
        let (room, [one, other]) = (Room::new(100), ["one", "other"].map(Name::from));
        for _ in 0..3 {
            let held = [room.lease(&one, 30).unwrap(), room.lease(&one, 20).unwrap()];
            assert!(room.lease(&one, 1).is_none());
            let others = room.lease(&other, 25).unwrap();
            assert!(room.lease(&other, 1).is_none());
            drop(held);
            assert!(room.lease(&other, 26).is_some() && room.lease(&one, 76).is_none());
            drop(others);
        }
    }
}
