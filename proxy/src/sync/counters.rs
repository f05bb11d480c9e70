//! Whose counters are whose.

use std::collections::BTreeSet;

use fairlead_ebpf::abi::FrontendValue;
use fairlead_state::Key;
use imbl::OrdMap;

use crate::{
    delta::Ids,
    hash::{FastMap, FastSet},
    plan::ServiceId,
};

/// Counter ids by service. A service keeps its id as long as it is served, over restarts too.
///
/// Ids that have counters are few and given again, the smallest first, so that what is counted lies
/// together. An id whose service is gone rests first: until it is certain that no program can count
/// under it any more, and what was counted is set to zero.
#[derive(Debug)]
pub(super) struct Owners {
    /// 0: none.
    by_service: Vec<u32>,
    /// Persistent, so that a status can share it.
    by_id: OrdMap<u32, Key>,
    /// Ids of an earlier start that nobody has claimed yet.
    found: FastSet<u32>,
    /// Ids of services that are gone, and whether a comparison of the maps has found no frontend and no
    /// connection that names them.
    resting: FastMap<u32, bool>,
    /// Ids below `next` that rested.
    free: BTreeSet<u32>,
    /// Nobody has got this one from here, nor any after it.
    next: u32,
    /// Those beyond, when all that have counters are taken.
    uncounted: Ids,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            by_service: Vec::new(),
            by_id: OrdMap::new(),
            found: FastSet::default(),
            resting: FastMap::default(),
            free: BTreeSet::new(),
            next: 1,
            uncounted: Ids::default(),
        }
    }
}

impl Owners {
    /// The maps were read: their frontends name these ids, and of these others there are counts or source
    /// ranges.
    pub(super) fn found(&mut self, named: impl Iterator<Item = u32>, used: FastSet<u32>) {
        let is_new =
            |id: &u32| *id != 0 && !self.by_id.contains_key(id) && !self.resting.contains_key(id);
        let found: FastSet<u32> = named.filter(is_new).collect();
        let ended: Vec<u32> =
            used.into_iter().filter(|id| is_new(id) && !found.contains(id)).collect();
        let before = std::mem::replace(&mut self.found, found);
        let unnamed = before.into_iter().filter(|id| !self.found.contains(id));
        let ended: Vec<u32> = unnamed.chain(ended).collect();
        ended.into_iter().for_each(|id| self.rest(id));
    }

    /// Every service had its chance to claim what it had before the restart.
    pub(super) fn adopted(&mut self) {
        std::mem::take(&mut self.found).into_iter().for_each(|id| self.rest(id));
    }

    /// The service's id: the one it has, else the one its frontends `held` have, else a new one. Those
    /// below `counted` have counters.
    pub(super) fn id_for<'a>(
        &mut self,
        (service, key): (ServiceId, &Key),
        mut held: impl Iterator<Item = &'a FrontendValue>,
        counted: usize,
    ) -> u32 {
        if let Some(id) = self.id_of(service) {
            return id;
        }
        let earlier = held.find(|value| self.found.contains(&value.counter_id));
        let id = match earlier {
            Some(value) => value.counter_id,
            None => self.allocate(u32::try_from(counted).unwrap_or(u32::MAX)),
        };
        self.found.remove(&id);
        self.free.remove(&id);
        let place = service as usize;
        if self.by_service.len() <= place {
            self.by_service.resize(place + 1, 0);
        }
        if let Some(own) = self.by_service.get_mut(place) {
            *own = id;
        }
        self.by_id.insert(id, key.clone());
        id
    }

    fn allocate(&mut self, counted: u32) -> u32 {
        while let Some(id) = self.free.pop_first() {
            if !self.is_taken(id) {
                return id;
            }
        }
        while self.next < counted {
            let id = self.next;
            self.next += 1;
            if !self.is_taken(id) {
                return id;
            }
        }
        let Self { by_id, found, resting, uncounted, .. } = self;
        uncounted.allocate(|id| {
            id < counted
                || by_id.contains_key(&id)
                || found.contains(&id)
                || resting.contains_key(&id)
        })
    }

    fn is_taken(&self, id: u32) -> bool {
        self.by_id.contains_key(&id) || self.found.contains(&id) || self.resting.contains_key(&id)
    }

    /// The id the service has.
    pub(super) fn id_of(&self, service: ServiceId) -> Option<u32> {
        self.by_service.get(service as usize).copied().filter(|id| *id != 0)
    }

    /// The service is gone. Returns its id, which rests from now on.
    pub(super) fn remove(&mut self, service: ServiceId) -> Option<u32> {
        let own = self.by_service.get_mut(service as usize)?;
        let id = Some(std::mem::take(own)).filter(|id| *id != 0)?;
        self.by_id.remove(&id);
        self.rest(id);
        Some(id)
    }

    fn rest(&mut self, id: u32) {
        self.free.remove(&id);
        self.resting.entry(id).or_insert(false);
    }

    /// Whether there is anything to give free.
    pub(super) fn has_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// The maps were compared, and their frontends and connections name these ids. Returns ids that were
    /// not named at the comparison before either: their counters are nobody's.
    pub(super) fn rested(&mut self, named: &FastSet<u32>) -> Vec<u32> {
        let mut rested = Vec::new();
        for (id, was_unnamed) in &mut self.resting {
            let is_unnamed = !named.contains(id);
            if is_unnamed && *was_unnamed {
                rested.push(*id);
            }
            *was_unnamed = is_unnamed;
        }
        rested.sort_unstable();
        rested
    }

    /// The counters of these are zero: another service may have them.
    pub(super) fn free(&mut self, rested: Vec<u32>) {
        for id in rested {
            self.resting.remove(&id);
            if id < self.next {
                self.free.insert(id);
            }
        }
    }

    /// The last id under which anything may be counted.
    pub(super) fn last(&self) -> u32 {
        let owned = self.by_id.get_max().map(|(id, _)| *id);
        let nobodys = self.found.iter().chain(self.resting.keys()).copied().max();
        owned.max(nobodys).unwrap_or_default()
    }

    pub(super) fn is_owned(&self, id: u32) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn by_id(&self) -> OrdMap<u32, Key> {
        self.by_id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTED: usize = 4;

    fn give(owners: &mut Owners, service: ServiceId) -> u32 {
        owners.id_for((service, &Key::new("ns", "s")), std::iter::empty(), COUNTED)
    }

    fn set(ids: &[u32]) -> FastSet<u32> {
        ids.iter().copied().collect()
    }

    #[test]
    fn an_id_is_given_again_after_two_comparisons_that_found_no_frontend_with_it() {
        let mut owners = Owners::default();
        assert_eq!([0, 1].map(|service| give(&mut owners, service)), [1, 2]);
        assert_eq!(owners.remove(0), Some(1));
        for (named, expected) in [
            // Its frontend could not be deleted yet.
            (&[1, 2][..], &[0u32; 0][..]),
            (&[2], &[]),
            // And is back, written by nobody knows who.
            (&[1, 2], &[]),
            (&[2], &[]),
            (&[2], &[1]),
            // It could not be set to zero.
            (&[2], &[1]),
        ] {
            assert_eq!(owners.rested(&set(named)), expected, "{named:?}");
        }
        assert_eq!(give(&mut owners, 2), 3, "1 rests");
        assert_eq!(owners.last(), 3);
        owners.free(vec![1]);
        assert!(!owners.has_resting());
        assert_eq!(give(&mut owners, 3), 1);
    }

    #[test]
    fn without_room_ids_are_beyond_all_counters_and_those_that_rested_come_first() {
        let mut owners = Owners::default();
        let given = [0, 1, 2, 3, 4].map(|service| give(&mut owners, service));
        assert_eq!(given, [1, 2, 3, 4, 5]);
        assert_eq!([0, 4].map(|service| owners.remove(service)), [Some(1), Some(5)]);
        owners.rested(&set(&[]));
        let rested = owners.rested(&set(&[]));
        owners.free(rested);
        let given = [5, 6].map(|service| give(&mut owners, service));
        assert_eq!(given, [1, 6], "as late as possible where nothing is counted");
    }

    #[test]
    fn what_an_earlier_start_left_is_claimed_or_rests() {
        let mut owners = Owners::default();
        owners.found([7, 2, 0].into_iter(), set(&[2, 3]));
        let value = FrontendValue { counter_id: 7, ..bytemuck::Zeroable::zeroed() };
        let key = Key::new("ns", "s");
        assert_eq!(owners.id_for((0, &key), [&value].into_iter(), 100), 7);
        // 2 is another's until all had their chance, and 3 was counted for somebody.
        assert_eq!(owners.id_for((1, &key), std::iter::empty(), 100), 1);
        assert_eq!(owners.id_for((2, &key), std::iter::empty(), 100), 4);
        assert_eq!(owners.last(), 7);
        owners.adopted();
        owners.rested(&set(&[1, 4, 7]));
        assert_eq!(owners.rested(&set(&[1, 4, 7])), [2, 3]);
        owners.free(vec![2, 3]);
        let given: Vec<u32> =
            (3..7).map(|n| owners.id_for((n, &key), std::iter::empty(), 100)).collect();
        assert_eq!(given, [2, 3, 5, 6]);
    }

    #[test]
    fn a_stray_count_under_a_free_id_sends_it_to_rest_again() {
        let mut owners = Owners::default();
        give(&mut owners, 0);
        owners.remove(0);
        assert_eq!(owners.last(), 1, "a program may still count under it");
        owners.rested(&set(&[]));
        owners.free(vec![1]);
        assert_eq!(owners.last(), 0);
        owners.found(std::iter::empty(), set(&[1]));
        assert_eq!(give(&mut owners, 1), 2);
    }
}
