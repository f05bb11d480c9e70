//! Maps without a kernel, for plans, tests and measurements.

use std::collections::{BTreeMap, BTreeSet};

use super::{Capacities, Entry, MapError, Maps, ServiceCounts};
use crate::{delta::Step, image::Image};

/// Maps in memory, as large as the kernel's and full at the same entry.
#[derive(Clone, Debug)]
pub struct MemoryMaps {
    image: Image,
    counters: BTreeMap<u32, ServiceCounts>,
    connections: BTreeSet<u32>,
    capacities: Capacities,
}

impl Default for MemoryMaps {
    fn default() -> Self {
        Self::new(Capacities {
            frontends: 262_144,
            backends: 1_048_576,
            maglev: 65_536,
            source_ranges: 65_536,
            counters: 131_072,
        })
    }
}

impl MemoryMaps {
    /// Empty maps.
    pub fn new(capacities: Capacities) -> Self {
        let (counters, connections) = (BTreeMap::new(), BTreeSet::new());
        Self { image: Image::default(), counters, connections, capacities }
    }

    /// What they hold.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// What they hold, to be changed behind the synchroniser's back.
    pub fn image_mut(&mut self) -> &mut Image {
        &mut self.image
    }

    /// The counters, to be changed as programs would.
    pub fn counters_mut(&mut self) -> &mut BTreeMap<u32, ServiceCounts> {
        &mut self.counters
    }

    /// The counter ids that open connections name, to be changed as programs would.
    pub fn connections_mut(&mut self) -> &mut BTreeSet<u32> {
        &mut self.connections
    }
}

impl Maps for MemoryMaps {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        self.image.entries().for_each(take);
        Ok(())
    }

    fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        let Capacities { frontends, backends, maglev, .. } = self.capacities;
        match step {
            Step::DeleteFrontends(keys) => delete(&mut self.image.frontends, keys),
            Step::PutBackends(entries) => {
                put(&mut self.image.backends, entries, ("backends", backends))?;
            }
            Step::PutFrontends(entries) => {
                put(&mut self.image.frontends, entries, ("frontends", frontends))?;
            }
            Step::PutMaglev(parts) => put(&mut self.image.maglev, parts, ("maglev", maglev))?,
            Step::DeleteBackends(keys) => delete(&mut self.image.backends, keys),
            Step::DeleteMaglev(keys) => delete(&mut self.image.maglev, keys),
            Step::PutSourceRanges(ranges) => self.image.source_ranges.extend(ranges),
            Step::DeleteSourceRanges(ranges) => ranges.iter().for_each(|range| {
                self.image.source_ranges.remove(range);
            }),
            Step::ClearCounters(ids) => delete(&mut self.counters, ids),
            Step::NodePorts(range) => self.image.node_ports = *range,
            Step::SourcePorts(range) => self.image.source_ports = *range,
        }
        Ok(())
    }

    fn capacities(&self) -> Capacities {
        self.capacities
    }

    fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError> {
        Ok(self.counters.clone())
    }

    fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError> {
        Ok(self.connections.clone())
    }
}

fn put<K: Copy + Ord, V: Copy>(
    map: &mut BTreeMap<K, V>,
    entries: &[(K, V)],
    (name, capacity): (&'static str, usize),
) -> Result<(), MapError> {
    for (key, value) in entries {
        if map.len() >= capacity && !map.contains_key(key) {
            return Err(MapError::Full { map: name, capacity });
        }
        map.insert(*key, *value);
    }
    Ok(())
}

fn delete<K: Ord, V>(map: &mut BTreeMap<K, V>, keys: &[K]) {
    for key in keys {
        map.remove(key);
    }
}
