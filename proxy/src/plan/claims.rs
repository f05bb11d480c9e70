//! The plans of all services, and which service has a frontend that several ask for.

use fairlead_ebpf::abi::FrontendKey;
use fairlead_state::{Key, Snapshot, model::Service};
use slab::Slab;

use super::{Lead, NodeView, Problem, ServicePlan, Warning, plan_service};
use crate::hash::{FastMap, FastSet};

/// A planned service, as long as it is planned; reused later.
pub(crate) type ServiceId = usize;

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
    planned: Slab<Planned>,
    by_key: FastMap<Key, ServiceId>,
    owners: FastMap<FrontendKey, ServiceId>,
    /// Who else asks for a frontend; no entry without one.
    rivals: FastMap<FrontendKey, Vec<ServiceId>>,
    /// Services whose plan names problems.
    troubled: FastSet<ServiceId>,
}

/// What a change of plans touched.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Services whose frontends or sets may be others now. Some may be gone.
    pub(crate) services: FastSet<ServiceId>,
    /// Frontends that were given up; another service may have them now.
    pub(crate) released: Vec<FrontendKey>,
    /// Services that are gone.
    pub(crate) removed: Vec<Key>,
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
        let keys = self.by_key.keys();
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
        let Some(&id) = self.by_key.get(&service.key) else {
            let key = service.key.clone();
            let id = self.planned.insert(Planned { key: key.clone(), plan, created_seconds });
            self.by_key.insert(key, id);
            return self.enter(id, changed);
        };
        let Some(planned) = self.planned.get_mut(id) else { return };
        if planned.plan == plan && planned.created_seconds == created_seconds {
            return;
        }
        let old = std::mem::replace(&mut planned.plan, plan);
        planned.created_seconds = created_seconds;
        self.leave(id, &old, changed);
        self.enter(id, changed);
    }

    fn remove(&mut self, key: &Key, changed: &mut Changed) {
        let Some(id) = self.by_key.remove(key) else { return };
        let Some(Planned { plan, key, .. }) = self.planned.try_remove(id) else { return };
        self.leave(id, &plan, changed);
        changed.services.insert(id);
        changed.removed.push(key);
    }

    fn enter(&mut self, id: ServiceId, changed: &mut Changed) {
        let Some(planned) = self.planned.get(id) else { return };
        if !planned.plan.problems.is_empty() {
            self.troubled.insert(id);
        }
        for frontend in &planned.plan.frontends {
            let key = frontend.key;
            let Some(owner) = self.owners.get_mut(&key) else {
                self.owners.insert(key, id);
                continue;
            };
            let rival = if rank(&self.planned, id) < rank(&self.planned, *owner) {
                changed.services.insert(*owner);
                std::mem::replace(owner, id)
            } else {
                id
            };
            self.rivals.entry(key).or_default().push(rival);
        }
        changed.services.insert(id);
    }

    fn leave(&mut self, id: ServiceId, plan: &ServicePlan, changed: &mut Changed) {
        self.troubled.remove(&id);
        for frontend in &plan.frontends {
            let key = frontend.key;
            let is_owner = self.owners.get(&key) == Some(&id);
            let Some(rivals) = self.rivals.get_mut(&key) else {
                if is_owner {
                    self.owners.remove(&key);
                    changed.released.push(key);
                }
                continue;
            };
            let heir = if is_owner {
                rivals.iter().copied().min_by_key(|rival| rank(&self.planned, *rival))
            } else {
                None
            };
            rivals.retain(|rival| *rival != id && Some(*rival) != heir);
            if rivals.is_empty() {
                self.rivals.remove(&key);
            }
            if let Some(heir) = heir {
                self.owners.insert(key, heir);
                changed.services.insert(heir);
            }
        }
    }

    /// How many services have something in the maps.
    pub fn len(&self) -> usize {
        self.planned.len()
    }

    /// Whether there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.planned.iter().map(|(id, _)| id)
    }

    pub(crate) fn get(&self, id: ServiceId) -> Option<&Planned> {
        self.planned.get(id)
    }

    /// Whether any service has the frontend.
    pub fn is_wanted(&self, frontend: &FrontendKey) -> bool {
        self.owners.contains_key(frontend)
    }

    /// What `id` has of what it asks for, and where each leads.
    pub(crate) fn leads_of(&self, id: ServiceId) -> impl Iterator<Item = Lead<'_>> {
        let leads = self.planned.get(id).into_iter().flat_map(|planned| planned.plan.leads());
        leads.filter(move |lead| self.owners.get(&lead.frontend.key) == Some(&id))
    }

    /// Every frontend with the service that has it.
    pub fn leads(&self) -> impl Iterator<Item = (&Planned, Lead<'_>)> {
        self.planned.iter().flat_map(move |(id, planned)| {
            let own = planned.plan.leads();
            let own = own.filter(move |l| self.owners.get(&l.frontend.key) == Some(&id));
            own.map(move |lead| (planned, lead))
        })
    }

    /// What is not served as asked, sorted by service.
    pub fn warnings(&self) -> Vec<Warning> {
        let troubled = self.troubled.iter().filter_map(|id| self.planned.get(*id));
        let mut warnings: Vec<Warning> = troubled
            .flat_map(|planned| {
                let problems = planned.plan.problems.iter().cloned();
                problems.map(|problem| Warning { service: planned.key.clone(), problem })
            })
            .collect();
        for (frontend, rivals) in &self.rivals {
            let owner = self.owners.get(frontend).and_then(|id| self.planned.get(*id));
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

fn plan(service: &Service, snapshot: &Snapshot, node: &NodeView) -> ServicePlan {
    let slices: Vec<_> = snapshot.slices_of(&service.key).collect();
    plan_service(service, &slices, node)
}

fn rank(planned: &Slab<Planned>, id: ServiceId) -> Option<(i64, &Key)> {
    planned.get(id).map(|planned| (planned.created_seconds, &planned.key))
}
