//! The maps, and how they are read and counted in.
//!
//! Capacities here are the smallest that load; the agent sets the real ones.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::{
        Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, SkStorage, lpm_trie,
    },
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_skb_load_bytes_relative,
    },
    macros::btf_map,
    programs::TcContext,
};
use bytemuck::{Pod, Zeroable};
use fairlead_ebpf::dialled::Tables;
use fairlead_ebpf::{
    abi::{
        Address, Affinity, AffinityKey, Backend, BackendKey, Connection, DatagramFlow, FragmentKey,
        FragmentPorts, FrontendEntry, FrontendKey, FrontendValue, MaglevKey, MaglevPart,
        NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS, PART_PLACES, PeerKey, Reason, RefusalKey,
        SETTINGS_INDEX, ServiceBytes, ServiceCounters, Settings, SocketPeer, SourceRangeKey, Tuple,
    },
    connection::TICK_SHIFT,
    select::Search,
};

// Names are those of `abi::name`: an attribute takes no constant.

use super::{
    frame::{Block, Frame},
    steps,
};

const ETHERNET_HEADER_LEN: u32 = 14;
/// Of an IP header: up to the end of IPv4's source.
const COMPARED: usize = 16;
/// `enum bpf_hdr_start_off`.
const BPF_HDR_START_NET: u32 = 1;

/// Memory follows use: a node with ten services does not pay for a hundred thousand.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// The agent reads it as memory.
const MAPPED: usize = BPF_F_MMAPABLE as usize;

/// Reads of one value before it is taken as it is.
const READS_MAX: u32 = 3;

type Table<K, V> = HashMap<K, V, 1, ON_DEMAND>;

#[btf_map(name = "frontends_v4")]
pub(crate) static FRONTENDS: Table<FrontendKey, FrontendEntry> = HashMap::new();

#[btf_map(name = "backends_v3")]
pub(crate) static BACKENDS: Table<BackendKey, Backend> = HashMap::new();

#[btf_map(name = "maglev_v3")]
static MAGLEV: Table<MaglevKey, MaglevPart> = HashMap::new();

#[btf_map(name = "node_addresses_v2")]
static NODE_ADDRESSES: Table<Address, u32> = HashMap::new();

#[btf_map(name = "settings_v4")]
static SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map(name = "service_counters_v5")]
static SERVICE_COUNTERS: Array<ServiceCounters, 1, MAPPED> = Array::new();

#[btf_map(name = "service_bytes_v1")]
static SERVICE_BYTES: Array<ServiceBytes, 1, MAPPED> = Array::new();

#[btf_map(name = "service_refusals_v1")]
static SERVICE_REFUSALS: PerCpuHashMap<RefusalKey, u64, 1, ON_DEMAND> = PerCpuHashMap::new();

#[btf_map(name = "drops_v3")]
static DROPS: PerCpuArray<u64, { Reason::ALL.len() }> = PerCpuArray::new();

#[btf_map(name = "peers_v1")]
pub(crate) static PEERS: SkStorage<SocketPeer> = SkStorage::new();

/// Nothing gives way: whoever is connected for long is not looked up, and would be the first to go. A socket
/// that closes takes its own away.
#[btf_map(name = "connected_peers_v1")]
pub(crate) static CONNECTED_PEERS: Table<PeerKey, SocketPeer> = HashMap::new();

#[btf_map(name = "datagram_peers_v1")]
pub(crate) static DATAGRAM_PEERS: LruHashMap<PeerKey, SocketPeer, 1> = LruHashMap::new();

#[btf_map(name = "datagram_flows_v1")]
pub(crate) static DATAGRAM_FLOWS: SkStorage<DatagramFlow> = SkStorage::new();

#[btf_map(name = "connections_v2")]
pub(crate) static CONNECTIONS: LruHashMap<Tuple, Connection, 1> = LruHashMap::new();

#[btf_map(name = "openings_v1")]
pub(crate) static OPENINGS: LruHashMap<Tuple, Connection, 1> = LruHashMap::new();

#[btf_map(name = "fragments_v2")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, 1> = LruHashMap::new();

#[btf_map(name = "affinities_v1")]
pub(crate) static AFFINITIES: LruHashMap<AffinityKey, Affinity, 1> = LruHashMap::new();

#[btf_map(name = "source_ranges_v4")]
static SOURCE_RANGES: LpmTrie<RangeData, u32, 1> = LpmTrie::new();

/// Frames under work: too large for the stack of programs that call each other. No program runs
/// while another does on the same CPU: both hooks run with soft interrupts off.
#[btf_map]
static SCRATCH: PerCpuArray<Frame, 1> = PerCpuArray::new();

/// A part of a packet, as bytes.
#[btf_map]
static BLOCK: PerCpuArray<Block, 1> = PerCpuArray::new();

/// The time in ticks.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT;
    u32::try_from(now & u64::from(u32::MAX)).unwrap_or_default()
}

/// This CPU's frame.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Frame> {
    let frame = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: this CPU's own, and nobody else's until the program ends.
    unsafe { frame.as_mut() }
}

/// This CPU's bytes, whatever they were before.
#[inline(always)]
pub(crate) fn block() -> Option<&'static mut Block> {
    let block = BLOCK.get_ptr_mut(0)?;
    // SAFETY: this CPU's own, and nobody else's until the program ends.
    unsafe { block.as_mut() }
}

/// What of a [`SourceRangeKey`] is matched.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RangeData {
    counter_id: u32,
    address: Address,
}

const _: () = assert!(size_of::<lpm_trie::Key<RangeData>>() == size_of::<SourceRangeKey>());

/// A copy of the value under `key`, of which it is certain that it belongs to `key`.
///
/// The kernel gives a removed element's memory to the next insert at once, whatever its key
/// (`bpf_mem_cache_free` in kernel/bpf/hashtab.c), so one look-up can see another key's value if
/// the agent writes in between. Two that agree cannot both have been so unlucky.
#[inline(always)]
pub(crate) fn read<K, V: Copy + PartialEq>(map: &Table<K, V>, key: &K) -> Option<V> {
    read_part(map, key, |value| value)
}

/// The same, of a part of the value.
#[inline(always)]
fn read_part<K, V, P: Copy + PartialEq>(
    map: &Table<K, V>,
    key: &K,
    part: impl Fn(&V) -> &P,
) -> Option<P> {
    // SAFETY: the reference ends with the copy, under the RCU lock every program runs in.
    let mut value = *part(unsafe { map.get(key) }?);
    for _ in 1..READS_MAX {
        // SAFETY: as above.
        let again = part(unsafe { map.get(key) }?);
        if *again == value {
            break;
        }
        value = *again;
    }
    Some(value)
}

#[inline(always)]
fn copy<K, V: Copy>(map: &Table<K, V>, key: &K) -> Option<V> {
    // SAFETY: the reference ends with the copy, under the RCU lock every program runs in.
    unsafe { map.get(key).copied() }
}

/// As [`read`], where another key's value would only make a worse choice.
#[inline(always)]
pub(crate) fn peek<K, V: Copy>(map: &Table<K, V>, key: &K) -> Option<V> {
    copy(map, key)
}

/// The slot of a backend among the first `count` of a set.
#[inline(always)]
pub(crate) fn find(set_id: u32, count: u16, wanted: &Backend) -> Option<u32> {
    let mut search = Search::new(set_id, count, wanted);
    steps::repeat(Search::STEPS, &mut search, search_step);
    search.slot()
}

extern "C" fn search_step(_: u64, search: &mut Search) -> i64 {
    let Some(key) = search.next() else { return steps::DONE };
    // A slot that is gone: the set is being replaced, and whoever looks in the new one finds it.
    let Some(found) = peek(&BACKENDS, &key) else { return steps::DONE };
    search.step(&key, &found);
    steps::GO_ON
}

/// The slot behind a place of a set's table. Another set's, by the rare chance of [`read`], would
/// only be another choice.
#[inline(always)]
pub(crate) fn slot_behind(set_id: u32, place: u32) -> Option<u32> {
    let key = MaglevKey { set_id, part: place / PART_PLACES };
    // SAFETY: the reference ends with the copy, under the RCU lock every program runs in.
    let part = unsafe { MAGLEV.get(key) }?;
    part.slots.get((place % PART_PLACES) as usize).map(|slot| (*slot).into())
}

/// The settings, or `None` before the agent wrote any.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(SETTINGS_INDEX)
}

/// Length of a packet's link-layer header. Where a device has none, packets may come with that of the packet they were wrapped
/// in all the same: IPsec leaves it in front of what it has unwrapped (XFRM, VTI; `skb_mac_header_rebuild`).
#[inline(always)]
pub(crate) fn link_len(ctx: &TcContext) -> u32 {
    // SAFETY: the context of a running program.
    let device = unsafe { (*ctx.skb.skb).ifindex };
    let is_bare = settings().is_some_and(|settings| settings.is_bare(device));
    if is_bare && !begins_with_ethernet(ctx) { 0 } else { ETHERNET_HEADER_LEN }
}

/// Whether the kernel has found the IP header where one of Ethernet ends.
#[inline(never)]
fn begins_with_ethernet(ctx: &TcContext) -> bool {
    let mut found = [0u8; COMPARED];
    let len = u32::try_from(COMPARED).unwrap_or_default();
    let (skb, to) = (ctx.skb.skb.cast(), found.as_mut_ptr().cast());
    // SAFETY: as many bytes as it is told.
    let read = unsafe { bpf_skb_load_bytes_relative(skb, 0, to, len, BPF_HDR_START_NET) };
    read == 0
        && ctx
            .load::<[u8; COMPARED]>(ETHERNET_HEADER_LEN as usize)
            .is_ok_and(|behind| behind == found)
}

/// Whether NodePorts answer on the address, loopback aside.
#[inline(always)]
pub(crate) fn has_node_ports(address: &Address) -> bool {
    copy(&NODE_ADDRESSES, address).is_some_and(|flags| flags & NODE_ADDRESS_PORTS != 0)
}

/// Whether the address is the node's own.
#[inline(always)]
pub(crate) fn is_own(address: &Address) -> bool {
    copy(&NODE_ADDRESSES, address).is_some_and(|flags| flags & NODE_ADDRESS_OWN != 0)
}

/// The maps, for [`fairlead_ebpf::dialled::find`]: with a frontend's first backends or without them, for which
/// the programs for packets have no room on their stack.
#[derive(Clone, Copy)]
pub(crate) struct InKernel<const FIRST: bool>;

/// For programs at sockets.
pub(crate) const AT_SOCKET: InKernel<true> = InKernel;
/// For programs at devices.
pub(crate) const AT_DEVICE: InKernel<false> = InKernel;

impl<const FIRST: bool> Tables for InKernel<FIRST> {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendEntry> {
        if FIRST {
            return read(&FRONTENDS, key);
        }
        read_part(&FRONTENDS, key, |entry| &entry.value).map(FrontendEntry::from)
    }

    #[inline(always)]
    fn other_ports(&self, key: &FrontendKey) -> Option<FrontendValue> {
        peek(&FRONTENDS, key).map(|entry| entry.value)
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        settings()
    }

    #[inline(always)]
    fn has_node_ports(&self, address: &Address) -> bool {
        has_node_ports(address)
    }

    #[inline(always)]
    fn is_own(&self, address: &Address) -> bool {
        copy(&NODE_ADDRESSES, address).is_some_and(|flags| flags & NODE_ADDRESS_OWN != 0)
    }
}

/// Whether the client is in one of the service's source ranges.
#[inline(always)]
pub(crate) fn is_in_source_ranges(counter_id: u32, client: &Address) -> bool {
    let data = RangeData { counter_id, address: *client };
    let version = SOURCE_RANGES.get(&lpm_trie::Key::new(SourceRangeKey::BITS, data));
    version.is_some_and(|version| SourceRangeKey::lets_in(*version, client))
}

/// Counts a connection or datagram that was given a backend.
#[inline(always)]
pub(crate) fn count_selected(counter_id: u32) {
    if let Some(counters) = counters(counter_id) {
        // SAFETY: a map value, valid under RCU; only the address of the field is taken.
        add_one(unsafe { &raw mut (*counters).selected });
    }
}

/// Counts a connection or datagram that a service refused. Not beside the counters above: few
/// services ever refuse anything, and of many reasons.
#[inline(never)]
pub(crate) fn count_refused(counter_id: u32, reason: Reason) {
    let key = RefusalKey { counter_id, reason: reason as u32 };
    if SERVICE_REFUSALS.get_ptr(key).is_none() {
        // Another CPU may be first, with what is 0 on this one, too.
        let _ = SERVICE_REFUSALS.insert(key, 0u64, BPF_NOEXIST.into());
    }
    match SERVICE_REFUSALS.get_ptr_mut(key) {
        Some(counter) => add_one(counter),
        None => count(Reason::NotCounted),
    }
}

/// This CPU's, at a place that is computed: nothing is looked up on the way, and one cache line is
/// touched. A per-CPU map would read a pointer to each first.
#[inline(always)]
fn counters(counter_id: u32) -> Option<*mut ServiceCounters> {
    // SAFETY: a helper without pointers.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let counters = settings()
        .and_then(|settings| ServiceCounters::place(counter_id, cpu, settings.counters_per_cpu))
        .and_then(|place| SERVICE_COUNTERS.get_ptr_mut(place));
    if counters.is_none() {
        count(Reason::NotCounted);
    }
    counters
}

/// Adds a packet of this length, where bytes are counted.
#[inline(always)]
pub(crate) fn add_packet(counter_id: u32, is_reply: bool, len: u32) {
    if let Some(bytes) = bytes(counter_id) {
        let field = if is_reply {
            // SAFETY: a map value, valid under RCU; only the address of the field is taken.
            unsafe { &raw mut (*bytes).packets_from }
        } else {
            // SAFETY: as above.
            unsafe { &raw mut (*bytes).packets_to }
        };
        add(field, len.into());
    }
}

/// Adds what a socket sent and received, where bytes are counted.
#[inline(always)]
pub(crate) fn add_socket(counter_id: u32, sent: u64, received: u64) {
    if let Some(bytes) = bytes(counter_id) {
        // SAFETY: a map value, valid under RCU; only the address of the field is taken.
        add(unsafe { &raw mut (*bytes).sockets_to }, sent);
        // SAFETY: as above.
        add(unsafe { &raw mut (*bytes).sockets_from }, received);
    }
}

/// This CPU's; none for packets and sockets that are no service's.
#[inline(always)]
fn bytes(counter_id: u32) -> Option<*mut ServiceBytes> {
    let per_cpu = settings()?.bytes_per_cpu;
    if counter_id == 0 || per_cpu == 0 {
        return None;
    }
    // SAFETY: a helper without pointers.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    SERVICE_BYTES.get_ptr_mut(ServiceCounters::place(counter_id, cpu, per_cpu)?)
}

/// Counts under a reason.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = DROPS.get_ptr_mut(reason as u32) {
        add_one(counter);
    }
}

#[inline(always)]
pub(crate) fn add_one(counter: *mut u64) {
    add(counter, 1);
}

/// Not atomic (the target has no compare-and-swap, so Rust has no `fetch_add` there): per CPU only
/// what interrupts or preempts a socket call between load and store can lose a count.
#[inline(always)]
fn add(counter: *mut u64, more: u64) {
    // SAFETY: a map value of this CPU: aligned to 8 and valid under RCU.
    let counter = unsafe { &mut *counter };
    *counter = counter.wrapping_add(more);
}
