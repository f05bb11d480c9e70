//! What a pass did, and how the proxy stands.

use std::{fmt, time::Duration};

use fairlead_state::Key;
use imbl::OrdMap;

use crate::{
    delta::{FullMap, Step},
    image::Capacities,
    plan::Warning,
};

/// Warnings that are kept word by word; more are only counted.
const WARNINGS_MAX: usize = 256;

/// What one pass over the maps did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The snapshot that is planned.
    pub revision: u64,
    /// Services looked at.
    pub services: usize,
    /// Frontends written.
    pub frontends_put: usize,
    /// Frontends removed.
    pub frontends_deleted: usize,
    /// Backend slots written.
    pub backends_put: usize,
    /// Backend slots removed.
    pub backends_deleted: usize,
    /// Parts of Maglev tables written and removed.
    pub maglev: usize,
    /// Entries found that were not as they had been written.
    pub drift: usize,
    /// Services that are not as planned and will be tried again.
    pub behind: usize,
    /// The last thing that went wrong in this pass.
    pub error: Option<String>,
}

impl Report {
    /// How many entries were written or removed.
    pub fn entries(&self) -> usize {
        let backends = self.backends_put + self.backends_deleted;
        self.frontends_put + self.frontends_deleted + backends + self.maglev
    }

    pub(super) fn count(&mut self, step: &Step) {
        let entries = step.entries();
        match step {
            Step::DeleteFrontends(_) => self.frontends_deleted += entries,
            Step::PutFrontends(_) => self.frontends_put += entries,
            Step::PutBackends(_) => self.backends_put += entries,
            Step::DeleteBackends(_) => self.backends_deleted += entries,
            Step::PutMaglev(_) | Step::DeleteMaglev(_) => self.maglev += entries,
            Step::PutSourceRanges(_)
            | Step::DeleteSourceRanges(_)
            | Step::ClearCounters(_)
            | Step::NodePorts(_)
            | Step::SourcePorts(_) => {}
        }
    }
}

/// How the proxy stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyStatus {
    /// The snapshot that is planned; 0 before the first.
    pub revision: u64,
    /// The maps hold all of it.
    pub is_current: bool,
    /// Services with something to serve.
    pub services: usize,
    /// Frontends in the maps.
    pub frontends: usize,
    /// Backend slots in the maps.
    pub backends: usize,
    /// Parts of Maglev tables in the maps.
    pub maglev: usize,
    /// Source ranges in the maps.
    pub source_ranges: usize,
    /// Services that are not as planned and will be tried again.
    pub behind: usize,
    /// How much the maps take.
    pub capacities: Capacities,
    /// Maps without room for all services.
    pub full: Vec<Full>,
    /// Services that are not served as they ask.
    pub warnings: Warnings,
    /// What went wrong in the last pass; `None`: nothing.
    pub last_error: Option<String>,
    /// Entries that were found changed by somebody else, ever.
    pub drift_total: u64,
    /// Passes that wrote something, ever.
    pub passes_total: u64,
    /// How long the last of them took, planning included.
    pub last_pass: Duration,
    /// The service behind each counter id.
    pub counter_owners: OrdMap<u32, Key>,
    /// Nothing is counted under an id behind this one, which may be nobody's any more. `None`: it is not
    /// known yet.
    pub counters_last: Option<u32>,
}

/// The first warnings, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    /// Sorted by service.
    pub first: Vec<Warning>,
    /// How many there are in all.
    pub total: usize,
}

impl Warnings {
    pub(super) fn first_of(mut all: Vec<Warning>) -> Self {
        let total = all.len();
        all.truncate(WARNINGS_MAX);
        Self { first: all, total }
    }
}

/// A map without room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which one.
    pub map: FullMap,
    /// How many entries it takes.
    pub capacity: usize,
    /// Services that are not, or not wholly, as planned for it.
    pub services: usize,
    /// Of these, such as lack only what keeps flows of datagrams with endpoints that new ones are not sent to.
    pub flows: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map, capacity, services, flows } = self;
        write!(
            f,
            "{map} holds {capacity} entries and is full; services not served in full: {services}"
        )?;
        if *flows > 0 {
            write!(f, ", of which {flows} lack only what keeps UDP flows where they are")?;
        }
        write!(f, "; raise --{map}-max")
    }
}
