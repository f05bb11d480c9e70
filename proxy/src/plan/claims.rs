//! The plans of all services, and which service has a frontend that several ask for.

use std::hash::BuildHasher as _;

use fairlead_ebpf::abi::{FrontendKey, UDP};
use fairlead_state::{Key, Snapshot, model::Service};
use hashbrown::{HashTable, hash_table::Entry};
use slab::Slab;

use super::{Lead, NodeView, Problem, ServicePlan, Warning, plan_service};
use crate::hash::{FastMap, FastSet, FastState};

/// A planned service, as long as it is planned; reused later.
pub(crate) type ServiceId = u32;

/// A service and its plan.
#[derive(Debug)]
pub struct Planned {
    /// The service.
    pub key: Key,
    /// Its plan.
    pub plan: ServicePlan,
    created_seconds: i64,
}

/// The plans of all services. Of several that ask for the same frontend the eldest has it (then the
/// first by name), whatever order they came in.
#[derive(Debug, Default)]
pub struct Plans {
    planned: Register,
    /// By the service's key.
    ids: HashTable<ServiceId>,
    /// By the frontend's key: who has it, and what stands beside it ([`FrontendKey::serving`]). Claimed apart, one service could
    /// have the one and another the other, whose endpoints would keep flows that are no longer theirs.
    owners: HashTable<Claim>,
    /// Who else asks for a frontend; no entry without one.
    rivals: FastMap<FrontendKey, Vec<ServiceId>>,
    /// Services whose plan names problems.
    troubled: FastSet<ServiceId>,
    hasher: FastState,
}

/// What is planned, by [`ServiceId`]. Tables lead here instead of holding keys again: a frontend's are
/// 20 bytes.
#[derive(Debug, Default)]
struct Register(Slab<Planned>);

/// One frontend of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    service: ServiceId,
    /// Its place in the plan.
    place: u32,
}

/// What a change of plans touched.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Services whose frontends or sets may be others now. Some may be gone.
    pub(crate) services: FastSet<ServiceId>,
    /// Frontends that were given up, and what may stand beside them; another service may have them now.
    pub(crate) released: Vec<FrontendKey>,
    /// Services that are gone; others may have their ids now.
    pub(crate) removed: Vec<ServiceId>,
}

impl Register {
    fn get(&self, id: ServiceId) -> Option<&Planned> {
        self.0.get(id as usize)
    }

    fn iter(&self) -> impl Iterator<Item = (ServiceId, &Planned)> {
        // Ids were checked when they were given out.
        self.0.iter().filter_map(|(id, planned)| Some((ServiceId::try_from(id).ok()?, planned)))
    }

    fn key(&self, Claim { service, place }: Claim) -> Option<FrontendKey> {
        Some(self.get(service)?.plan.frontends.get(place as usize)?.key)
    }

    /// The claim of `service` to a frontend that it asks for.
    fn claim(&self, service: ServiceId, key: &FrontendKey) -> Option<Claim> {
        let frontends = &self.get(service)?.plan.frontends;
        let place = frontends.binary_search_by_key(key, |frontend| frontend.key).ok()?;
        Some(Claim { service, place: u32::try_from(place).ok()? })
    }

    /// All that `service` asks for.
    fn claims(&self, service: ServiceId) -> impl Iterator<Item = (Claim, FrontendKey)> {
        let frontends =
            self.get(service).into_iter().flat_map(|planned| planned.plan.frontends.iter());
        let dialled = frontends.zip(0..).filter(|(of, _)| of.key.is_serving_of().is_none());
        dialled.map(move |(frontend, place)| (Claim { service, place }, frontend.key))
    }

    fn rank(&self, id: ServiceId) -> Option<(i64, &Key)> {
        self.get(id).map(|planned| (planned.created_seconds, &planned.key))
    }
}

impl Plans {
    /// The plans of everything in `snapshot`.
    pub fn of(snapshot: &Snapshot, node: &NodeView) -> Self {
        let mut plans = Self::default();
        plans.replan_all(snapshot, node, &mut Changed::default());
        plans
    }

    pub(crate) fn replan_all(
        &mut self,
        snapshot: &Snapshot,
        node: &NodeView,
        changed: &mut Changed,
    ) {
        let services = snapshot.services();
        let keys = self.planned.iter().map(|(_, planned)| &planned.key);
        let gone: Vec<Key> = keys.filter(|key| !services.contains_key(*key)).cloned().collect();
        for key in &gone {
            self.remove(key, changed);
        }
        for service in services.values() {
            self.put(service, plan(service, snapshot, node), changed);
        }
    }

    pub(crate) fn replan(
        &mut self,
        key: &Key,
        snapshot: &Snapshot,
        node: &NodeView,
        changed: &mut Changed,
    ) {
        match snapshot.services().get(key) {
            Some(service) => self.put(service, plan(service, snapshot, node), changed),
            None => self.remove(key, changed),
        }
    }

    fn put(&mut self, service: &Service, plan: ServicePlan, changed: &mut Changed) {
        if plan == ServicePlan::default() {
            return self.remove(&service.key, changed);
        }
        let created_seconds = service.created_seconds;
        let Some(id) = self.id(&service.key) else {
            return self.add(Planned { key: service.key.clone(), plan, created_seconds }, changed);
        };
        let is_same =
            |planned: &Planned| planned.plan == plan && planned.created_seconds == created_seconds;
        if self.planned.get(id).is_some_and(is_same) {
            return;
        }
        self.leave(id, changed);
        if let Some(planned) = self.planned.0.get_mut(id as usize) {
            planned.plan = plan;
            planned.created_seconds = created_seconds;
        }
        self.enter(id, changed);
    }

    fn id(&self, key: &Key) -> Option<ServiceId> {
        let is_it = |id: &ServiceId| self.planned.get(*id).is_some_and(|found| found.key == *key);
        self.ids.find(self.hasher.hash_one(key), is_it).copied()
    }

    fn add(&mut self, planned: Planned, changed: &mut Changed) {
        // Memory ends long before ids do.
        let Ok(id) = ServiceId::try_from(self.planned.0.vacant_key()) else { return };
        let hash = self.hasher.hash_one(&planned.key);
        self.planned.0.insert(planned);
        let (all, hasher) = (&self.planned, &self.hasher);
        let hash_of = |id: &ServiceId| all.get(*id).map_or(0, |found| hasher.hash_one(&found.key));
        self.ids.insert_unique(hash, id, hash_of);
        self.enter(id, changed);
    }

    fn remove(&mut self, key: &Key, changed: &mut Changed) {
        let Some(id) = self.id(key) else { return };
        self.leave(id, changed);
        let is_it = |found: &ServiceId| *found == id;
        if let Ok(entry) = self.ids.find_entry(self.hasher.hash_one(key), is_it) {
            entry.remove();
        }
        self.planned.0.try_remove(id as usize);
        changed.services.insert(id);
        changed.removed.push(id);
    }

    fn enter(&mut self, id: ServiceId, changed: &mut Changed) {
        let Self { planned, owners, rivals, troubled, hasher, .. } = self;
        if planned.get(id).is_some_and(|planned| !planned.plan.extras.problems.is_empty()) {
            troubled.insert(id);
        }
        for (claim, key) in planned.claims(id) {
            let is_it = |claim: &Claim| planned.key(*claim) == Some(key);
            let hash_of = |claim: &Claim| planned.key(*claim).map_or(0, |key| hasher.hash_one(key));
            let mut owner = match owners.entry(hasher.hash_one(key), is_it, hash_of) {
                Entry::Occupied(owner) => owner,
                Entry::Vacant(free) => {
                    free.insert(claim);
                    continue;
                }
            };
            let mut rival = claim;
            if planned.rank(id) < planned.rank(owner.get().service) {
                changed.services.insert(owner.get().service);
                changed.released.push(key);
                changed.released.extend(beside(key));
                rival = std::mem::replace(owner.get_mut(), claim);
            }
            rivals.entry(key).or_default().push(rival.service);
        }
        changed.services.insert(id);
    }

    /// Gives up all that a service has, while its plan is still there.
    fn leave(&mut self, id: ServiceId, changed: &mut Changed) {
        let Self { planned, owners, rivals, troubled, hasher, .. } = self;
        troubled.remove(&id);
        for (claim, key) in planned.claims(id) {
            let owner = owners.find_entry(hasher.hash_one(key), |owner| *owner == claim).ok();
            let heir = owner.as_ref().and_then(|_| {
                let others = rivals.get(&key)?.iter().copied();
                planned.claim(others.min_by_key(|rival| planned.rank(*rival))?, &key)
            });
            if let Some(others) = rivals.get_mut(&key) {
                let heir = heir.map(|heir| heir.service);
                others.retain(|rival| *rival != id && Some(*rival) != heir);
                if others.is_empty() {
                    rivals.remove(&key);
                }
            }
            match (owner, heir) {
                (Some(mut owner), Some(heir)) => {
                    *owner.get_mut() = heir;
                    changed.services.insert(heir.service);
                    changed.released.push(key);
                    changed.released.extend(beside(key));
                }
                (Some(owner), None) => {
                    owner.remove();
                    changed.released.push(key);
                    changed.released.extend(beside(key));
                }
                (None, _) => {}
            }
        }
    }

    /// How many services have something in the maps.
    pub fn len(&self) -> usize {
        self.planned.0.len()
    }

    /// Whether there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.planned.0.is_empty()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.planned.iter().map(|(id, _)| id)
    }

    pub(crate) fn get(&self, id: ServiceId) -> Option<&Planned> {
        self.planned.get(id)
    }

    /// Whether any service has the frontend.
    pub fn is_wanted(&self, frontend: &FrontendKey) -> bool {
        self.owner(frontend).is_some_and(|id| self.planned.claim(id, frontend).is_some())
    }

    /// Which one; of what stands beside a frontend, whose that is.
    pub(crate) fn owner(&self, frontend: &FrontendKey) -> Option<ServiceId> {
        let dialled = frontend.is_serving_of().unwrap_or(*frontend);
        let is_it = |claim: &Claim| self.planned.key(*claim) == Some(dialled);
        let owner = self.owners.find(self.hasher.hash_one(dialled), is_it);
        owner.map(|claim| claim.service)
    }

    /// What `id` has of what it asks for, and where each leads.
    pub(crate) fn leads_of(&self, id: ServiceId) -> impl Iterator<Item = Lead<'_>> {
        let leads = self.planned.get(id).into_iter().flat_map(|planned| planned.plan.leads());
        leads.filter(move |lead| self.owner(&lead.frontend.key) == Some(id))
    }

    /// Every frontend with the service that has it.
    pub fn leads(&self) -> impl Iterator<Item = (&Planned, Lead<'_>)> {
        self.planned.iter().flat_map(move |(id, planned)| {
            let own = planned.plan.leads();
            let own = own.filter(move |l| self.owner(&l.frontend.key) == Some(id));
            own.map(move |lead| (planned, lead))
        })
    }

    /// What is not served as asked, sorted by service.
    pub fn warnings(&self) -> Vec<Warning> {
        let troubled = self.troubled.iter().filter_map(|id| self.planned.get(*id));
        let mut warnings: Vec<Warning> = troubled
            .flat_map(|planned| {
                let problems = planned.plan.extras.problems.iter().cloned();
                problems.map(|problem| Warning { service: planned.key.clone(), problem })
            })
            .collect();
        for (frontend, rivals) in &self.rivals {
            let owner = self.owner(frontend).and_then(|id| self.planned.get(id));
            let Some(owner) = owner else { continue };
            for rival in rivals.iter().filter_map(|id| self.planned.get(*id)) {
                let problem = Problem::Taken { frontend: *frontend, owner: owner.key.clone() };
                warnings.push(Warning { service: rival.key.clone(), problem });
            }
        }
        warnings.sort_unstable();
        warnings.dedup();
        warnings
    }
}

/// What may stand beside a frontend.
fn beside(key: FrontendKey) -> Option<FrontendKey> {
    (key.protocol == UDP).then(|| key.serving())
}

fn plan(service: &Service, snapshot: &Snapshot, node: &NodeView) -> ServicePlan {
    let slices: Vec<_> = snapshot.slices_of(&service.key).collect();
    plan_service(service, &slices, node)
}
