//! Whose counters are whose.

use fairlead_ebpf::abi::FrontendValue;
use fairlead_state::Key;
use imbl::OrdMap;

use crate::{delta::Ids, hash::FastSet, plan::ServiceId};

/// Counter ids by service. A service keeps its id as long as it is served, over restarts too.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// 0: none.
    by_service: Vec<u32>,
    /// Persistent, so that a status can share it.
    by_id: OrdMap<u32, Key>,
    /// Ids of an earlier start that nobody has claimed yet.
    found: FastSet<u32>,
    ids: Ids,
}

impl Owners {
    /// The maps were read: their frontends name these ids (a counter there is only once there was
    /// something to count), and they hold these counters.
    pub(super) fn found(&mut self, named: impl Iterator<Item = u32>, counters: &FastSet<u32>) {
        self.found = named.filter(|id| *id != 0 && !self.by_id.contains_key(id)).collect();
        if self.by_id.is_empty() {
            self.ids = Ids::after(self.found.iter().chain(counters).copied());
        }
    }

    /// Every service had its chance to claim what it had before the restart.
    pub(super) fn adopted(&mut self) {
        self.found = FastSet::default();
    }

    /// The service's id: the one it has, else the one its frontends `held` have, else a new one.
    pub(super) fn id_for<'a>(
        &mut self,
        (service, key): (ServiceId, &Key),
        mut held: impl Iterator<Item = &'a FrontendValue>,
    ) -> u32 {
        if let Some(id) = self.id_of(service) {
            return id;
        }
        let earlier = held.find(|value| self.found.contains(&value.counter_id));
        let id = match earlier {
            Some(value) => value.counter_id,
            None => {
                let (by_id, found) = (&self.by_id, &self.found);
                self.ids.allocate(|id| by_id.contains_key(&id) || found.contains(&id))
            }
        };
        self.found.remove(&id);
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

    /// The id the service has.
    pub(super) fn id_of(&self, service: ServiceId) -> Option<u32> {
        self.by_service.get(service as usize).copied().filter(|id| *id != 0)
    }

    /// The service is gone. Returns its id.
    pub(super) fn remove(&mut self, service: ServiceId) -> Option<u32> {
        let own = self.by_service.get_mut(service as usize)?;
        let id = Some(std::mem::take(own)).filter(|id| *id != 0)?;
        self.by_id.remove(&id);
        Some(id)
    }

    pub(super) fn is_owned(&self, id: u32) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn by_id(&self) -> OrdMap<u32, Key> {
        self.by_id.clone()
    }
}
