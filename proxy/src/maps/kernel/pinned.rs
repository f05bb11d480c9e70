//! The maps an agent left pinned, for whoever only wants to look.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::maps::MapData;
use fairlead_ebpf::abi::{
    Backend, BackendKey, Connection, FrontendEntry, FrontendKey, MaglevKey, MaglevPart, RefusalKey,
    ServiceBytes, ServiceCounters, Settings, SourceRangeKey, Tuple, name,
};

use super::{Counters, KernelMaps};
use crate::{
    error::{KernelError, Step},
    node_settings::NodeSettings,
    object::{MapSizes, possible_cpus},
    sys::{PerCpuTable, Table},
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
            open::<FrontendKey, FrontendEntry>(&maps.join(name::FRONTENDS))?;
        let (backends, backends_max) = open::<BackendKey, Backend>(&maps.join(name::BACKENDS))?;
        let (maglev, maglev_max) = open::<MaglevKey, MaglevPart>(&maps.join(name::MAGLEV))?;
        let (counters, counters_max) = open::<u32, ServiceCounters>(&maps.join(name::COUNTERS))?;
        let (bytes, bytes_max) = open::<u32, ServiceBytes>(&maps.join(name::BYTES))?;
        let (refusals, _) = open::<RefusalKey, u64>(&maps.join(name::REFUSALS))?;
        let (ranges, _) = open::<SourceRangeKey, u32>(&maps.join(name::SOURCE_RANGES))?;
        let (settings, _) = open::<u32, Settings>(&maps.join(name::SETTINGS))?;
        let (settled, _) = open::<Tuple, Connection>(&maps.join(name::CONNECTIONS))?;
        let (openings, _) = open::<Tuple, Connection>(&maps.join(name::OPENINGS))?;
        let cpus =
            possible_cpus().map_err(|error| KernelError::system(Step::ReadCounters, error))?;
        let refusals = PerCpuTable::new(refusals, cpus as usize);
        let bytes = (Table::new(bytes), bytes_max);
        let counters = Counters::new((Table::new(counters), counters_max), bytes, refusals, cpus);
        let counted = counters.per_cpu();
        Ok(Self {
            frontends: Table::new(frontends),
            backends: Table::new(backends),
            maglev: Table::new(maglev),
            source_ranges: Table::new(ranges),
            counters,
            settings: NodeSettings::new(Table::new(settings)),
            connections: [Table::new(settled), Table::new(openings)],
            sizes: MapSizes {
                frontends: frontends_max,
                backends: backends_max,
                maglev: maglev_max,
                counters: counted,
                ..MapSizes::default()
            },
        })
    }
}

/// A map of another shape is not read: its entries would be taken for something they are not.
pub(crate) fn open<K, V>(path: &Path) -> Result<(OwnedFd, u32), KernelError> {
    let failed = |error| KernelError::pin(path, io::Error::other(error));
    if let Some(error) = other_version(path) {
        return Err(error);
    }
    let data = MapData::from_pin(path).map_err(failed)?;
    let info = data.info().map_err(failed)?;
    let lens = (usize::try_from(info.key_size()), usize::try_from(info.value_size()));
    if lens != (Ok(size_of::<K>()), Ok(size_of::<V>())) {
        return Err(KernelError::Foreign { path: path.into() });
    }
    let fd = data.fd().as_fd().try_clone_to_owned();
    Ok((fd.map_err(|error| KernelError::pin(path, error))?, info.max_entries()))
}

/// What there is in place of a map that is not there, where an agent has pinned others.
fn other_version(path: &Path) -> Option<KernelError> {
    let (directory, wanted) = (path.parent()?, path.file_name()?.to_str()?);
    let pinned = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.file_name());
    let pinned: Vec<String> = pinned.filter_map(|name| name.into_string().ok()).collect();
    if pinned.is_empty() || pinned.iter().any(|name| name == wanted) {
        return None;
    }
    let found = pinned.into_iter().find(|name| stem(name).is_some_and(|s| Some(s) == stem(wanted)));
    Some(KernelError::OtherVersion { path: path.into(), found })
}

/// `frontends` of `frontends_v4`.
fn stem(name: &str) -> Option<&str> {
    let (stem, version) = name.rsplit_once("_v")?;
    version.parse::<u32>().is_ok().then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_another_version_are_named_and_who_can_read_them() {
        for (pinned, expected) in [
            (&["backends_v3", "frontends_v3"][..], "frontends_v4 is not there, but frontends_v3: "),
            (&["backends_v3"], "frontends_v4 is not there: "),
            (&["frontends_extra_v1"], "frontends_v4 is not there: "),
            (&[], "frontends_v4: "),
        ] {
            let bpffs = tempfile::tempdir().unwrap();
            let maps = bpffs.path().join("fairlead/maps");
            fs::create_dir_all(&maps).unwrap();
            pinned.iter().for_each(|name| fs::write(maps.join(name), "").unwrap());
            let error = KernelMaps::open_pinned(bpffs.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(error.contains("kubectl exec POD"), !pinned.is_empty(), "{error}");
        }
    }
}
