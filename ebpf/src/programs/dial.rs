//! connect: what is dialled becomes a backend, before a packet exists; and the choice of one, whoever dials.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use bytemuck::Zeroable as _;
use fairlead_ebpf::{
    abi::{
        Address, Backend, BackendKey, EVENT_DROPPED, EVENT_REJECTED, FRONTEND_SOURCE_RANGES,
        FrontendEntry, FrontendKey, FrontendValue, Reason, SETTINGS_NODE_SOCKETS, SocketPeer,
        TableSize, UDP,
    },
    dialled::{self, Tables},
    select::{self, Lead, Origin},
};

use super::{
    affinity, connected,
    live::{self, Account},
    maps,
    sockaddr::{ALLOW, Call, Family},
};

/// Readings of a frontend whose set is replaced meanwhile, before giving up.
const TRIES: u32 = 3;

/// The backend given to one connection or datagram.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) set_id: u32,
    pub(crate) backend: Backend,
}

/// The backend given to a call.
#[derive(Clone, Copy)]
pub(crate) struct Given {
    pub(crate) backend: Backend,
    /// It was given before.
    pub(crate) is_kept: bool,
}

/// What a socket remembers of what it has dialled.
pub(crate) trait Memory {
    /// The backend it was given, if that still serves the frontend.
    fn kept(&self, key: &FrontendKey, frontend: &FrontendValue) -> Option<Backend>;
}

/// Nothing is remembered.
impl Memory for () {
    #[inline(always)]
    fn kept(&self, _: &FrontendKey, _: &FrontendValue) -> Option<Backend> {
        None
    }
}

/// Who dials.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) origin: Origin,
    /// What affinity knows it by.
    pub(crate) identity: &'a Address,
    /// Decides between backends where nothing else does.
    pub(crate) random: u32,
    /// Its port and protocol. A socket has no port yet.
    pub(crate) flow: Option<([u8; 2], u8)>,
}

/// Why a connection is given no backend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The client is told.
    Reject,
    /// The client is not answered.
    Drop,
}

/// What a dialled address is to the services.
pub(crate) enum Found {
    /// A frontend, under this key.
    Frontend(FrontendKey, FrontendEntry),
    /// A service address that leads nowhere.
    Dead(Refusal),
    /// None of theirs.
    Nothing,
}

/// connect: TCP, and UDP sockets that talk to one peer.
#[inline(always)]
pub(crate) fn connect<F: Family>(call: &Call<F>) -> i32 {
    let dialled = call.dialled();
    let mut account = Account::NONE;
    let (given, verdict) = dial(call, &dialled, random(), &(), &mut account);
    let Some(Given { backend, .. }) = given else {
        if dialled.protocol == UDP {
            connected::forget(call);
        }
        call.clear_peer();
        live::call(call, &dialled, &Backend::zeroed(), &account);
        return verdict;
    };
    live::call(call, &dialled, &backend, &account);
    let peer = peer(&dialled, &backend);
    let is_datagram = dialled.protocol == UDP;
    if is_datagram {
        connected::forget_other(call, &peer);
    }
    // By what it remembers, and by nothing else, a socket that is closed has its note taken away.
    if call.set_peer(peer) && is_datagram {
        connected::note(call, &peer);
    }
    call.set(&backend.address, backend.port);
    ALLOW
}

/// The backend for a call; without one, what becomes of it.
#[inline(always)]
pub(crate) fn dial<F: Family>(
    call: &Call<F>,
    dialled: &FrontendKey,
    random: u32,
    memory: &impl Memory,
    account: &mut Account,
) -> (Option<Given>, i32) {
    if is_left_to_packets(call) {
        return (None, ALLOW);
    }
    let tables = &maps::AT_SOCKET;
    let (key, frontend) = match find(tables, dialled, || is_own_namespace(call), account) {
        Found::Frontend(key, frontend) => (key, frontend),
        // A service that is gone: packets to its address are dropped, but here somebody waits.
        Found::Dead(_) => {
            account.reject();
            return (None, call.refuse());
        }
        Found::Nothing => return (None, ALLOW),
    };
    if frontend.flags & FRONTEND_SOURCE_RANGES != 0 {
        // A pod's address shows in its packets only: they are looked at where they leave it.
        if !is_own_namespace(call) {
            return (None, ALLOW);
        }
        if !is_node_admitted(&key, &frontend) {
            refuse(account, EVENT_DROPPED, Reason::SourceDenied);
            return (None, call.unreachable());
        }
    }
    if let Some(backend) = memory.kept(&key, &frontend) {
        maps::count_selected(frontend.counter_id);
        account.serve();
        return (Some(Given { backend, is_kept: true }), ALLOW);
    }
    let mut identity = Address::zeroed();
    if frontend.affinity_seconds > 0 {
        // The socket has no address yet; all of one pod share the cookie of its namespace.
        identity = bytemuck::cast([call.netns_cookie(), 0]);
    }
    let client = Client { origin: Origin::Inside, identity: &identity, random, flow: None };
    match choose(tables, (&key, frontend), &client, account) {
        Ok(Choice { backend, .. }) => (Some(Given { backend, is_kept: false }), ALLOW),
        Err(Refusal::Reject) => (None, call.refuse()),
        Err(Refusal::Drop) => (None, call.unreachable()),
    }
}

/// What is dialled, counted where nobody serves it. `is_own_namespace` decides whether loopback
/// addresses mean the node.
#[inline(always)]
pub(crate) fn find(
    tables: &impl Tables,
    dialled: &FrontendKey,
    is_own_namespace: impl FnOnce() -> bool,
    account: &mut Account,
) -> Found {
    match dialled::find(tables, dialled, is_own_namespace) {
        dialled::Found::Frontend(key, frontend) => {
            account.concern(&frontend);
            Found::Frontend(key, frontend)
        }
        dialled::Found::UnusedPort(frontend) => {
            account.concern(&frontend);
            refuse(account, EVENT_REJECTED, Reason::UnusedPort);
            Found::Dead(Refusal::Reject)
        }
        dialled::Found::Unallocated => {
            refuse(account, EVENT_DROPPED, Reason::UnallocatedAddress);
            Found::Dead(Refusal::Drop)
        }
        dialled::Found::Nothing => Found::Nothing,
    }
}

/// Chooses, and counts what became of it.
#[inline(always)]
pub(crate) fn choose(
    tables: &impl Tables,
    (key, mut frontend): (&FrontendKey, FrontendEntry),
    client: &Client<'_>,
    account: &mut Account,
) -> Result<Choice, Refusal> {
    let choice = chosen(tables, (key, &mut frontend), client, account)?;
    if frontend.affinity_seconds > 0 {
        affinity::remember(key, &frontend, client.identity, &choice.backend);
    }
    maps::count_selected(frontend.counter_id);
    account.serve();
    Ok(choice)
}

#[inline(always)]
fn chosen(
    tables: &impl Tables,
    (key, frontend): (&FrontendKey, &mut FrontendEntry),
    client: &Client<'_>,
    account: &mut Account,
) -> Result<Choice, Refusal> {
    if frontend.affinity_seconds > 0
        && let Lead::Backends { set_id, count } = select::lead(frontend, client.origin)
        && let Some(choice) = affinity::known(key, frontend, client.identity, (set_id, count))
    {
        return Ok(choice);
    }
    for _ in 0..TRIES {
        let (set_id, count) = match select::lead(frontend, client.origin) {
            Lead::Backends { set_id, count } => (set_id, count),
            Lead::Reject => {
                maps::count_refused(frontend.counter_id, Reason::NoBackends);
                account.end(EVENT_REJECTED, Reason::NoBackends);
                return Err(Refusal::Reject);
            }
            Lead::Drop => {
                refuse(account, EVENT_DROPPED, Reason::NoLocalBackends);
                return Err(Refusal::Drop);
            }
        };
        if let Some(slot) = slot(frontend, (set_id, count), client)
            && let Some(backend) = backend(key, frontend, &BackendKey { set_id, slot })
        {
            return Ok(Choice { set_id, backend });
        }
        // The set was replaced between the look-ups: the frontend names the new one.
        let Some(newer) = tables.frontend(key) else { break };
        *frontend = newer;
    }
    refuse(account, EVENT_REJECTED, Reason::SetUnstable);
    Err(Refusal::Reject)
}

/// The backend in a slot of one of the frontend's sets: from beside the frontend, if it is there.
#[inline(always)]
fn backend(key: &FrontendKey, frontend: &FrontendEntry, at: &BackendKey) -> Option<Backend> {
    if at.set_id == frontend.set_id
        && let Some(backend) = frontend.first.get(key, at.slot)
    {
        return Some(backend);
    }
    maps::read(&maps::BACKENDS, at)
}

/// Counted under its reason, also for the service it is about, and told so.
#[inline(always)]
pub(crate) fn refuse(account: &mut Account, outcome: u8, reason: Reason) {
    maps::count(reason);
    if account.counter_id() != 0 {
        maps::count_refused(account.counter_id(), reason);
    }
    account.end(outcome, reason);
}

/// The slot a client gets. With a table a flow's is the same on every node; with affinity, which
/// knows clients by their address alone, a client's is.
#[inline(always)]
fn slot(frontend: &FrontendValue, (set_id, count): (u32, u16), client: &Client<'_>) -> Option<u32> {
    let (Some(size), Some((port, protocol))) = (TableSize::of(frontend.flags), client.flow) else {
        return Some(select::scale(client.random, count.into()));
    };
    let port = if frontend.affinity_seconds > 0 { [0; 2] } else { port };
    let flow = select::flow(client.identity, port, protocol);
    maps::slot_behind(set_id, select::scale(flow, size.places()))
}

#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_get_prandom_u32() }
}

#[inline(always)]
fn is_own_namespace<F: Family>(call: &Call<F>) -> bool {
    maps::settings().is_some_and(|settings| settings.netns_cookie == call.netns_cookie())
}

/// Whether this is a pod's call, and pods' packets are to leave them for what they dialled: its own network namespace may
/// have rules for that (a service mesh's), or answer for it itself (a cluster within).
#[inline(always)]
fn is_left_to_packets<F: Family>(call: &Call<F>) -> bool {
    maps::settings().is_some_and(|settings| {
        settings.flags & SETTINGS_NODE_SOCKETS != 0 && settings.netns_cookie != call.netns_cookie()
    })
}

/// Whether the node's own processes may use a load balancer's address: by the address the node is
/// known by.
#[inline(always)]
fn is_node_admitted(key: &FrontendKey, frontend: &FrontendValue) -> bool {
    let Some(settings) = maps::settings() else { return false };
    maps::is_in_source_ranges(frontend.counter_id, &dialled::node_identity(settings, key))
}

#[inline(always)]
pub(crate) fn peer(dialled: &FrontendKey, backend: &Backend) -> SocketPeer {
    SocketPeer {
        frontend: dialled.address,
        backend: backend.address,
        frontend_port: dialled.port,
        backend_port: backend.port,
    }
}
