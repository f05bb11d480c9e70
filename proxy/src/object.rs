//! The kernel programs as an object: loaded, with the maps they share.

use std::{
    cmp::Reverse,
    fs, io,
    num::NonZero,
    os::fd::{AsFd as _, OwnedFd},
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread::{self, available_parallelism},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapInfo, MapType, RingBuf},
    programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, SockOps},
};
use fairlead_ebpf::abi::{
    Address, Affinity, AffinityKey, Backend, BackendKey, Connection, FragmentKey, FragmentPorts,
    FrontendEntry, FrontendKey, MaglevKey, MaglevPart, PeerKey, RefusalKey, SETTINGS_INDEX,
    ServiceBytes, ServiceCounters, Settings, SocketPeer, SourceRangeKey, Tuple, name,
};

use crate::{
    error::{KernelError, Step},
    live::Live,
    maps::kernel::{Counters, counters_per_cpu},
    sys::{AttachType, PerCpuTable, Table},
};

/// Empty where the build had no compiler for it (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fairlead.o"));

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
    /// Backends that unconnected UDP sockets talk to; taken at once (about 120 bytes each), the
    /// least recently used gives way.
    pub datagram_peers: u32,
    /// Connections from outside: two entries each, four where the backend is on another node;
    /// taken at once (about 140 bytes each), the least recently used gives way.
    pub connections: u32,
    /// The same for connections that only begin, taken at once, too.
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
            datagram_peers: 65_536,
            connections: 131_072,
            openings: 65_536,
            fragments: 8192,
            affinities: 65_536,
            source_ranges: 65_536,
        }
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
}

impl Expected {
    fn new<K, V>(name: &'static str, kind: MapType) -> Self {
        let (key_len, value_len) = (size_of::<K>(), size_of::<V>());
        Self { name, kind, key_len, value_len, entries: None, is_remade: false }
    }

    fn sized(self, entries: u32) -> Self {
        Self { entries: Some(entries), ..self }
    }
}

/// The programs and where they attach, in that order: those that make an answer the service's come
/// before those that send a question to a backend. Otherwise the first answers would come from
/// strangers.
pub(crate) const SOCKET_PROGRAMS: [(&str, AttachType); 8] = [
    ("recvmsg4", AttachType::RecvMsg4),
    ("recvmsg6", AttachType::RecvMsg6),
    ("getpeername4", AttachType::GetPeerName4),
    ("getpeername6", AttachType::GetPeerName6),
    ("connect4", AttachType::Connect4),
    ("connect6", AttachType::Connect6),
    ("sendmsg4", AttachType::SendMsg4),
    ("sendmsg6", AttachType::SendMsg6),
];
/// Where bytes are counted, it comes after those.
pub(crate) const BYTES_PROGRAM: (&str, AttachType) = ("socket_bytes", AttachType::SockOps);
/// The programs for devices, and which devices each is for; in the same order.
pub(crate) const DEVICE_PROGRAMS: [(&str, AttachType, DeviceUse); 3] = [
    ("uplink_egress", AttachType::TcxEgress, DeviceUse::All),
    ("uplink_ingress", AttachType::TcxIngress, DeviceUse::Uplinks),
    ("pod_ingress", AttachType::TcxIngress, DeviceUse::Pods),
];

/// Whether a program, by the name of its link, makes answers the service's: such go last.
pub(crate) fn is_for_answers(link: &str) -> bool {
    ["recvmsg", "getpeername", "uplink_egress"].iter().any(|name| link.starts_with(name))
}

/// What a device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Packets from and to elsewhere.
    Uplink,
    /// Packets of one pod.
    Pod,
}

/// Which devices a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceUse {
    Uplinks,
    Pods,
    All,
}

impl DeviceUse {
    pub(crate) fn covers(self, role: Role) -> bool {
        match self {
            Self::Uplinks => role == Role::Uplink,
            Self::Pods => role == Role::Pod,
            Self::All => true,
        }
    }
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    pub(crate) attach_type: AttachType,
    pub(crate) fd: OwnedFd,
    pub(crate) verified_instructions: u32,
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
    pub(crate) settings: Table<u32, Settings>,
    pub(crate) source_ranges: Table<SourceRangeKey, u32>,
    pub(crate) datagram_peers: Table<PeerKey, SocketPeer>,
    pub(crate) connections: Table<Tuple, Connection>,
    pub(crate) openings: Table<Tuple, Connection>,
    /// As the kernel has them, which may be from an earlier start.
    pub(crate) sizes: MapSizes,
}

/// Programs and maps, nothing attached.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) socket_programs: Vec<Loaded>,
    pub(crate) device_programs: Vec<(Loaded, DeviceUse)>,
    pub(crate) tables: Tables,
    pub(crate) live: Live,
}

impl Object {
    /// Loads everything. Maps pinned in `pins` are used as they are, others pinned there; without
    /// `pins` all maps are private.
    pub(crate) fn load(sizes: MapSizes, pins: Option<&Path>) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let cpus = possible_cpus().map_err(|error| KernelError::system(Step::Load, error))?;
        let expected = expected(sizes, cpus);
        let mut loader = EbpfLoader::new();
        // It has read the kernel's types, tens of megabytes; programs without CO-RE need none.
        loader.btf(None);
        let mut paths = Vec::new();
        for map in &expected {
            if let Some(entries) = map.entries {
                loader.map_max_entries(map.name, entries);
            }
            if let Some(pins) = pins {
                let path = pins.join(map.name);
                check_pinned(map, &path)?;
                paths.push((map.name, path));
            }
        }
        for (name, path) in paths {
            loader.map_pin_path(name, path);
        }
        let mut ebpf = loader.load(OBJECT).map_err(KernelError::from_load)?;
        let bytes = (sizes.bytes > 0).then_some(BYTES_PROGRAM);
        let socket_programs = SOCKET_PROGRAMS.into_iter().chain(bytes);
        // The longest first.
        let of_devices = DEVICE_PROGRAMS.iter().rev().map(|(name, ..)| *name);
        let names = of_devices.chain(socket_programs.clone().map(|(name, _)| name));
        verify(&mut ebpf, &names.collect::<Vec<_>>())?;
        let socket_programs = socket_programs
            .map(|(name, attach_type)| loaded(&mut ebpf, name, attach_type))
            .collect::<Result<_, KernelError>>()?;
        let device_programs = DEVICE_PROGRAMS
            .iter()
            .map(|(name, attach_type, of)| Ok((loaded(&mut ebpf, name, *attach_type)?, *of)));
        let device_programs = device_programs.collect::<Result<_, KernelError>>()?;
        let (tables, live) = (Tables::take(&mut ebpf, cpus, sizes)?, take_live(&mut ebpf, cpus)?);
        Ok(Self { socket_programs, device_programs, tables, live })
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

fn expected(sizes: MapSizes, cpus: u32) -> [Expected; 16] {
    use MapType::{Array, Hash, LpmTrie, LruHash, PerCpuArray, PerCpuHash, SkStorage};
    let counters = counters_per_cpu::<ServiceCounters>(sizes.counters, cpus).saturating_mul(cpus);
    let bytes = bytes_per_cpu(sizes, cpus).saturating_mul(cpus).max(1);
    [
        Expected::new::<FrontendKey, FrontendEntry>(name::FRONTENDS, Hash).sized(sizes.frontends),
        Expected::new::<BackendKey, Backend>(name::BACKENDS, Hash).sized(sizes.backends),
        Expected::new::<MaglevKey, MaglevPart>(name::MAGLEV, Hash).sized(sizes.maglev),
        Expected::new::<u32, ServiceCounters>(name::COUNTERS, Array).sized(counters),
        Expected { is_remade: true, ..Expected::new::<u32, ServiceBytes>(name::BYTES, Array) }
            .sized(bytes),
        Expected::new::<RefusalKey, u64>(name::REFUSALS, PerCpuHash).sized(sizes.refusals),
        Expected::new::<Address, u32>(name::NODE_ADDRESSES, Hash).sized(sizes.node_addresses),
        Expected::new::<PeerKey, SocketPeer>(name::DATAGRAM_PEERS, LruHash)
            .sized(sizes.datagram_peers),
        Expected::new::<Tuple, Connection>(name::CONNECTIONS, LruHash).sized(sizes.connections),
        Expected::new::<Tuple, Connection>(name::OPENINGS, LruHash).sized(sizes.openings),
        Expected::new::<FragmentKey, FragmentPorts>(name::FRAGMENTS, LruHash)
            .sized(sizes.fragments),
        Expected::new::<AffinityKey, Affinity>(name::AFFINITIES, LruHash).sized(sizes.affinities),
        Expected::new::<SourceRangeKey, u32>(name::SOURCE_RANGES, LpmTrie)
            .sized(sizes.source_ranges),
        Expected::new::<u32, Settings>(name::SETTINGS, Array),
        Expected::new::<u32, u64>(name::DROPS, PerCpuArray),
        Expected::new::<u32, SocketPeer>(name::PEERS, SkStorage),
    ]
}

/// Whether a map of this name is one these programs use.
pub(crate) fn is_current(map: &str) -> bool {
    expected(MapSizes::default(), 1).iter().any(|expected| expected.name == map)
}

/// A pinned map of another shape under this version's name is not ours to use: programs would read
/// past its values. One of another size is: its content is worth more than the new size.
fn check_pinned(map: &Expected, path: &PathBuf) -> Result<(), KernelError> {
    if !fs::exists(path).map_err(|error| KernelError::pin(path, error))? {
        return Ok(());
    }
    let info =
        MapInfo::from_pin(path).map_err(|error| KernelError::pin(path, io::Error::other(error)))?;
    let is_same = info.map_type().is_ok_and(|kind| kind == map.kind)
        && usize::try_from(info.key_size()) == Ok(map.key_len)
        && usize::try_from(info.value_size()) == Ok(map.value_len);
    if !is_same {
        return Err(KernelError::Foreign { path: path.clone() });
    }
    if let Some(wanted) = map.entries.filter(|wanted| *wanted != info.max_entries()) {
        if map.is_remade {
            // Programs that still run keep the old one.
            return fs::remove_file(path).map_err(|error| KernelError::pin(path, error));
        }
        tracing::warn!(
            map = map.name,
            entries = info.max_entries(),
            wanted,
            "kept at the size it was made with; `fairlead cleanup` before a start changes it"
        );
    }
    Ok(())
}

/// Has the kernel check programs, as many at once as there are CPUs: that is most of a start. Its lock
/// is only for those without CAP_BPF (bpf_check).
fn verify(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), KernelError> {
    let programs = ebpf.programs_mut().filter_map(|(name, program)| {
        let place = names.iter().position(|wanted| *wanted == name)?;
        Some((place, *names.get(place)?, program))
    });
    let mut programs: Vec<_> = programs.collect();
    programs.sort_by_key(|(place, ..)| Reverse(*place));
    let programs = Mutex::new(programs);
    let next = || programs.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || -> Result<(), KernelError> {
        while let Some((_, name, program)) = next() {
            load_program(program).map_err(|error| KernelError::from_program(name, error))?;
        }
        Ok(())
    };
    let threads = available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .fold(own, Result::and)
    })
}

fn loaded(
    ebpf: &mut Ebpf,
    name: &'static str,
    attach_type: AttachType,
) -> Result<Loaded, KernelError> {
    let failed = |error: ProgramError| KernelError::from_program(name, error);
    let program = ebpf.program_mut(name).ok_or(KernelError::Incomplete { name })?;
    let verified = program.info().map_err(failed)?.verified_instruction_count();
    let fd = program.fd().map_err(failed)?.as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| KernelError::system(Step::Load, error))?;
    Ok(Loaded { name, attach_type, fd, verified_instructions: verified.unwrap_or_default() })
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(_) => <&mut CgroupSockAddr>::try_from(program)?.load(),
        Program::SockOps(_) => <&mut SockOps>::try_from(program)?.load(),
        _ => <&mut SchedClassifier>::try_from(program)?.load(),
    }
}

impl Tables {
    fn take(ebpf: &mut Ebpf, cpus: u32, wanted: MapSizes) -> Result<Self, KernelError> {
        let (frontends, frontends_max) = take(ebpf, name::FRONTENDS)?;
        let (backends, backends_max) = take(ebpf, name::BACKENDS)?;
        let (maglev, maglev_max) = take(ebpf, name::MAGLEV)?;
        let (counters, counters_max) = take(ebpf, name::COUNTERS)?;
        let (bytes, bytes_max) = take(ebpf, name::BYTES)?;
        let (refusals, refusals_max) = take(ebpf, name::REFUSALS)?;
        let (node_addresses, node_addresses_max) = take(ebpf, name::NODE_ADDRESSES)?;
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
            settings: Table::new(take(ebpf, name::SETTINGS)?.0),
            source_ranges: Table::new(source_ranges),
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
                datagram_peers: datagram_peers_max,
                connections: connections_max,
                openings: openings_max,
                fragments: fragments_max,
                affinities: affinities_max,
                source_ranges: source_ranges_max,
            },
        })
    }

    /// Writes the settings the programs read.
    pub(crate) fn set_settings(&self, settings: &Settings) -> io::Result<()> {
        self.settings.put_one(&SETTINGS_INDEX, settings)
    }

    /// The settings the programs read.
    pub(crate) fn settings(&self) -> io::Result<Option<Settings>> {
        self.settings.get(&SETTINGS_INDEX)
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

/// A map's file descriptor and the number of entries it takes.
fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<(OwnedFd, u32), KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Incomplete { name })?;
    let data: &MapData = match &map {
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
    fn programs_for_answers_are_attached_before_any_question_is_sent_to_a_backend() {
        let sockets = SOCKET_PROGRAMS.map(|(name, _)| name).to_vec();
        let devices = DEVICE_PROGRAMS.map(|(name, ..)| name).to_vec();
        for names in [sockets, devices] {
            assert!(names.is_sorted_by_key(|name| !is_for_answers(name)), "{names:?}");
        }
        assert!(is_for_answers("uplink_egress_7") && !is_for_answers("uplink_ingress_7"));
    }
}
