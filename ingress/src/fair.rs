//! What namespaces share: places for what takes long, and room for what is remembered. Whoever may write objects
//! in a namespace may write any number of them, so what they take is counted by namespace and not by object.

mod queue;
mod room;

use std::collections::HashMap;

use fairlead_state::Name;

pub(crate) use self::{
    queue::Queue,
    room::{Lease, Room},
};

/// Who holds how much. One namespace takes more only while no less is left than it holds then
/// (as switches share a buffer among their ports: Choudhury and Hahne 1998): alone it has half of all, a
/// second one half of the rest, and whoever holds nothing finds some as long as there is any.
#[derive(Debug)]
pub(crate) struct Shares {
    left: usize,
    /// By namespace, none of them 0.
    held: HashMap<Name, usize>,
}

impl Shares {
    pub(crate) fn new(all: usize) -> Self {
        Self { left: all, held: HashMap::new() }
    }

    pub(crate) fn held(&self, namespace: &Name) -> usize {
        self.held.get(namespace).copied().unwrap_or_default()
    }

    /// Whether whoever holds so much may have so much more.
    pub(crate) fn has(&self, count: usize, held: usize) -> bool {
        count <= self.left && (held == 0 || held.saturating_add(count) <= self.left)
    }

    /// To be asked for by [`Shares::has`] before.
    pub(crate) fn take(&mut self, count: usize, namespace: &Name) {
        self.left = self.left.saturating_sub(count);
        *self.held.entry(namespace.clone()).or_default() += count;
    }

    /// What was taken.
    pub(crate) fn give_back(&mut self, count: usize, namespace: &Name) {
        self.left += count;
        if let Some(held) = self.held.get_mut(namespace) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                self.held.remove(namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_it_may(shares: &mut Shares, namespace: &str) -> usize {
        let namespace = namespace.into();
        while shares.has(1, shares.held(&namespace)) {
            shares.take(1, &namespace);
        }
        shares.held(&namespace)
    }

    #[test]
    fn attack_namespaces_that_take_all_they_may_leave_places_for_others() {
        for (places, expected) in [
            (0, &[0, 0][..]),
            (1, &[1, 0]),
            (2, &[1, 1, 0]),
            (4, &[2, 1, 1, 0]),
            (8, &[4, 2, 1, 1, 0]),
            (64, &[32, 16, 8, 4, 2, 1, 1, 0]),
        ] {
            let mut shares = Shares::new(places);
            for (number, expected) in expected.iter().enumerate() {
                let held = all_it_may(&mut shares, &format!("n{number}"));
                assert_eq!(held, *expected, "{places} places, namespace {number}");
            }
        }
    }

    #[test]
    fn what_is_given_back_is_for_others_and_who_holds_none_is_forgotten() {
        let mut shares = Shares::new(2);
        let (one, other): (Name, Name) = ("one".into(), "other".into());
        for _ in 0..3 {
            shares.take(1, &one);
            assert!(!shares.has(1, shares.held(&one)));
            shares.take(1, &other);
            assert!(!shares.has(1, 0));
            shares.give_back(1, &one);
            assert!(shares.has(1, 0) && !shares.has(1, shares.held(&other)));
            shares.give_back(1, &other);
        }
        assert!(shares.left == 2 && shares.held.is_empty());
    }
}
