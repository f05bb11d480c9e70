//! Keeps the maps as the newest snapshot wants them.
//!
//! Plans what changed, writes it in one pass of ordered steps, and takes note only of what was
//! written. After an error the maps are read anew: nothing is assumed. The same reading starts an
//! agent on the maps an earlier one left, so there is one way in, not two.

mod counters;
mod full;
mod pass;
mod status;

use std::collections::BTreeSet;

use fairlead_ebpf::{
    abi::{FrontendKey, SourceRangeKey},
    packet::mapped,
};
use fairlead_state::{Changes, Dirty, Key, Name, Snapshot};
use ipnetwork::IpNetwork;

pub use self::status::{Full, ProxyStatus, Report, Warnings};
use self::{counters::Owners, full::Waiting, pass::Pass};
use crate::{
    delta::{Actual, Check, Delta, Draft, Ids, Lack, Reading, Room, Step, Wanted, WantedFrontend},
    hash::FastSet,
    maps::{MapError, Maps, ServiceCounts},
    plan::{Changed, NodeView, Plans, Rules, ServiceId},
};

/// Failed writes of one pass after which the rest waits for the next: the maps are read anew after
/// each, and by then it is not one service that is at fault.
const PASS_FAILURES_MAX: usize = 24;

/// The one writer of the service maps.
#[derive(Debug)]
pub struct Synchroniser<M> {
    maps: M,
    node_name: Name,
    rules: Rules,
    node: Option<NodeView>,
    revision: u64,
    plans: Plans,
    /// `None`: to be read first.
    actual: Option<Actual>,
    set_ids: Ids,
    owners: Owners,
    /// Services to be written in the next pass.
    pending: BTreeSet<ServiceId>,
    /// Services that wait for [`Synchroniser::retry`].
    failed: BTreeSet<ServiceId>,
    /// Services that wait for room: they are written as soon as there is some.
    waiting: Waiting,
    /// Frontends in the maps that nobody may want any more.
    released: Vec<FrontendKey>,
    /// Frontends that another service may have had, until all that have them now were looked at.
    inherited: FastSet<FrontendKey>,
    /// Counter ids of which there are source ranges that may be nobody's any more.
    ended: FastSet<u32>,
    last_error: Option<String>,
    drift_total: u64,
}

impl<M: Maps> Synchroniser<M> {
    /// A synchroniser for the node `node_name`. Nothing is read or written before the first
    /// snapshot: what an earlier start left keeps serving.
    pub fn new(maps: M, node_name: &str) -> Self {
        Self {
            maps,
            node_name: node_name.into(),
            rules: Rules::default(),
            node: None,
            revision: 0,
            plans: Plans::default(),
            actual: None,
            set_ids: Ids::default(),
            owners: Owners::default(),
            pending: BTreeSet::new(),
            failed: BTreeSet::new(),
            waiting: Waiting::default(),
            released: Vec::new(),
            inherited: FastSet::default(),
            ended: FastSet::default(),
            last_error: None,
            drift_total: 0,
        }
    }

    /// The same with other rules.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The maps.
    pub fn maps(&self) -> &M {
        &self.maps
    }

    /// The maps, to be set up; a change of what they hold is drift (see [`Synchroniser::verify`]).
    pub fn maps_mut(&mut self) -> &mut M {
        &mut self.maps
    }

    /// The maps, when the synchroniser ends. They keep what they hold.
    pub fn into_maps(self) -> M {
        self.maps
    }

    /// What is planned.
    pub fn plans(&self) -> &Plans {
        &self.plans
    }

    /// Whether the maps are not as planned.
    pub fn is_behind(&self) -> bool {
        self.waiting.len() > 0 || self.is_retry_due()
    }

    /// Whether [`Synchroniser::retry`] may help: not where all that is missing is room, which only a change of
    /// services can make.
    pub fn is_retry_due(&self) -> bool {
        !self.failed.is_empty() || !self.released.is_empty() || self.actual.is_none()
    }

    /// Brings the maps to `snapshot`, at the cost of what changed since the last call.
    pub fn reconcile(&mut self, snapshot: &Snapshot) -> Report {
        let mut changed = Changed::default();
        let rules = self.rules.clone();
        let node = NodeView { rules, ..NodeView::new(&self.node_name, snapshot) };
        let changes = match &self.node {
            Some(known) if *known == node => snapshot.changes_since(self.revision),
            _ => Changes::All,
        };
        match changes {
            Changes::All => self.plans.replan_all(snapshot, &node, &mut changed),
            Changes::Some(dirty) => {
                let services = dirty.iter().filter_map(|dirty| match dirty {
                    Dirty::Service(key) => Some(key),
                    _ => None,
                });
                for key in services {
                    self.plans.replan(key, snapshot, &node, &mut changed);
                }
            }
        }
        // Before the first plans there were others, which are not known.
        if self.node.is_some() {
            let wanted = changed.released.iter().filter(|key| self.plans.is_wanted(key));
            self.inherited.extend(wanted);
        }
        self.node = Some(node);
        self.revision = snapshot.revision();
        self.take(changed);
        self.settle()
    }

    /// Tries again what could not be written.
    pub fn retry(&mut self) -> Report {
        self.pending.append(&mut self.failed);
        // What a failed write was to take from some of them may be there still.
        self.pending.extend(self.waiting.ids());
        self.settle()
    }

    /// Compares the maps with what was written, and repairs what is not as it was written. Counter ids
    /// that no frontend and no open connection has named since the comparison before are given free.
    /// Whatever program met one by then has ended, if there are seconds between: programs do not sleep.
    pub fn verify(&mut self) -> Report {
        let Some(expected) = &self.actual else { return self.settle() };
        let mut check = Check::new(expected);
        let compared = self.maps.each(&mut |entry| check.take(entry));
        let drift = compared.map(|()| check.differences());
        let drift = match drift.and_then(|drift| self.free_ids(drift).map(|()| drift)) {
            Ok(drift) => drift,
            Err(error) => {
                self.last_error = Some(error.to_string());
                return self.finish(Report { error: self.last_error.clone(), ..Report::default() });
            }
        };
        if drift > 0 {
            // To be read anew.
            self.actual = None;
        }
        self.drift_total = self.drift_total.saturating_add(drift as u64);
        Report { drift, ..self.settle() }
    }

    /// Gives counter ids free, if the maps are as they were written: else it is not known which ids
    /// their frontends name. A connection names its id for as long as it is open, longer than its service
    /// may be there.
    fn free_ids(&mut self, drift: usize) -> Result<(), MapError> {
        let Some(actual) = self.actual.as_ref().filter(|_| drift == 0) else { return Ok(()) };
        if !self.owners.has_resting() {
            return Ok(());
        }
        let mut named: FastSet<u32> =
            actual.frontends().values().map(|value| value.counter_id).collect();
        named.extend(self.maps.named_by_connections()?);
        let rested = self.owners.rested(&named);
        if !rested.is_empty() {
            self.maps.apply(&Step::ClearCounters(rested.clone()))?;
            self.owners.free(rested);
        }
        Ok(())
    }

    fn take(&mut self, changed: Changed) {
        self.pending.extend(changed.services);
        self.released.extend(changed.released);
        for id in changed.removed {
            self.ended.extend(self.owners.remove(id));
        }
        for id in &self.pending {
            self.failed.remove(id);
        }
    }

    /// Reads the maps, and finds what in them is nobody's.
    fn load(&mut self) -> Result<(), MapError> {
        let mut reading = Reading::default();
        self.maps.each(&mut |entry| reading.take(entry))?;
        let actual = reading.finish();
        let used: FastSet<u32> =
            self.maps.counters()?.into_keys().chain(actual.limited()).collect();
        self.ended.extend(actual.limited());
        let unwanted = actual.frontends().keys().filter(|key| !self.plans.is_wanted(key));
        self.released = unwanted.copied().collect();
        if self.set_ids == Ids::default() {
            let is_first = actual.slots() == 0;
            let held = actual.set_ids().chain(is_first.then(|| self.maps.first_set_id()));
            self.set_ids = Ids::after(held);
        }
        let named = actual.frontends().values().map(|value| value.counter_id);
        self.owners.found(named, used);
        self.actual = Some(actual);
        Ok(())
    }

    /// Writes what is pending, in one pass if all goes well. A service that cannot be written is
    /// found by halving and left behind; it holds up no other.
    fn settle(&mut self) -> Report {
        let report = Report { revision: self.revision, ..Report::default() };
        if self.actual.is_none() {
            if let Err(error) = self.load() {
                return self.give_up(report, &error);
            }
            self.pending.extend(self.plans.ids());
            self.failed.clear();
        }
        self.waiting.forget(&self.pending);
        let mut pass = Pass::new(report, std::mem::take(&mut self.pending));
        let mut failures = 0;
        while let Some(mut group) = pass.next(|| self.who_may_fit(), |id| self.may_fit(id)) {
            self.waiting.forget(&group);
            let Err(error) = self.write(&group, &mut pass) else { continue };
            failures += 1;
            pass.report.error = Some(error.to_string());
            // What a failed write left behind is not known.
            self.actual = None;
            let reloaded = self.load();
            let is_hopeless = failures >= PASS_FAILURES_MAX || error.is_for_all();
            if reloaded.is_err() || is_hopeless || group.len() < 2 {
                self.failed.extend(group);
            } else {
                pass.put_back(group.split_off(group.len() / 2));
                pass.put_back(group);
            }
            if reloaded.is_err() || is_hopeless {
                self.failed.extend(pass.end());
            }
        }
        if self.failed.is_empty() {
            self.inherited = FastSet::default();
        }
        self.last_error.clone_from(&pass.report.error);
        self.finish(pass.report)
    }

    /// Of those who wait for room, who may find some.
    fn who_may_fit(&self) -> Vec<ServiceId> {
        self.room().map(|room| self.waiting.who_may_fit(&room)).unwrap_or_default()
    }

    fn may_fit(&self, id: ServiceId) -> bool {
        self.room().is_some_and(|room| self.waiting.may_fit(id, &room))
    }

    fn room(&self) -> Option<Room> {
        self.actual.as_ref().map(|actual| Room::of(actual, self.maps.capacities()))
    }

    /// Writes one group of services, and takes note of those that find no room.
    fn write(&mut self, group: &[ServiceId], pass: &mut Pass) -> Result<(), MapError> {
        // Services of later groups have yet to claim the ids that they had before a restart.
        let is_last = pass.is_last() && self.have_all_claimed();
        let (delta, unfit) = self.draft(group, is_last);
        // Groups are sorted. Of others what was given up is missing whatever becomes of this one.
        let owners = delta.given_up().iter().filter_map(|key| self.plans.owner(key));
        let others = owners.filter(|id| group.binary_search(id).is_err());
        others.for_each(|id| self.waiting.insert_beside(id));
        if let Some(actual) = self.actual.as_mut() {
            for step in delta.steps(actual) {
                self.maps.apply(&step)?;
                pass.count(&step);
            }
            actual.commit(&delta);
        }
        self.released = Vec::new();
        if is_last {
            self.ended = FastSet::default();
            self.owners.adopted();
        }
        unfit.into_iter().for_each(|(id, lack)| self.waiting.insert(id, lack));
        Ok(())
    }

    /// Whether no service that failed has yet to claim the id its frontends have from before: what is left of
    /// those is somebody's still.
    fn have_all_claimed(&self) -> bool {
        self.failed
            .iter()
            .all(|id| self.owners.id_of(*id).is_some() || self.plans.leads_of(*id).next().is_none())
    }

    fn draft(&mut self, group: &[ServiceId], is_last: bool) -> (Delta, Vec<(ServiceId, Lack)>) {
        let capacities = self.maps.capacities();
        let Some(actual) = self.actual.as_ref() else { return Default::default() };
        let mut draft = Draft::new(actual, capacities).with_inherited(&self.inherited);
        for frontend in self.released.iter().filter(|key| !self.plans.is_wanted(key)) {
            draft.release(*frontend);
        }
        let (mut unfit, mut beside) = (Vec::new(), Vec::new());
        for id in group {
            let Some(planned) = self.plans.get(*id) else { continue };
            let leads = self.plans.leads_of(*id);
            let frontends: Vec<WantedFrontend<'_>> = leads.map(WantedFrontend::from).collect();
            if frontends.is_empty() {
                // All it asks for belongs to others.
                if let Some(counter_id) = self.owners.id_of(*id) {
                    draft.end_ranges(counter_id);
                }
                continue;
            }
            // First by what has hardly been another's before a restart, unlike addresses that services share.
            let own = frontends.iter().filter(|frontend| frontend.key.is_other_ports());
            let held = own.chain(&frontends).filter_map(|f| actual.frontends().get(&f.key));
            let counter_id = self.owners.id_for((*id, &planned.key), held, capacities.counters);
            let ranges = planned.plan.extras.source_ranges.iter();
            let source_ranges = ranges.map(|range| source_range(counter_id, *range)).collect();
            let wanted = Wanted { counter_id, frontends, source_ranges };
            match draft.serve(&wanted, &mut self.set_ids) {
                Err(lack) => unfit.push((*id, lack)),
                Ok(()) if wanted.has_beside() => beside.push((*id, wanted)),
                Ok(()) => {}
            }
        }
        for (id, wanted) in &beside {
            let served = draft.serve_beside(wanted, &mut self.set_ids);
            unfit.extend(served.err().map(|lack| (*id, lack)));
        }
        if is_last {
            for id in self.ended.iter().filter(|id| !self.owners.is_owned(**id)) {
                draft.end_ranges(*id);
            }
        }
        (draft.finish(|| self.maps.local_ports()), unfit)
    }

    fn give_up(&mut self, mut report: Report, error: &MapError) -> Report {
        self.waiting.forget(&self.pending);
        self.failed.append(&mut self.pending);
        report.error = Some(error.to_string());
        self.last_error.clone_from(&report.error);
        self.finish(report)
    }

    fn finish(&self, mut report: Report) -> Report {
        report.behind = self.failed.len() + self.waiting.len();
        report
    }

    /// How things stand, for logs, metrics and commands.
    pub fn status(&self) -> ProxyStatus {
        let actual = self.actual.as_ref();
        ProxyStatus {
            revision: self.revision,
            is_current: !self.is_behind(),
            services: self.plans.len(),
            frontends: actual.map_or(0, |actual| actual.frontends().len()),
            backends: actual.map_or(0, Actual::slots),
            maglev: actual.map_or(0, Actual::parts),
            source_ranges: actual.map_or(0, Actual::ranges),
            behind: self.failed.len() + self.waiting.len(),
            capacities: self.maps.capacities(),
            full: self.waiting.by_map(self.maps.capacities()),
            warnings: Warnings::first_of(self.plans.warnings()),
            last_error: self.last_error.clone(),
            drift_total: self.drift_total,
            counter_owners: self.owners.by_id(),
            counters_last: actual.map(|_| self.owners.last()),
            ..ProxyStatus::default()
        }
    }

    /// What became of connections, by service.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn counters(&self) -> Result<Vec<(Key, ServiceCounts)>, MapError> {
        let counters = self.maps.counters()?;
        let owned = self.owners.by_id();
        let named = owned
            .iter()
            .map(|(id, key)| (key.clone(), counters.get(id).cloned().unwrap_or_default()));
        Ok(named.collect())
    }
}

/// A range as the maps have it: behind the service, IPv4 as v4-mapped.
fn source_range(counter_id: u32, range: IpNetwork) -> SourceRangeKey {
    let (address, bits) = match range {
        IpNetwork::V4(range) => (mapped(range.network().octets()), 96 + u32::from(range.prefix())),
        IpNetwork::V6(range) => (range.network().octets(), u32::from(range.prefix())),
    };
    SourceRangeKey { prefix_len: 32 + bits, counter_id, address }
}
