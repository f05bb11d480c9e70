//! The kernel programs as an object, with the maps they share. Maps are there at once, for whoever fills them; the kernel's
//! check of the programs is most of a start, and may go on meanwhile.

mod programs;

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapInfo, MapType, RingBuf},
};
use fairlead_ebpf::abi::{
    Address, Affinity, AffinityKey, Backend, BackendKey, Connection, DatagramFlow, FragmentKey,
    FragmentPorts, FrontendEntry, FrontendKey, MaglevKey, MaglevPart, PeerKey, RefusalKey,
    ServiceBytes, ServiceCounters, Settings, SocketPeer, SourceRangeKey, Tuple, name,
};

use crate::{
    error::{KernelError, Step},
    live::Live,
    maps::kernel::{Counters, counters_per_cpu},
    node_settings::NodeSettings,
    sys::{PerCpuTable, Table},
};

pub use self::programs::Role;
pub(crate) use self::programs::{
    DEVICE_PROGRAMS, DeviceUse, Loaded, Programs, SOCKET_PROGRAMS, is_for_answers,
};

/// Empty where the build had no compiler for it (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fairlead.o"));

/// Of the memory, for open connections.
const CONNECTIONS_SHARE: u64 = 400;
/// Of an entry, in the kernel.
const CONNECTION_BYTES: u64 = 140;
/// 1,048,576 entries, 144 MiB: all of it is taken at once, and counts towards what a container may have.
const CONNECTIONS_LOG2_MAX: u32 = 20;

/// How many entries the kernel maps take. Memory follows use, except where noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Addresses with port and protocol: about two for each port of a Service.
    pub frontends: u32,
    /// Slots of all backend sets; while sets change, old and new count.
    pub backends: u32,
    /// Parts of Maglev tables, of 64 places each; while sets change, old and new count.
    pub maglev: u32,
    /// Services that are counted: 8 bytes for each and each CPU the machine may ever have, taken at
    /// once. Fewer where that were more than 32 MiB, but not fewer than 16,384.
    pub counters: u32,
    /// Services whose bytes are counted, 0: of none; as `counters`, with 32 bytes instead of 8.
    pub bytes: u32,
    /// Reasons for which Services refused anything, of all Services.
    pub refusals: u32,
    /// Addresses of the node itself.
    pub node_addresses: u32,
    /// UDP sockets that are connected to Services at once; those beyond do not end with their endpoint.
    pub connected_peers: u32,
    /// Backends that unconnected UDP sockets talk to; taken at once (about 120 bytes each), the
    /// least recently used gives way.
    pub datagram_peers: u32,
    /// Connections from outside: two entries each, four where the backend is on another node;
    /// taken at once (about 140 bytes each), the least recently used gives way. 0: by the machine's
    /// memory, or as an earlier start has them, openings included.
    pub connections: u32,
    /// The same for connections that only begin or have ended, taken at once, too.
    pub openings: u32,
    /// Packets that arrive in fragments, at once (about 100 bytes each, taken at once).
    pub fragments: u32,
    /// Clients of Services with session affinity; taken at once (about 100 bytes each), the least
    /// recently used gives way.
    pub affinities: u32,
    /// Ranges of `loadBalancerSourceRanges`, of all Services.
    pub source_ranges: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            frontends: 262_144,
            backends: 1_048_576,
            maglev: 65_536,
            counters: 131_072,
            bytes: 0,
            refusals: 16_384,
            node_addresses: 4096,
            connected_peers: 65_536,
            datagram_peers: 65_536,
            connections: 131_072,
            openings: 65_536,
            fragments: 8192,
            affinities: 65_536,
            source_ranges: 65_536,
        }
    }
}

impl MapSizes {
    /// Entries of connections for this machine.
    fn connections_here() -> u32 {
        let system = rustix::system::sysinfo();
        Self::connections_in(system.totalram.saturating_mul(system.mem_unit.into()))
    }

    /// Entries of connections for a machine with so many bytes of memory, of which they take no more than a 400th;
    /// but as many as kube-proxy's least conntrack table has connections, at any rate. A power of two: memory that changes a
    /// little gives the same.
    fn connections_in(memory: u64) -> u32 {
        let entries = (memory / CONNECTIONS_SHARE / CONNECTION_BYTES).max(1);
        let entries = 1 << entries.ilog2().min(CONNECTIONS_LOG2_MAX);
        Self::default().connections.max(entries)
    }
}

/// One map as this version of the programs wants it.
struct Expected {
    name: &'static str,
    kind: MapType,
    key_len: usize,
    value_len: usize,
    /// `None`: its size is no setting.
    entries: Option<u32>,
    /// Its size is worth more than its content.
    is_remade: bool,
    /// Nobody asked for a size: whatever an earlier start made of it is as good.
    is_of_any_size: bool,
}

impl Expected {
    fn new<K, V>(name: &'static str, kind: MapType) -> Self {
        let (key_len, value_len) = (size_of::<K>(), size_of::<V>());
        let (is_remade, is_of_any_size) = (false, false);
        Self { name, kind, key_len, value_len, entries: None, is_remade, is_of_any_size }
    }

    fn sized(self, entries: u32) -> Self {
        Self { entries: Some(entries), ..self }
    }
}

/// The maps the agent works with.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) frontends: Table<FrontendKey, FrontendEntry>,
    pub(crate) backends: Table<BackendKey, Backend>,
    pub(crate) maglev: Table<MaglevKey, MaglevPart>,
    pub(crate) counters: Counters,
    pub(crate) drops: PerCpuTable<u32, u64>,
    pub(crate) node_addresses: Table<Address, u32>,
    pub(crate) settings: NodeSettings,
    pub(crate) source_ranges: Table<SourceRangeKey, u32>,
    pub(crate) connected_peers: Table<PeerKey, SocketPeer>,
    pub(crate) datagram_peers: Table<PeerKey, SocketPeer>,
    pub(crate) connections: Table<Tuple, Connection>,
    pub(crate) openings: Table<Tuple, Connection>,
    /// As the kernel has them, which may be from an earlier start.
    pub(crate) sizes: MapSizes,
}

/// Maps, and programs once the kernel has checked them; nothing attached.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) tables: Tables,
    pub(crate) live: Live,
    /// Pins that were not there before.
    made: Vec<PathBuf>,
    programs: OnceLock<Programs>,
    /// What the programs are made of, and whether bytes are counted; none once they are there.
    unverified: Mutex<Option<(Ebpf, bool)>>,
}

impl Object {
    /// Makes the maps. Those pinned in `pins` are used as they are, others pinned there; without
    /// `pins` all maps are private. After an error there are no more pins than before.
    pub(crate) fn open(sizes: MapSizes, pins: Option<&Path>) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let cpus = possible_cpus().map_err(|error| KernelError::system(Step::Load, error))?;
        let expected = expected(sizes, cpus);
        let mut loader = EbpfLoader::new();
        // It has read the kernel's types, tens of megabytes; programs without CO-RE need none.
        loader.btf(None);
        let (mut paths, mut made) = (Vec::new(), Vec::new());
        for map in &expected {
            if let Some(entries) = map.entries {
                loader.map_max_entries(map.name, entries);
            }
            if let Some(pins) = pins {
                let path = pins.join(map.name);
                if !is_usable(map, &path)? {
                    made.push(path.clone());
                }
                paths.push((map.name, path));
            }
        }
        for (name, path) in paths {
            loader.map_pin_path(name, path);
        }
        let mut load = || {
            let mut ebpf = loader.load(OBJECT).map_err(KernelError::from_load)?;
            Ok((Tables::of(&ebpf, cpus, sizes)?, take_live(&mut ebpf, cpus)?, ebpf))
        };
        let (tables, live, ebpf) = load().inspect_err(|_| unpin(&made))?;
        let unverified = Mutex::new(Some((ebpf, sizes.bytes > 0)));
        Ok(Self { tables, live, made, programs: OnceLock::new(), unverified })
    }

    /// Takes the names of those maps away that had none before.
    pub(crate) fn unpin_made(&self) {
        unpin(&self.made);
    }

    /// Whether there was no map of this name before; never without pins.
    pub(crate) fn has_made(&self, map: &str) -> bool {
        self.made.iter().any(|path| path.file_name().is_some_and(|name| name == map))
    }

    /// The programs, which the first call has the kernel check; another at the same time waits for it.
    pub(crate) fn programs(&self) -> Result<&Programs, KernelError> {
        let mut unverified = self.unverified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((ebpf, counts_bytes)) = &mut *unverified {
            let programs = Programs::verify(ebpf, *counts_bytes)?;
            let _ = self.programs.set(programs);
            *unverified = None;
        }
        self.programs.get().ok_or(KernelError::Incomplete { name: "programs" })
    }
}

/// Services of which each CPU has bytes; 0: bytes are not counted.
fn bytes_per_cpu(sizes: MapSizes, cpus: u32) -> u32 {
    if sizes.bytes == 0 { 0 } else { counters_per_cpu::<ServiceBytes>(sizes.bytes, cpus) }
}

/// The number of possible CPUs, which stays as it is until the machine starts again.
pub(crate) fn possible_cpus() -> io::Result<u32> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    u32::try_from(cpus).map_err(io::Error::other)
}

fn expected(sizes: MapSizes, cpus: u32) -> [Expected; 18] {
    use MapType::{Array, Hash, LpmTrie, LruHash, PerCpuArray, PerCpuHash, SkStorage};
    let counters = counters_per_cpu::<ServiceCounters>(sizes.counters, cpus).saturating_mul(cpus);
    let bytes = bytes_per_cpu(sizes, cpus).saturating_mul(cpus).max(1);
    let is_of_any_size = sizes.connections == 0;
    let (connections, openings) = if is_of_any_size {
        let connections = MapSizes::connections_here();
        (connections, connections.div_ceil(2))
    } else {
        (sizes.connections, sizes.openings)
    };
    [
        Expected::new::<FrontendKey, FrontendEntry>(name::FRONTENDS, Hash).sized(sizes.frontends),
        Expected::new::<BackendKey, Backend>(name::BACKENDS, Hash).sized(sizes.backends),
        Expected::new::<MaglevKey, MaglevPart>(name::MAGLEV, Hash).sized(sizes.maglev),
        Expected::new::<u32, ServiceCounters>(name::COUNTERS, Array).sized(counters),
        Expected { is_remade: true, ..Expected::new::<u32, ServiceBytes>(name::BYTES, Array) }
            .sized(bytes),
        Expected::new::<RefusalKey, u64>(name::REFUSALS, PerCpuHash).sized(sizes.refusals),
        Expected::new::<Address, u32>(name::NODE_ADDRESSES, Hash).sized(sizes.node_addresses),
        Expected::new::<PeerKey, SocketPeer>(name::CONNECTED_PEERS, Hash)
            .sized(sizes.connected_peers),
        Expected::new::<PeerKey, SocketPeer>(name::DATAGRAM_PEERS, LruHash)
            .sized(sizes.datagram_peers),
        Expected {
            is_of_any_size,
            ..Expected::new::<Tuple, Connection>(name::CONNECTIONS, LruHash)
        }
        .sized(connections),
        Expected { is_of_any_size, ..Expected::new::<Tuple, Connection>(name::OPENINGS, LruHash) }
            .sized(openings),
        Expected::new::<FragmentKey, FragmentPorts>(name::FRAGMENTS, LruHash)
            .sized(sizes.fragments),
        Expected::new::<AffinityKey, Affinity>(name::AFFINITIES, LruHash).sized(sizes.affinities),
        Expected::new::<SourceRangeKey, u32>(name::SOURCE_RANGES, LpmTrie)
            .sized(sizes.source_ranges),
        Expected::new::<u32, Settings>(name::SETTINGS, Array),
        Expected::new::<u32, u64>(name::DROPS, PerCpuArray),
        Expected::new::<u32, SocketPeer>(name::PEERS, SkStorage),
        Expected::new::<u32, DatagramFlow>(name::DATAGRAM_FLOWS, SkStorage),
    ]
}

/// Whether a map of this name is one these programs use.
pub(crate) fn is_current(map: &str) -> bool {
    expected(MapSizes::default(), 1).iter().any(|expected| expected.name == map)
}

/// A map without a name is gone with the last who has it open.
fn unpin(made: &[PathBuf]) {
    for path in made {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "a map of the failed start stays");
            }
            _ => {}
        }
    }
}

/// Whether there is a map under this name. A pinned map of another shape under this version's name is not ours to use: programs
/// would read past its values. One of another size is: its content is worth more than the new size.
fn is_usable(map: &Expected, path: &PathBuf) -> Result<bool, KernelError> {
    if !fs::exists(path).map_err(|error| KernelError::pin(path, error))? {
        return Ok(false);
    }
    let info =
        MapInfo::from_pin(path).map_err(|error| KernelError::pin(path, io::Error::other(error)))?;
    let is_same = info.map_type().is_ok_and(|kind| kind == map.kind)
        && usize::try_from(info.key_size()) == Ok(map.key_len)
        && usize::try_from(info.value_size()) == Ok(map.value_len);
    if !is_same {
        return Err(KernelError::Foreign { path: path.clone() });
    }
    let other = |wanted: &u32| *wanted != info.max_entries() && !map.is_of_any_size;
    if let Some(wanted) = map.entries.filter(other) {
        if map.is_remade {
            // Programs that still run keep the old one.
            fs::remove_file(path).map_err(|error| KernelError::pin(path, error))?;
            return Ok(false);
        }
        tracing::warn!(
            map = map.name,
            entries = info.max_entries(),
            wanted,
            "kept at the size it was made with; `fairlead cleanup` before a start changes it"
        );
    }
    Ok(true)
}

impl Tables {
    fn of(ebpf: &Ebpf, cpus: u32, wanted: MapSizes) -> Result<Self, KernelError> {
        let (frontends, frontends_max) = take(ebpf, name::FRONTENDS)?;
        let (backends, backends_max) = take(ebpf, name::BACKENDS)?;
        let (maglev, maglev_max) = take(ebpf, name::MAGLEV)?;
        let (counters, counters_max) = take(ebpf, name::COUNTERS)?;
        let (bytes, bytes_max) = take(ebpf, name::BYTES)?;
        let (refusals, refusals_max) = take(ebpf, name::REFUSALS)?;
        let (node_addresses, node_addresses_max) = take(ebpf, name::NODE_ADDRESSES)?;
        let (connected_peers, connected_peers_max) = take(ebpf, name::CONNECTED_PEERS)?;
        let (datagram_peers, datagram_peers_max) = take(ebpf, name::DATAGRAM_PEERS)?;
        let (connections, connections_max) = take(ebpf, name::CONNECTIONS)?;
        let (openings, openings_max) = take(ebpf, name::OPENINGS)?;
        let (_, fragments_max) = take(ebpf, name::FRAGMENTS)?;
        let (_, affinities_max) = take(ebpf, name::AFFINITIES)?;
        let (source_ranges, source_ranges_max) = take(ebpf, name::SOURCE_RANGES)?;
        let refusals = PerCpuTable::new(refusals, cpus as usize);
        let bytes = (Table::new(bytes), bytes_max);
        let counters = Counters::new((Table::new(counters), counters_max), bytes, refusals, cpus);
        let counted = counters.per_cpu();
        Ok(Self {
            frontends: Table::new(frontends),
            backends: Table::new(backends),
            maglev: Table::new(maglev),
            counters,
            drops: PerCpuTable::new(take(ebpf, name::DROPS)?.0, cpus as usize),
            node_addresses: Table::new(node_addresses),
            settings: NodeSettings::new(Table::new(take(ebpf, name::SETTINGS)?.0)),
            source_ranges: Table::new(source_ranges),
            connected_peers: Table::new(connected_peers),
            datagram_peers: Table::new(datagram_peers),
            connections: Table::new(connections),
            openings: Table::new(openings),
            sizes: MapSizes {
                frontends: frontends_max,
                backends: backends_max,
                maglev: maglev_max,
                counters: counted,
                bytes: bytes_per_cpu(wanted, cpus),
                refusals: refusals_max,
                node_addresses: node_addresses_max,
                connected_peers: connected_peers_max,
                datagram_peers: datagram_peers_max,
                connections: connections_max,
                openings: openings_max,
                fragments: fragments_max,
                affinities: affinities_max,
                source_ranges: source_ranges_max,
            },
        })
    }
}

/// What is this load's own.
fn take_live(ebpf: &mut Ebpf, cpus: u32) -> Result<Live, KernelError> {
    let failed = |error| KernelError::system(Step::Load, error);
    let (word, lost) = (take(ebpf, name::LIVE)?.0, take(ebpf, name::EVENTS_LOST)?.0);
    let ring = ebpf.take_map(name::EVENTS).ok_or(KernelError::Incomplete { name: name::EVENTS })?;
    let ring = RingBuf::try_from(ring).map_err(|error| failed(io::Error::other(error)))?;
    Ok(Live::new(Table::new(word), PerCpuTable::new(lost, cpus as usize), ring))
}

/// A map's file descriptor, of one's own, and the number of entries it takes.
fn take(ebpf: &Ebpf, name: &'static str) -> Result<(OwnedFd, u32), KernelError> {
    let data: &MapData = match ebpf.map(name).ok_or(KernelError::Incomplete { name })? {
        Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::Array(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data) => data,
        _ => return Err(KernelError::Incomplete { name }),
    };
    let failed = |error| KernelError::system(Step::Load, error);
    let entries = data.info().map_err(|error| failed(io::Error::other(error)))?.max_entries();
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(failed)?;
    Ok((fd, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_machine_has_room_for_more_connections() {
        for (gib, entries) in [
            (0, 131_072),
            (1, 131_072),
            (8, 131_072),
            (24, 262_144),
            (64, 1_048_576),
            (4096, 1_048_576),
        ] {
            assert_eq!(MapSizes::connections_in(gib << 30), entries, "{gib} GiB");
        }
        let rather_less = (24 << 30) - (500 << 20);
        assert_eq!(MapSizes::connections_in(rather_less), 262_144);
    }
}
