//! In which groups services are written in one pass.

use std::collections::BTreeSet;

use super::Report;
use crate::{delta::Step, plan::ServiceId};

/// Services that are written together: what is prepared for a group takes memory beside the plans.
const GROUP_SERVICES_MAX: usize = 4096;

/// One pass over the maps.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) report: Report,
    /// To be written, the last one first.
    groups: Vec<Vec<ServiceId>>,
    /// Those who wait for room and may find some, the last one first.
    turns: Vec<ServiceId>,
    /// Entries written and removed.
    entries: usize,
    /// So many there were when those who wait for room had their last turn.
    at_last_turn: Option<usize>,
}

impl Pass {
    pub(super) fn new(mut report: Report, services: BTreeSet<ServiceId>) -> Self {
        report.services = services.len();
        let services: Vec<ServiceId> = services.into_iter().collect();
        // Without services there may be frontends and source ranges to take away.
        let groups = match services.is_empty() {
            true => vec![vec![]],
            false => services.rchunks(GROUP_SERVICES_MAX).map(<[_]>::to_vec).collect(),
        };
        Self { report, groups, turns: Vec::new(), entries: 0, at_last_turn: None }
    }

    /// What is to be written now. At the end come those who wait for room, as long as they `may_fit`: one by one, as
    /// each may need what the one before gives up, and all of them again for as long as that helps any.
    pub(super) fn next(
        &mut self,
        waiting: impl Fn() -> Vec<ServiceId>,
        may_fit: impl Fn(ServiceId) -> bool,
    ) -> Option<Vec<ServiceId>> {
        if let Some(group) = self.groups.pop() {
            return Some(group);
        }
        loop {
            while let Some(id) = self.turns.pop() {
                if may_fit(id) {
                    return Some(vec![id]);
                }
            }
            if self.at_last_turn == Some(self.entries) {
                return None;
            }
            self.at_last_turn = Some(self.entries);
            self.turns = waiting();
            self.turns.reverse();
        }
    }

    /// Whether this is the last group but for those who wait, who had their first turn before.
    pub(super) fn is_last(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn count(&mut self, step: &Step) {
        self.entries += step.entries();
        self.report.count(step);
    }

    /// To be written next, instead of a group that failed.
    pub(super) fn put_back(&mut self, group: Vec<ServiceId>) {
        self.groups.push(group);
    }

    /// Nothing more is written. Returns what would have been.
    pub(super) fn end(&mut self) -> impl Iterator<Item = ServiceId> {
        self.turns.clear();
        self.at_last_turn = Some(self.entries);
        self.groups.drain(..).flatten()
    }
}
