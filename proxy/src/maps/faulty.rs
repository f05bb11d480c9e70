//! Maps that fail: at random, in the middle of a step, and for good.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    ops::RangeInclusive,
};

use fairlead_ebpf::select;

use super::{Capacities, Entry, MapError, Maps, ServiceCounts};
use crate::delta::Step;

/// Wraps maps. Every step reaches them entry by entry, and may end between two entries.
#[derive(Debug)]
pub struct FaultyMaps<M> {
    inner: M,
    seed: u64,
    drawn: Cell<u64>,
    faults_per_thousand: u32,
    /// Entries until everything fails.
    entries_to_crash: Option<u64>,
    faults: Cell<u64>,
}

impl<M: Maps> FaultyMaps<M> {
    /// Of a thousand calls about `faults_per_thousand` fail; the same `seed`, the same calls.
    pub fn new(inner: M, seed: u64, faults_per_thousand: u32) -> Self {
        let (drawn, faults) = (Cell::new(0), Cell::new(0));
        Self { inner, seed, drawn, faults_per_thousand, entries_to_crash: None, faults }
    }

    /// After `entries` more entries every call fails, as if the process were gone.
    pub fn crash_after(&mut self, entries: u64) {
        self.entries_to_crash = Some(entries);
    }

    /// Whether the point set by [`FaultyMaps::crash_after`] was reached.
    pub fn is_crashed(&self) -> bool {
        self.entries_to_crash == Some(0)
    }

    /// Lets calls through again and sets how many fail.
    pub fn revive(&mut self, faults_per_thousand: u32) {
        self.entries_to_crash = None;
        self.faults_per_thousand = faults_per_thousand;
    }

    /// How many calls failed.
    pub fn faults(&self) -> u64 {
        self.faults.get()
    }

    /// The maps behind.
    pub fn inner(&self) -> &M {
        &self.inner
    }

    /// The maps behind, to be changed.
    pub fn inner_mut(&mut self) -> &mut M {
        &mut self.inner
    }

    fn random(&self) -> u32 {
        self.drawn.set(self.drawn.get().wrapping_add(1));
        select::mix(self.seed.wrapping_add(self.drawn.get()))
    }

    fn is_fault_due(&self) -> bool {
        self.is_crashed() || self.random() % 1000 < self.faults_per_thousand
    }

    fn fault(&self, map: &'static str) -> MapError {
        self.faults.set(self.faults.get().wrapping_add(1));
        MapError::Other { map, source: io::Error::other("a fault on purpose") }
    }
}

impl<M: Maps> Maps for FaultyMaps<M> {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        if self.is_fault_due() {
            return Err(self.fault("frontends"));
        }
        self.inner.each(take)
    }

    fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        let entries = entry_by_entry(step);
        let mut left = if self.is_fault_due() {
            let before_fault = self.random() as usize % (entries.len() + 1);
            Some(before_fault)
        } else {
            None
        };
        for entry in &entries {
            if left == Some(0) || self.is_crashed() {
                return Err(self.fault("backends"));
            }
            self.inner.apply(entry)?;
            left = left.map(|left| left - 1);
            self.entries_to_crash = self.entries_to_crash.map(|left| left.saturating_sub(1));
        }
        // All of it done and yet an error: the worst answer there is.
        if left.is_some() { Err(self.fault("backends")) } else { Ok(()) }
    }

    fn capacities(&self) -> Capacities {
        self.inner.capacities()
    }

    fn local_ports(&self) -> RangeInclusive<u16> {
        self.inner.local_ports()
    }

    fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError> {
        if self.is_fault_due() {
            return Err(self.fault("counters"));
        }
        self.inner.counters()
    }

    fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError> {
        if self.is_fault_due() {
            return Err(self.fault("connections"));
        }
        self.inner.named_by_connections()
    }
}

fn entry_by_entry(step: &Step) -> Vec<Step> {
    match step {
        Step::DeleteFrontends(all) => each(all, Step::DeleteFrontends),
        Step::PutBackends(all) => each(all, Step::PutBackends),
        Step::PutFrontends(all) => each(all, Step::PutFrontends),
        Step::PutMaglev(all) => each(all, Step::PutMaglev),
        Step::DeleteBackends(all) => each(all, Step::DeleteBackends),
        Step::DeleteMaglev(all) => each(all, Step::DeleteMaglev),
        Step::PutSourceRanges(all) => each(all, Step::PutSourceRanges),
        Step::DeleteSourceRanges(all) => each(all, Step::DeleteSourceRanges),
        Step::ClearCounters(all) => each(all, Step::ClearCounters),
        Step::NodePorts(_) | Step::SourcePorts(_) => vec![step.clone()],
    }
}

fn each<T: Copy>(entries: &[T], step: fn(Vec<T>) -> Step) -> Vec<Step> {
    entries.iter().map(|entry| step(vec![*entry])).collect()
}
