//! What became of connections, by service and CPU.

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use fairlead_ebpf::abi::{COUNTERS_PER_LINE, Reason, RefusalKey, ServiceCounters};

use crate::{
    hash::FastSet,
    maps::ServiceCounts,
    sys::{Mapped, PerCpuTable, Table},
};

/// What the counters of all CPUs take together, where that is enough for [`PER_CPU_MIN`] of each.
const BYTES_MAX: u64 = 32 << 20;
/// Services that are counted on a machine with however many CPUs, if so many are asked for.
const PER_CPU_MIN: u32 = 16_384;
const BYTES: usize = size_of::<ServiceCounters>();
const WORDS: usize = BYTES / size_of::<u64>();
/// Counters that are mapped together: 256 KiB, not much beside what the process needs.
const WINDOW: u32 = 32_768;

/// The counters of all services.
#[derive(Debug)]
pub(crate) struct Counters {
    table: Table<u32, ServiceCounters>,
    refusals: PerCpuTable<RefusalKey, u64>,
    cpus: u32,
    per_cpu: u32,
}

/// How many counters each of `cpus` CPUs gets where `wanted` are asked for. The map takes the memory of
/// all CPUs the machine may ever have, and at once.
pub(crate) fn per_cpu(wanted: u32, cpus: u32) -> u32 {
    let bytes = u64::from(cpus.max(1)) * BYTES as u64;
    let affordable = u32::try_from(BYTES_MAX / bytes).unwrap_or(u32::MAX);
    wanted.clamp(1, affordable.max(PER_CPU_MIN)).next_multiple_of(COUNTERS_PER_LINE)
}

impl Counters {
    /// Counters in a map of `entries` entries, and what was refused; `cpus` is the number of possible
    /// CPUs.
    pub(crate) fn new(
        (table, entries): (Table<u32, ServiceCounters>, u32),
        refusals: PerCpuTable<RefusalKey, u64>,
        cpus: u32,
    ) -> Self {
        Self { table, refusals, cpus, per_cpu: entries / cpus.max(1) }
    }

    /// Another handle on the same map.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let (table, refusals) = (self.table.try_clone()?, self.refusals.try_clone()?);
        Ok(Self { table, refusals, cpus: self.cpus, per_cpu: self.per_cpu })
    }

    /// Ids below this are counted.
    pub(crate) fn per_cpu(&self) -> u32 {
        self.per_cpu
    }

    /// Summed over CPUs, by counter id, of ids up to `last`; none of services to which nothing has
    /// happened. Ids are given from the smallest on: most of the map may be behind the last.
    pub(crate) fn up_to(&self, last: u32) -> io::Result<BTreeMap<u32, ServiceCounts>> {
        let ids = last.saturating_add(1).min(self.per_cpu);
        let mut sums: BTreeMap<u32, ServiceCounts> = BTreeMap::new();
        let windows = (0..ids).step_by(WINDOW as usize);
        for (first, cpu) in windows.flat_map(|first| (0..self.cpus).map(move |cpu| (first, cpu))) {
            let Some(place) = ServiceCounters::place(first, cpu, self.per_cpu) else { continue };
            let (from, len) = (place as usize * WORDS, WINDOW.min(ids - first) as usize * WORDS);
            let window = Mapped::read(&self.table, from..from + len)?;
            for (id, words) in (first..).zip(window.words().chunks_exact(WORDS)) {
                let counted = counters(words);
                if counted != ServiceCounters::default() {
                    let sum = sums.entry(id).or_default();
                    sum.selected = sum.selected.wrapping_add(counted.selected);
                }
            }
        }
        self.refusals.each(|RefusalKey { counter_id, reason }, cpus| {
            // Those a later version may know are none of this one's.
            let (Some(reason), true) = (Reason::at(*reason), *counter_id <= last) else { return };
            let count = cpus.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count));
            if count > 0 {
                sums.entry(*counter_id).or_default().refused.insert(reason, count);
            }
        })?;
        Ok(sums)
    }

    /// Sets those of these ids to zero, on every CPU. Nothing may count under them meanwhile.
    pub(crate) fn clear(&self, ids: &[u32]) -> io::Result<()> {
        let places = ids.iter().flat_map(|id| self.places(*id));
        let zero = |place| (place, ServiceCounters::default());
        self.table.put(&places.map(zero).collect::<Vec<_>>())?;
        let cleared: FastSet<u32> = ids.iter().copied().collect();
        let mut refusals = Vec::new();
        self.refusals.each(|key, _| {
            if cleared.contains(&key.counter_id) {
                refusals.push(*key);
            }
        })?;
        self.refusals.delete(&refusals)
    }

    /// Where those of an id are.
    fn places(&self, id: u32) -> impl Iterator<Item = u32> {
        let per_cpu = self.per_cpu;
        (0..self.cpus).filter_map(move |cpu| ServiceCounters::place(id, cpu, per_cpu))
    }
}

fn counters(words: &[AtomicU64]) -> ServiceCounters {
    let word = |n: usize| words.get(n).map_or(0, |word| word.load(Ordering::Relaxed));
    ServiceCounters { selected: word(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_cpus_share_the_room_and_each_has_enough_for_many_services() {
        for (wanted, cpus, expected) in [
            (131_072, 1, 131_072),
            (131_072, 32, 131_072),
            (131_072, 64, 65_536),
            (131_072, 256, 16_384),
            (131_072, 1024, 16_384),
            (4_000_000, 2, 2_097_152),
            (100, 512, 104),
            // Whole cache lines.
            (5, 2, 8),
            (9, 2, 16),
            (1, 0, 8),
            (0, 2, 8),
        ] {
            assert_eq!(per_cpu(wanted, cpus), expected, "{wanted} on {cpus} CPUs");
        }
    }
}
