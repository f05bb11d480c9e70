//! The maps an agent left pinned, for whoever only wants to look.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::maps::MapData;
use fairlead_ebpf::abi::{
    Backend, BackendKey, CounterKey, FrontendKey, FrontendValue, MaglevKey, MaglevPart,
    ServiceCounters, Settings, SourceRangeKey, name,
};

use super::{Counters, KernelMaps};
use crate::{
    error::{KernelError, Step},
    object::MapSizes,
    sys::Table,
};

impl KernelMaps {
    /// The maps pinned below `bpffs`. Nothing is loaded, mounted or made.
    ///
    /// # Errors
    /// No agent has pinned maps there, they are of another version, or this process may not open them.
    pub fn open_pinned(bpffs: &Path) -> Result<Self, KernelError> {
        let maps = bpffs.join("fairlead/maps");
        if !fs::exists(&maps).map_err(|error| KernelError::pin(&maps, error))? {
            return Err(KernelError::NothingPinned { path: bpffs.into() });
        }
        let (frontends, frontends_max) =
            open::<FrontendKey, FrontendValue>(&maps.join(name::FRONTENDS))?;
        let (backends, backends_max) = open::<BackendKey, Backend>(&maps.join(name::BACKENDS))?;
        let (maglev, maglev_max) = open::<MaglevKey, MaglevPart>(&maps.join(name::MAGLEV))?;
        let (counters, counters_max) =
            open::<CounterKey, ServiceCounters>(&maps.join(name::COUNTERS))?;
        let (ranges, _) = open::<SourceRangeKey, u32>(&maps.join(name::SOURCE_RANGES))?;
        let (settings, _) = open::<u32, Settings>(&maps.join(name::SETTINGS))?;
        let cpus = aya::util::nr_cpus();
        let cpus = cpus.map_err(|(_, error)| KernelError::system(Step::ReadCounters, error))?;
        Ok(Self {
            frontends: Table::new(frontends),
            backends: Table::new(backends),
            maglev: Table::new(maglev),
            source_ranges: Table::new(ranges),
            counters: Counters::new(Table::new(counters), cpus),
            settings: Table::new(settings),
            sizes: MapSizes {
                frontends: frontends_max,
                backends: backends_max,
                maglev: maglev_max,
                counters: counters_max,
                ..MapSizes::default()
            },
        })
    }
}

/// A map of another shape is not read: its entries would be taken for something they are not.
pub(crate) fn open<K, V>(path: &Path) -> Result<(OwnedFd, u32), KernelError> {
    let failed = |error| KernelError::pin(path, io::Error::other(error));
    let data = MapData::from_pin(path).map_err(failed)?;
    let info = data.info().map_err(failed)?;
    let lens = (usize::try_from(info.key_size()), usize::try_from(info.value_size()));
    if lens != (Ok(size_of::<K>()), Ok(size_of::<V>())) {
        return Err(KernelError::Foreign { path: path.into() });
    }
    let fd = data.fd().as_fd().try_clone_to_owned();
    Ok((fd.map_err(|error| KernelError::pin(path, error))?, info.max_entries()))
}
