//! What became of connections, by service and CPU.

use std::{collections::BTreeMap, io};

use fairlead_ebpf::abi::{CounterBlock, CounterKey, ServiceCounters};

use crate::sys::Table;

/// The counters of all services.
#[derive(Debug)]
pub(crate) struct Counters {
    table: Table<CounterKey, CounterBlock>,
    cpus: u32,
}

impl Counters {
    /// `cpus` is the number of possible CPUs.
    pub(crate) fn new(table: Table<CounterKey, CounterBlock>, cpus: usize) -> Self {
        Self { table, cpus: u32::try_from(cpus).unwrap_or(u32::MAX) }
    }

    /// Another handle on the same map.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { table: self.table.try_clone()?, cpus: self.cpus })
    }

    /// Summed over CPUs, by counter id; none of services to which nothing has happened.
    pub(crate) fn by_id(&self) -> io::Result<BTreeMap<u32, ServiceCounters>> {
        let mut sums: BTreeMap<u32, ServiceCounters> = BTreeMap::new();
        self.table.each(|key, block| {
            let of_services = CounterKey::ids_of(key.block).zip(&block.services);
            for (id, counters) in of_services.filter(|(_, c)| **c != ServiceCounters::default()) {
                let sum = sums.entry(id).or_default();
                sum.selected = sum.selected.wrapping_add(counters.selected);
                sum.rejected = sum.rejected.wrapping_add(counters.rejected);
            }
        })?;
        Ok(sums)
    }

    /// Removes these blocks, on whichever CPUs there are any.
    pub(crate) fn delete(&self, blocks: &[u32]) -> io::Result<()> {
        let on_cpus = |block: &u32| {
            let block = *block;
            (0..self.cpus).map(move |cpu| CounterKey { block, cpu })
        };
        self.table.delete(&blocks.iter().flat_map(on_cpus).collect::<Vec<_>>())
    }
}
