//! connect and sendmsg: what is dialled becomes a backend, before a packet exists.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_get_prandom_u32};
use fairlead_ebpf::{
    abi::{
        ANY_V4, ANY_V6, Address, Backend, BackendKey, FrontendKey, FrontendValue, PeerKey, Reason,
        SocketPeer,
    },
    packet::is_mapped,
    select,
};

use super::{
    maps,
    sockaddr::{ALLOW, Call, Family},
};

/// Readings of a frontend whose set is replaced meanwhile, before giving up.
const TRIES: u32 = 3;

/// The backend given to one connection or datagram.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) frontend: FrontendValue,
    pub(crate) slot: u32,
    pub(crate) backend: Backend,
}

/// connect: TCP, and UDP sockets that talk to one peer.
#[inline(always)]
pub(crate) fn connect<F: Family>(call: &Call<F>) -> i32 {
    let dialled = call.dialled();
    let Some((key, frontend)) = find(&dialled, || is_own_namespace(call)) else {
        call.clear_peer();
        return ALLOW;
    };
    let Ok(choice) = choose(&key, frontend, random()) else {
        return call.refuse();
    };
    call.set_peer(peer(&dialled, &choice.backend));
    call.set(&choice.backend.address, choice.backend.port);
    ALLOW
}

/// sendmsg: datagrams of sockets that are not connected. One socket keeps to one backend as long
/// as the set does not change: a resolver's retry must not look like a new client.
#[inline(always)]
pub(crate) fn sendmsg<F: Family>(call: &Call<F>) -> i32 {
    let dialled = call.dialled();
    let Some((key, frontend)) = find(&dialled, || is_own_namespace(call)) else {
        return ALLOW;
    };
    let socket = call.socket_cookie();
    let Ok(choice) = choose(&key, frontend, select::mix(socket)) else {
        return call.refuse();
    };
    remember(socket, &peer(&dialled, &choice.backend));
    call.set(&choice.backend.address, choice.backend.port);
    ALLOW
}

/// The frontend that is dialled, and its key in the map: exact, or the NodePort of any node
/// address. `is_own_namespace` decides whether loopback addresses mean the node.
#[inline(always)]
pub(crate) fn find(
    dialled: &FrontendKey,
    is_own_namespace: impl FnOnce() -> bool,
) -> Option<(FrontendKey, FrontendValue)> {
    if let Some(frontend) = maps::read(&maps::FRONTENDS, dialled) {
        return Some((*dialled, frontend));
    }
    if !maps::settings()?.is_node_port(dialled.port) {
        return None;
    }
    let is_node = maps::is_node_address(&dialled.address)
        || (is_this_host(&dialled.address) && is_own_namespace());
    if !is_node {
        return None;
    }
    let address = if is_mapped(&dialled.address) { ANY_V4 } else { ANY_V6 };
    let key = FrontendKey { address, ..*dialled };
    Some((key, maps::read(&maps::FRONTENDS, &key)?))
}

/// Chooses, and counts what became of it. An error means: refuse.
#[inline(always)]
pub(crate) fn choose(
    key: &FrontendKey,
    mut frontend: FrontendValue,
    random: u32,
) -> Result<Choice, ()> {
    for _ in 0..TRIES {
        let Some(slot) = select::slot(random, frontend.backends) else {
            maps::count_rejected(frontend.counter_id);
            return Err(());
        };
        let at = BackendKey { set_id: frontend.set_id, slot };
        if let Some(backend) = maps::read(&maps::BACKENDS, &at) {
            maps::count_selected(frontend.counter_id);
            return Ok(Choice { frontend, slot, backend });
        }
        // The set was replaced between the two look-ups: the frontend names the new one.
        let Some(newer) = maps::read(&maps::FRONTENDS, key) else { break };
        frontend = newer;
    }
    maps::count(Reason::SetUnstable);
    Err(())
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

/// Loopback, or unspecified, which dials loopback.
#[inline(always)]
fn is_this_host(address: &Address) -> bool {
    const LOOPBACK_V6: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    if is_mapped(address) {
        return address[12] == 127 || *address == ANY_V4;
    }
    *address == LOOPBACK_V6 || *address == ANY_V6
}

#[inline(always)]
fn peer(dialled: &FrontendKey, backend: &Backend) -> SocketPeer {
    SocketPeer {
        frontend: dialled.address,
        backend: backend.address,
        frontend_port: dialled.port,
        backend_port: backend.port,
    }
}

/// Writes only what changed: most sockets send to one service again and again.
#[inline(always)]
fn remember(socket: u64, peer: &SocketPeer) {
    let key =
        PeerKey { socket, backend: peer.backend, backend_port: peer.backend_port, zero: [0; 6] };
    // SAFETY: the reference ends with the comparison, under RCU; a value that changes meanwhile
    // is written anew, nothing worse.
    let known = unsafe { maps::DATAGRAM_PEERS.get(key) }.is_some_and(|known| known == peer);
    if !known && maps::DATAGRAM_PEERS.insert(key, peer, BPF_ANY.into()).is_err() {
        maps::count(Reason::PeerNotStored);
    }
}
