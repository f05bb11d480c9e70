//! sendmsg: datagrams of sockets that are not connected.
//!
//! One socket keeps to one backend of a Service, as a flow of packets does: whatever becomes of the others, as
//! long as its own serves, and nobody is silent for too long. A resolver's retry must not look like a new client.

use aya_ebpf::bindings::BPF_ANY;
use bytemuck::Zeroable as _;
use fairlead_ebpf::{
    abi::{
        Backend, BackendKey, DatagramFlow, FrontendKey, FrontendValue, PeerKey, Reason, SocketPeer,
    },
    select,
};

use super::{
    dial::{self, Given, Memory},
    live::{self, Account},
    maps,
    sockaddr::{ALLOW, Call, Family},
    uplink,
};

/// A socket that sends.
struct Sender<'a, F> {
    call: &'a Call<F>,
    dialled: &'a FrontendKey,
    cookie: u64,
}

/// By whom answers to a socket are known. One pointer to a function: it takes no more than five arguments.
struct Note {
    socket: u64,
    peer: SocketPeer,
}

impl Note {
    #[inline(always)]
    fn key(&self) -> PeerKey {
        PeerKey::of(self.socket, &self.peer)
    }
}

/// A datagram.
#[inline(always)]
pub(crate) fn sendmsg<F: Family>(call: &Call<F>) -> i32 {
    let dialled = call.dialled();
    let sender = Sender { call, dialled: &dialled, cookie: call.socket_cookie() };
    let random = select::mix(sender.cookie ^ dialled.mixed());
    let mut account = Account::NONE;
    let (given, verdict) = dial::dial(call, &dialled, random, &sender, &mut account);
    let Some(Given { backend, is_kept }) = given else {
        live::call(call, &dialled, &Backend::zeroed(), &account);
        return verdict;
    };
    if !is_kept {
        let FrontendKey { address, port, .. } = dialled;
        call.set_flow(&DatagramFlow {
            frontend: address,
            backend,
            slot: 0,
            seen: maps::now(),
            frontend_port: port,
            zero: [0; 2],
        });
    }
    if remember(&sender.note(&backend)) {
        live::call(call, &dialled, &backend, &account);
    }
    call.set(&backend.address, backend.port);
    ALLOW
}

impl<F: Family> Memory for Sender<'_, F> {
    #[inline(always)]
    fn kept(&self, key: &FrontendKey, frontend: &FrontendValue) -> Option<Backend> {
        let mut backend = Backend::zeroed();
        // SAFETY: null or the socket's own storage, which lives as long as the socket.
        let flow = unsafe { self.call.flow().as_mut() };
        is_kept(flow, self.dialled, key, packed(frontend), &mut backend).then_some(backend)
    }
}

impl<F: Family> Sender<'_, F> {
    #[inline(always)]
    fn note(&self, backend: &Backend) -> Note {
        Note { socket: self.cookie, peer: dial::peer(self.dialled, backend) }
    }
}

// Functions of their own, as all of this would be too much for one stack; and whichever way one says no, the verifier
// goes on from there once.

/// Writes only what changed: most sockets send to one service again and again. Whether it did.
#[inline(never)]
fn remember(note: &Note) -> bool {
    let key = note.key();
    // SAFETY: the reference ends with the comparison, under RCU; a value that changes meanwhile
    // is written anew, nothing worse.
    let known = unsafe { maps::DATAGRAM_PEERS.get(key) }.is_some_and(|known| *known == note.peer);
    if !known && maps::DATAGRAM_PEERS.insert(key, note.peer, BPF_ANY.into()).is_err() {
        maps::count(Reason::PeerNotStored);
    }
    !known
}

/// Whether the flow goes on, and its backend, which is then given: it is in the frontend's set, or among all that serve
/// its port, as of flows of packets. Where it was is looked at first.
#[inline(never)]
fn is_kept(
    flow: Option<&mut DatagramFlow>,
    dialled: &FrontendKey,
    key: &FrontendKey,
    set: u64,
    given: &mut Backend,
) -> bool {
    let Some(flow) = flow else { return false };
    if !is_of(flow, dialled) {
        return false;
    }
    // Threads that send at once may mix two flows: what is given is what was found, and all that counts is
    // that it serves.
    let backend = flow.backend;
    if !is_at(set, flow.slot, &backend) {
        let all = uplink::beside(key);
        // All that serve are no fewer than those that new flows are led to.
        let among = if unpacked(all).1 == 0 { set } else { all };
        if !is_at(among, flow.slot, &backend) && !is_found(among, flow, &backend) {
            return false;
        }
    }
    *given = backend;
    true
}

/// Whether the flow is to what is dialled, and goes on.
#[inline(never)]
fn is_of(flow: &mut DatagramFlow, dialled: &FrontendKey) -> bool {
    let now = maps::now();
    let is_of = flow.is_of(dialled, now);
    if is_of && flow.seen != now {
        flow.seen = now;
    }
    is_of
}

/// A set and how many backends it has, in one number: see [`uplink::beside`].
#[inline(always)]
fn packed(frontend: &FrontendValue) -> u64 {
    u64::from(frontend.set_id) << 16 | u64::from(frontend.backends)
}

#[inline(always)]
fn unpacked(set: u64) -> (u32, u16) {
    let [_, _, a, b, c, d, e, f] = set.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]))
}

/// Whether the backend is where it was.
#[inline(never)]
fn is_at(set: u64, slot: u32, backend: &Backend) -> bool {
    let (set_id, count) = unpacked(set);
    slot < count.into()
        && maps::peek(&maps::BACKENDS, &BackendKey { set_id, slot })
            .is_some_and(|found| found == *backend)
}

/// Whether the backend is there, and from then on known to be.
#[inline(never)]
fn is_found(set: u64, flow: &mut DatagramFlow, backend: &Backend) -> bool {
    let (set_id, count) = unpacked(set);
    let found = maps::find(set_id, count, backend);
    if let Some(slot) = found {
        flow.slot = slot;
    }
    found.is_some()
}
