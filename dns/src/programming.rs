//! How late names are: from a change's cause to the moment its names are answered
//! (sig-scalability/slos/dns_programming_latency.md).

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use fairlead_state::{
    change::Dirty,
    model::{Key, Service},
    snapshot::{Changes, Snapshot},
};

use crate::counters::{Histogram, PROGRAMMING_BOUNDS, ProgrammingReport};

const NANOSECONDS_PER_MS: u64 = 1_000_000;

/// By kind of Service, as CoreDNS tells them apart.
#[derive(Debug, Default)]
pub(crate) struct Programming {
    cluster_ip: Histogram<{ PROGRAMMING_BOUNDS.len() }>,
    headless: Histogram<{ PROGRAMMING_BOUNDS.len() }>,
}

impl Programming {
    /// Takes note of what changed between two snapshots whose names are answered now. What the first
    /// one says happened before this server was there.
    pub(crate) fn observe(&self, old: &Snapshot, new: &Snapshot) {
        let Changes::Some(dirty) = new.changes_since(old.revision()) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        for one in dirty {
            let Dirty::Service(key) = &one else { continue };
            let Some(service) = new.services().get(key) else { continue };
            for at_ms in triggers(old, new, key) {
                let late_ms = u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0);
                let late = late_ms.saturating_mul(NANOSECONDS_PER_MS);
                self.of(service).observe(&PROGRAMMING_BOUNDS, late);
            }
        }
    }

    fn of(&self, service: &Arc<Service>) -> &Histogram<{ PROGRAMMING_BOUNDS.len() }> {
        if service.headless { &self.headless } else { &self.cluster_ip }
    }

    pub(crate) fn report(&self) -> ProgrammingReport {
        let mut report = ProgrammingReport::default();
        self.cluster_ip.add_to(&mut report.cluster_ip);
        self.headless.add_to(&mut report.headless);
        report
    }
}

/// When the causes of changed EndpointSlices were, in milliseconds since the epoch. A slice that says
/// the same time again changed for another reason, which it does not tell.
fn triggers<'s>(
    old: &'s Snapshot,
    new: &'s Snapshot,
    service: &'s Key,
) -> impl Iterator<Item = i64> + 's {
    new.slices_of(service).filter_map(|slice| {
        let before = old.endpoint_slices().get(&slice.key);
        let known = before.and_then(|before| before.trigger_time_ms);
        slice.trigger_time_ms.filter(|at| Some(*at) != known)
    })
}
