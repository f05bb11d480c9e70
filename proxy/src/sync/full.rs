//! Which services found no room, and which of them may find some now.

use crate::{
    delta::{FullMap, Lack, Room},
    hash::FastMap,
    image::Capacities,
    plan::ServiceId,
    sync::Full,
};

/// Services that wait for room.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    services: FastMap<ServiceId, Lack>,
}

impl Waiting {
    pub(super) fn insert(&mut self, id: ServiceId, lack: Lack) {
        self.services.insert(id, lack);
    }

    /// What it had beside its frontends was given up.
    pub(super) fn insert_beside(&mut self, id: ServiceId) {
        self.services.entry(id).or_insert(Lack::beside());
    }

    pub(super) fn forget<'a>(&mut self, ids: impl IntoIterator<Item = &'a ServiceId>) {
        if !self.services.is_empty() {
            ids.into_iter().for_each(|id| _ = self.services.remove(id));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.services.keys().copied()
    }

    /// Those who may find some now, in the order of their turns: who lacks what is dialled before who lacks what
    /// is beside it.
    pub(super) fn who_may_fit(&self, room: &Room) -> Vec<ServiceId> {
        let may_fit = self.services.iter().filter(|(_, lack)| room.is_enough(lack));
        let mut may_fit: Vec<_> = may_fit.map(|(id, lack)| (lack.is_beside, *id)).collect();
        may_fit.sort_unstable();
        may_fit.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn may_fit(&self, id: ServiceId, room: &Room) -> bool {
        self.services.get(&id).is_some_and(|lack| room.is_enough(lack))
    }

    pub(super) fn by_map(&self, capacities: Capacities) -> Vec<Full> {
        let maps = [
            (FullMap::Frontends, capacities.frontends),
            (FullMap::Backends, capacities.backends),
            (FullMap::Maglev, capacities.maglev),
            (FullMap::SourceRanges, capacities.source_ranges),
        ];
        let full = maps.into_iter().map(|(map, capacity)| {
            let lacks = || self.services.values().filter(move |lack| lack.map == map);
            let (services, flows) =
                (lacks().count(), lacks().filter(|lack| lack.is_beside).count());
            Full { map, capacity, services, flows }
        });
        full.filter(|full| full.services > 0).collect()
    }
}
