//! Who has a place in `frontends`.

use fairlead_ebpf::abi::{Address, FrontendKey};

use super::{Draft, Lack, Wanted, WantedFrontend, is_beside};
use crate::hash::FastSet;

/// What a service can have of what is dialled.
#[derive(Debug)]
pub(super) struct Placed<'w> {
    pub(super) frontends: Vec<WantedFrontend<'w>>,
    /// Of [`Draft::spare`] so many.
    pub(super) given_up: usize,
    /// Refusals of other ports that make room for a port.
    pub(super) withdrawn: Vec<FrontendKey>,
    /// What is left.
    pub(super) room: usize,
}

impl Draft<'_> {
    /// Decides what has room of what is dialled: all ports before the refusal of all others. One that finds none
    /// takes the place of the refusal at its own address, for it must not be refused.
    pub(super) fn place<'w>(&mut self, wanted: &Wanted<'w>) -> Placed<'w> {
        let held = self.actual.frontends();
        let is_new = |frontend: &&WantedFrontend<'_>| !held.contains_key(&frontend.key);
        let room = self.room.frontends;
        if wanted.dialled().filter(is_new).count() > room {
            self.look_for_spare();
        }
        let free = room + self.spare.as_ref().map_or(0, Vec::len);
        let (mut frontends, mut withdrawn, mut used) = (Vec::new(), Vec::new(), 0);
        let (others, own): (Vec<_>, Vec<_>) =
            wanted.dialled().partition(|frontend| frontend.key.is_other_ports());
        let mut left_out = FastSet::default();
        for frontend in own {
            if is_new(&frontend) {
                let refusal = FrontendKey::other_ports(frontend.key.address);
                let is_theirs = |key: &FrontendKey| others.iter().any(|other| other.key == *key);
                if used < free {
                    used += 1;
                } else if held.contains_key(&refusal)
                    && !withdrawn.contains(&refusal)
                    && is_theirs(&refusal)
                {
                    withdrawn.push(refusal);
                } else {
                    left_out.insert(frontend.key.address);
                    continue;
                }
            }
            frontends.push(*frontend);
        }
        for frontend in others {
            let FrontendKey { address, .. } = frontend.key;
            if left_out.contains(&address) || withdrawn.contains(&frontend.key) {
                continue;
            }
            if is_new(&frontend) {
                if used == free {
                    continue;
                }
                used += 1;
            }
            frontends.push(*frontend);
        }
        let given_up = used.saturating_sub(room);
        Placed { frontends, given_up, withdrawn, room: room.saturating_sub(used) }
    }

    /// Changes nothing of a service but that what was another's before does not lead to that one's endpoints any more, whose
    /// place it may be that this one waits for, and that ports it has now are not refused as such that it does not have.
    pub(super) fn leave_as_it_is(&mut self, wanted: &Wanted<'_>, lack: Lack) -> Result<(), Lack> {
        for WantedFrontend { key, .. } in &wanted.frontends {
            if self.is_anothers(key, wanted.counter_id) {
                self.release(*key);
                if let Some(spare) = self.spare.as_mut().filter(|_| is_beside(key)) {
                    spare.retain(|other| other != key);
                }
            }
        }
        let (refusals, ports): (Vec<_>, Vec<_>) =
            wanted.dialled().map(|frontend| frontend.key).partition(FrontendKey::is_other_ports);
        let missing = ports.into_iter().filter(|port| self.held(port).is_none());
        let missing: FastSet<Address> = missing.map(|port| port.address).collect();
        for refusal in refusals.into_iter().filter(|key| missing.contains(&key.address)) {
            self.release(refusal);
        }
        Err(lack)
    }

    /// Whether it leads to endpoints of the service that had it before. The counter id alone does not tell: at a start one
    /// service may take that of another, whose frontends are its own all the same.
    fn is_anothers(&self, key: &FrontendKey, counter_id: u32) -> bool {
        self.inherited.is_some_and(|inherited| inherited.contains(key))
            && self.held(key).is_some_and(|value| value.counter_id != counter_id)
    }

    /// Goes through all frontends: only where there is something to be found.
    fn look_for_spare(&mut self) {
        if self.spare.is_none() && self.actual.beside() > 0 {
            let keys = self.actual.frontends().keys();
            let spare = keys.filter(|key| is_beside(key) && !self.ended_frontends.contains(*key));
            let mut spare: Vec<FrontendKey> = spare.copied().collect();
            spare.sort_unstable();
            self.spare = Some(spare);
        }
    }

    pub(super) fn give_up(&mut self, count: usize) {
        let Some(spare) = self.spare.as_mut().filter(|_| count > 0) else { return };
        for key in spare.split_off(spare.len().saturating_sub(count)) {
            if let Some(old) = self.held(&key) {
                self.refer(&old, -1);
                self.ended_frontends.insert(key);
                self.delta.given_up.push(key);
            }
        }
    }
}
