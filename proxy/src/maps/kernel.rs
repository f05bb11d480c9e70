//! The maps in the kernel.

mod counters;
mod pinned;

pub(crate) use self::{
    counters::{Counters, per_cpu as counters_per_cpu},
    pinned::open as open_map,
};

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::RangeInclusive,
};

use fairlead_ebpf::abi::{
    Backend, BackendKey, Connection, FrontendEntry, FrontendKey, MaglevKey, MaglevPart, Settings,
    SourceRangeKey, Tuple,
};

use super::{Capacities, Entry, MapError, Maps, ServiceCounts};
use crate::{
    delta::Step,
    error::{self, KernelError},
    node_settings::NodeSettings,
    object::{MapSizes, Object, Tables},
    port_range::PortRange,
    snat_ports,
    sys::Table,
};

/// The service maps of a [`crate::Kernel`].
#[derive(Debug)]
pub struct KernelMaps {
    frontends: Table<FrontendKey, FrontendEntry>,
    backends: Table<BackendKey, Backend>,
    maglev: Table<MaglevKey, MaglevPart>,
    source_ranges: Table<SourceRangeKey, u32>,
    counters: Counters,
    settings: NodeSettings,
    connections: [Table<Tuple, Connection>; 2],
    sizes: MapSizes,
}

impl KernelMaps {
    pub(crate) fn new(tables: &Tables) -> io::Result<Self> {
        Ok(Self {
            frontends: tables.frontends.try_clone()?,
            backends: tables.backends.try_clone()?,
            maglev: tables.maglev.try_clone()?,
            source_ranges: tables.source_ranges.try_clone()?,
            counters: tables.counters.try_clone()?,
            settings: tables.settings.try_clone()?,
            connections: [tables.connections.try_clone()?, tables.openings.try_clone()?],
            sizes: tables.sizes,
        })
    }

    /// Maps of one's own, pinned and attached nowhere: for tests and measurements.
    pub fn private(sizes: MapSizes) -> Result<Self, KernelError> {
        let object = Object::open(sizes, None)?;
        let maps = Self::new(&object.tables);
        maps.map_err(|error| KernelError::system(error::Step::Load, error))
    }
}

impl Maps for KernelMaps {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        let backends = self.backends.each(|key, value| take(Entry::Backend(*key, *value)));
        backends.map_err(|error| self.failed("backends", error))?;
        let maglev = self.maglev.each(|key, part| take(Entry::Maglev(*key, *part)));
        maglev.map_err(|error| self.failed("maglev", error))?;
        let ranges = self.source_ranges.each(|key, _| take(Entry::SourceRange(*key)));
        ranges.map_err(|error| self.failed("source ranges", error))?;
        let settings = self.settings.read().map_err(|error| self.failed("settings", error))?;
        take(Entry::NodePorts(PortRange::new(settings.node_port_first, settings.node_port_last)));
        take(Entry::SourcePorts(PortRange::new(settings.snat_port_first, settings.snat_port_last)));
        let frontends = self.frontends.each(|key, entry| take(Entry::Frontend(*key, *entry)));
        frontends.map_err(|error| self.failed("frontends", error))
    }

    fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        let (map, result) = match step {
            Step::DeleteFrontends(keys) => ("frontends", self.frontends.delete(keys)),
            Step::PutBackends(entries) => ("backends", self.backends.put(entries)),
            Step::PutFrontends(entries) => ("frontends", self.frontends.put(entries)),
            Step::PutMaglev(parts) => ("maglev", self.maglev.put(parts)),
            Step::DeleteBackends(keys) => ("backends", self.backends.delete(keys)),
            Step::DeleteMaglev(keys) => ("maglev", self.maglev.delete(keys)),
            Step::PutSourceRanges(keys) => {
                let entries: Vec<_> = keys.iter().map(|key| (*key, key.version())).collect();
                ("source ranges", self.source_ranges.put(&entries))
            }
            Step::DeleteSourceRanges(keys) => ("source ranges", self.source_ranges.delete(keys)),
            Step::ClearCounters(ids) => ("counters", self.counters.clear(ids)),
            Step::NodePorts(range) => {
                let (node_port_first, node_port_last) = range.bounds();
                let with =
                    |found: &Settings| Settings { node_port_first, node_port_last, ..*found };
                ("settings", self.settings.change(with))
            }
            Step::SourcePorts(range) => {
                snat_ports::tell(&self.local_ports(), *range);
                let (snat_port_first, snat_port_last) = range.bounds();
                let with =
                    |found: &Settings| Settings { snat_port_first, snat_port_last, ..*found };
                ("settings", self.settings.change(with))
            }
        };
        result.map_err(|error| self.failed(map, error))
    }

    fn capacities(&self) -> Capacities {
        let entries = |entries| usize::try_from(entries).unwrap_or(usize::MAX);
        Capacities {
            frontends: entries(self.sizes.frontends),
            backends: entries(self.sizes.backends),
            maglev: entries(self.sizes.maglev),
            source_ranges: entries(self.sizes.source_ranges),
            counters: entries(self.sizes.counters),
        }
    }

    fn local_ports(&self) -> RangeInclusive<u16> {
        snat_ports::local()
    }

    /// Anywhere: connections may be older than these maps and name sets of those before.
    fn first_set_id(&self) -> u32 {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ());
        u32::try_from(random & 0x3fff_ffff).unwrap_or_default()
    }

    fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError> {
        self.counters.up_to(u32::MAX).map_err(|error| self.failed("counters", error))
    }

    fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError> {
        let mut ids = BTreeSet::new();
        for table in &self.connections {
            let read = table.each(|_, connection| {
                ids.insert(connection.counted_for());
            });
            read.map_err(|error| self.failed("connections", error))?;
        }
        Ok(ids)
    }
}

impl KernelMaps {
    /// Leaves new connections to whoever comes next: no frontends, and no Service ranges in which
    /// what is not allotted would be dropped. Connections the programs know go on.
    ///
    /// # Errors
    /// The maps cannot be written. Part of it may be done.
    pub fn step_aside(&mut self) -> Result<(), MapError> {
        // First: without frontends every ClusterIP is one that is not allotted.
        let written = self.settings.change(|found| Settings { service_cidr_count: 0, ..*found });
        written.map_err(|source| MapError::Other { map: "settings", source })?;
        let frontends = self.load()?.frontends.into_keys().collect();
        self.apply(&Step::DeleteFrontends(frontends))
    }

    /// E2BIG is the kernel's answer when a hash map has no room for a new key.
    fn failed(&self, map: &'static str, source: io::Error) -> MapError {
        let Capacities { frontends, backends, maglev, counters, source_ranges } = self.capacities();
        match source.raw_os_error() {
            Some(libc::E2BIG) => {
                let capacity = match map {
                    "frontends" => frontends,
                    "backends" => backends,
                    "maglev" => maglev,
                    _ => counters,
                };
                MapError::Full { map, capacity }
            }
            // The answer of prefix tries.
            Some(libc::ENOSPC) => MapError::Full { map, capacity: source_ranges },
            Some(libc::EPERM) => MapError::Permission,
            _ => MapError::Other { map, source },
        }
    }
}
