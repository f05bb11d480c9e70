//! Idle connections to endpoints, and whose turn it is. One pool per thread: nothing is locked.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    sync::Arc,
};

use super::{
    clock::Watch,
    upstream::UpstreamConnection,
    upstream2::{Shared2, Stream2},
};
use crate::routes::{Endpoint, Upstream};

/// By identities that are never reused: of an upstream, or of an endpoint of one upstream.
type ById<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

/// A connection that is not used for this long holds no buffers.
const ROOM_KEPT_MS: u64 = 2_000;
/// HTTP/2 connections of a thread to one endpoint that are asked: it may allow one stream on each.
const CONNECTIONS2_MAX: usize = 128;
/// An upstream nobody asks for this long begins its round anew.
const TURN_KEPT_MS: u64 = 600_000;

/// Boxed, because they move between pool, request and body.
type Idle = Vec<Box<UpstreamConnection>>;

/// An endpoint's HTTP/2 connections: in use or not, oldest first.
type Connections2 = (Arc<Endpoint>, Vec<Rc<Shared2>>);

/// Connections not in use, newest last, and the round-robin of each upstream.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: RefCell<ById<Idle>>,
    shared2: RefCell<ById<Connections2>>,
    turns: RefCell<ById<Turn>>,
    /// Where the round of a new upstream begins, so that threads do not all begin at one endpoint.
    first_turn: usize,
}

#[derive(Debug)]
struct Turn {
    next: usize,
    used_ms: u64,
}

/// Identities count up: as evenly spread as a hash.
#[derive(Debug, Default)]
pub(crate) struct Identity(u64);

impl Pool {
    pub(crate) fn new(first_turn: usize) -> Self {
        let (idle, shared2, turns) = Default::default();
        Self { idle, shared2, turns, first_turn }
    }

    /// A number that grows by one with each request to the upstream.
    pub(crate) fn turn(&self, upstream: &Upstream, now_ms: u64) -> usize {
        let mut turns = self.turns.borrow_mut();
        let new = || Turn { next: self.first_turn, used_ms: now_ms };
        let turn = turns.entry(upstream.id()).or_insert_with(new);
        let now = turn.next;
        turn.next = now.wrapping_add(1);
        turn.used_ms = now_ms;
        now
    }

    /// The connection used last: the others can grow old and be closed.
    pub(crate) fn take(&self, endpoint: &Endpoint) -> Option<Box<UpstreamConnection>> {
        self.idle.borrow_mut().get_mut(&endpoint.id())?.pop()
    }

    /// Keeps a connection that is ready for another request, unless `idle_max` are there.
    pub(crate) fn put(
        &self,
        mut connection: Box<UpstreamConnection>,
        now_ms: u64,
        idle_max: usize,
    ) {
        if connection.endpoint().is_gone() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(connection.endpoint().id()).or_default();
        if connections.len() < idle_max {
            connection.rest(now_ms);
            connections.push(connection);
        }
    }

    /// A place on the first HTTP/2 connection to an endpoint that has one: the others can grow old and
    /// be closed. If none has, and there are enough, on the emptiest.
    pub(super) fn stream2(&self, endpoint: &Arc<Endpoint>, watch: Arc<Watch>) -> Stream2 {
        let mut shared2 = self.shared2.borrow_mut();
        let new = || (endpoint.clone(), Vec::new());
        let (_, connections) = shared2.entry(endpoint.id()).or_insert_with(new);
        if let Some(shared) = connections.iter().find(|shared| shared.has_room()) {
            return Stream2::on(shared, watch, false);
        }
        let emptiest = connections.iter().min_by_key(|shared| shared.streams());
        if let Some(shared) = emptiest.filter(|_| connections.len() >= CONNECTIONS2_MAX) {
            return Stream2::on(shared, watch, true);
        }
        let shared = Rc::new(Shared2::new(connections.last().map(|known| known.streams_max())));
        let stream = Stream2::on(&shared, watch, false);
        connections.push(shared);
        stream
    }

    /// Closes what is idle for too long or leads to an endpoint that is none any more.
    pub(crate) fn sweep(&self, now_ms: u64, idle_max_ms: u64) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain_mut(|connection| {
                let idle_ms = now_ms.saturating_sub(connection.idle_since_ms());
                if idle_ms >= ROOM_KEPT_MS {
                    connection.give_back();
                }
                idle_ms < idle_max_ms && !connection.endpoint().is_gone()
            });
            !connections.is_empty()
        });
        self.shared2.borrow_mut().retain(|_, (endpoint, connections)| {
            // Streams on them go on; each is closed with its last one.
            connections.retain(|shared| now_ms.saturating_sub(shared.used_ms()) < idle_max_ms);
            !connections.is_empty() && !endpoint.is_gone()
        });
        let is_used = |turn: &Turn| now_ms.saturating_sub(turn.used_ms) < TURN_KEPT_MS;
        self.turns.borrow_mut().retain(|_, turn| is_used(turn));
    }
}

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The table looks at the high bits too (Fibonacci hashing).
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
