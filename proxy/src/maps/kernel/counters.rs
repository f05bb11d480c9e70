//! What became of connections, by service and CPU.

use std::{collections::BTreeMap, io, mem};

use bytemuck::{AnyBitPattern, NoUninit};
use fairlead_ebpf::abi::{COUNTERS_PER_LINE, Reason, RefusalKey, ServiceBytes, ServiceCounters};

use crate::{
    hash::FastSet,
    maps::ServiceCounts,
    sys::{Mapped, PerCpuTable, Table, Word},
};

/// What the counters of all CPUs take together, where that is enough for [`PER_CPU_MIN`] of each.
const BYTES_MAX: u64 = 32 << 20;
/// Services that are counted on a machine with however many CPUs, if so many are asked for.
const PER_CPU_MIN: u32 = 16_384;
/// What is mapped together: not much beside what the process needs.
const WINDOW_BYTES: usize = 256 << 10;

/// The counters of all services.
#[derive(Debug)]
pub(crate) struct Counters {
    selected: Dense<ServiceCounters>,
    bytes: Dense<ServiceBytes>,
    refusals: PerCpuTable<RefusalKey, u64>,
}

/// A map with one `V`, of words alone, for each service and CPU.
#[derive(Debug)]
struct Dense<V> {
    table: Table<u32, V>,
    cpus: u32,
    per_cpu: u32,
}

/// How many counters of type `V` each of `cpus` CPUs gets where `wanted` are asked for. The map takes the
/// memory of all CPUs the machine may ever have, and at once.
pub(crate) fn per_cpu<V>(wanted: u32, cpus: u32) -> u32 {
    let bytes = u64::from(cpus.max(1)) * mem::size_of::<V>() as u64;
    let affordable = u32::try_from(BYTES_MAX / bytes).unwrap_or(u32::MAX);
    wanted.clamp(1, affordable.max(PER_CPU_MIN)).next_multiple_of(COUNTERS_PER_LINE)
}

impl Counters {
    /// Counters in maps of so many entries, and what was refused; `cpus` is the number of possible CPUs.
    pub(crate) fn new(
        selected: (Table<u32, ServiceCounters>, u32),
        bytes: (Table<u32, ServiceBytes>, u32),
        refusals: PerCpuTable<RefusalKey, u64>,
        cpus: u32,
    ) -> Self {
        Self { selected: Dense::new(selected, cpus), bytes: Dense::new(bytes, cpus), refusals }
    }

    /// Another handle on the same maps.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let (selected, bytes) = (self.selected.try_clone()?, self.bytes.try_clone()?);
        Ok(Self { selected, bytes, refusals: self.refusals.try_clone()? })
    }

    /// Ids below this are counted.
    pub(crate) fn per_cpu(&self) -> u32 {
        self.selected.per_cpu
    }

    /// Summed over CPUs, by counter id, of ids up to `last`; none of services to which nothing has
    /// happened. Ids are given from the smallest on: most of the maps may be behind the last.
    pub(crate) fn up_to(&self, last: u32) -> io::Result<BTreeMap<u32, ServiceCounts>> {
        let mut sums: BTreeMap<u32, ServiceCounts> = BTreeMap::new();
        let add = |sum: &mut u64, more: u64| *sum = sum.wrapping_add(more);
        self.selected.each(last, |id, [selected]| {
            add(&mut sums.entry(id).or_default().selected, selected);
        })?;
        self.bytes.each(last, |id, [packets_to, packets_from, sockets_to, sockets_from]| {
            let sum = &mut sums.entry(id).or_default().bytes;
            add(&mut sum.packets_to, packets_to);
            add(&mut sum.packets_from, packets_from);
            add(&mut sum.sockets_to, sockets_to);
            add(&mut sum.sockets_from, sockets_from);
        })?;
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
        self.selected.clear(ids)?;
        self.bytes.clear(ids)?;
        let cleared: FastSet<u32> = ids.iter().copied().collect();
        let mut refusals = Vec::new();
        self.refusals.each(|key, _| {
            if cleared.contains(&key.counter_id) {
                refusals.push(*key);
            }
        })?;
        self.refusals.delete(&refusals)
    }
}

impl<V: NoUninit + AnyBitPattern> Dense<V> {
    fn new((table, entries): (Table<u32, V>, u32), cpus: u32) -> Self {
        Self { table, cpus, per_cpu: entries / cpus.max(1) }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { table: self.table.try_clone()?, cpus: self.cpus, per_cpu: self.per_cpu })
    }

    /// Calls `take` with what each CPU has counted, and for whom, of ids up to `last`; not with zeros.
    fn each<const WORDS: usize>(
        &self,
        last: u32,
        mut take: impl FnMut(u32, [u64; WORDS]),
    ) -> io::Result<()> {
        const { assert!(WORDS * mem::size_of::<u64>() == mem::size_of::<V>()) };
        let ids = last.saturating_add(1).min(self.per_cpu);
        let window = u32::try_from(WINDOW_BYTES / mem::size_of::<V>()).unwrap_or(u32::MAX);
        let windows = (0..ids).step_by(window as usize);
        for (first, cpu) in windows.flat_map(|first| (0..self.cpus).map(move |cpu| (first, cpu))) {
            let Some(place) = ServiceCounters::place(first, cpu, self.per_cpu) else { continue };
            let (from, len) = (place as usize * WORDS, window.min(ids - first) as usize * WORDS);
            let mapped = Mapped::read(&self.table, from..from + len)?;
            let (counters, _) = mapped.words().as_chunks::<WORDS>();
            for (id, words) in (first..).zip(counters) {
                let words = words.each_ref().map(Word::load);
                if words != [0; WORDS] {
                    take(id, words);
                }
            }
        }
        Ok(())
    }

    fn clear(&self, ids: &[u32]) -> io::Result<()> {
        let places = ids.iter().flat_map(|id| self.places(*id));
        self.table.put(&places.map(|place| (place, V::zeroed())).collect::<Vec<_>>())
    }

    /// Where those of an id are.
    fn places(&self, id: u32) -> impl Iterator<Item = u32> {
        let per_cpu = self.per_cpu;
        (0..self.cpus).filter_map(move |cpu| ServiceCounters::place(id, cpu, per_cpu))
    }
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
            let counted = per_cpu::<ServiceCounters>(wanted, cpus);
            assert_eq!(counted, expected, "{wanted} on {cpus} CPUs");
        }
        assert_eq!(per_cpu::<ServiceBytes>(131_072, 16), 65_536, "four times as large");
    }
}
