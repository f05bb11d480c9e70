//! UDP sockets that are connected to a backend that is gone.
//!
//! Such a socket would send to a dead address for ever: a resolver that connected once hangs until
//! it is restarted. The kernel ends it (`SOCK_DESTROY`), its owner gets ECONNABORTED at once and
//! connects anew. Sockets that are not connected are led elsewhere with their next datagram and need nothing.
//!
//! A socket is known by the note its connecting leaves, which goes when it is closed. The note of one that is
//! not connected stays for another round: it may be about to be. The note of one that was not met,
//! in a namespace that cannot be looked into, or that the kernel did not end, stays, too, and it is looked for
//! again (`rounds.rs`). An agent that may look there ends it.

mod diag;
mod earlier;
mod notes;
mod rounds;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use fairlead_ebpf::{
    abi::{
        ANY_V4, ANY_V6, BACKEND_LOCAL, Backend, BackendKey, FrontendEntry, FrontendKey, PeerKey,
        SocketPeer, UDP,
    },
    packet::is_mapped,
    select,
};

pub(crate) use self::rounds::Rounds;
use self::{diag::Found, rounds::Search};
use crate::{namespaces, sys::Table, text::ip};

/// Readings of a frontend whose set is replaced meanwhile, before the socket is let be.
const TRIES: u32 = 3;

/// What ending stale sockets did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Sockets that were ended.
    pub sockets: usize,
    /// Namespaces that could not be looked into, or not wholly.
    pub closed_namespaces: usize,
    /// Sockets that were met and could not be ended.
    pub refused: usize,
    /// Sockets that are to be ended, and wait for another search.
    pub waiting: usize,
    /// When that is due; `None`: nothing waits.
    pub again_after: Option<Duration>,
}

/// The maps that tell which sockets are stale.
#[derive(Debug)]
pub(crate) struct Maps<'a> {
    pub(crate) peers: &'a Table<PeerKey, SocketPeer>,
    /// Where an earlier agent noted connected sockets among others, which had no such map as `peers`.
    pub(crate) earlier: Option<&'a Table<PeerKey, SocketPeer>>,
    pub(crate) frontends: &'a Table<FrontendKey, FrontendEntry>,
    pub(crate) backends: &'a Table<BackendKey, Backend>,
}

/// Ends every socket of this node that is connected to a backend that no longer serves what was dialled.
pub(crate) fn end(maps: &Maps<'_>, rounds: &mut Rounds) -> io::Result<Ended> {
    if let Some(earlier) = maps.earlier
        && !rounds.has_taken_over
    {
        earlier::take_over(earlier, maps.peers)?;
        rounds.has_taken_over = true;
    }
    let stale = notes::stale(maps.peers.entries()?, |peer| maps.is_current(peer))?;
    let wanted = rounds.wanted(&stale, Instant::now());
    let search = search(&wanted, namespaces::are_all_seen());
    let now = Instant::now();
    let over = rounds.sort(&wanted, &search, now);
    let put_back = |key: &PeerKey, peer: &SocketPeer| maps.peers.add(key, peer);
    notes::take_away(&over, |key| maps.peers.take(key), |peer| maps.is_current(peer), put_back)?;
    Ok(Ended {
        sockets: search.found.ended.len(),
        closed_namespaces: search.closed_namespaces,
        refused: search.found.refused.len(),
        waiting: rounds.waiting(),
        again_after: rounds.next().map(|at| at.saturating_duration_since(now)),
    })
}

/// Looks for sockets in every namespace.
fn search(keys: &[PeerKey], is_all_seen: bool) -> Search {
    let mut search = Search { found: Found::default(), is_all_seen, closed_namespaces: 0 };
    if keys.is_empty() {
        return search;
    }
    let wanted = remotes(keys);
    search.closed_namespaces = in_each(|| diag::end(&wanted), |found| search.found.add(found));
    search.is_all_seen &= search.closed_namespaces == 0;
    search
}

/// By the sockets' cookies, what they may be connected to.
fn remotes(keys: &[PeerKey]) -> HashMap<u64, Vec<(IpAddr, u16)>> {
    let mut remotes: HashMap<u64, Vec<_>> = HashMap::new();
    for key in keys {
        remotes.entry(key.socket).or_default().push(remote(key));
    }
    remotes
}

fn remote(key: &PeerKey) -> (IpAddr, u16) {
    (ip(&key.backend), u16::from_be_bytes(key.backend_port))
}

/// Looks into every namespace, and takes what was found beside why it was not all. Returns how many were not
/// looked into, or not wholly.
fn in_each<T: Send>(
    look: impl Fn() -> (T, Option<io::Error>) + Sync,
    mut take: impl FnMut(T),
) -> usize {
    let mut closed = 0;
    for namespace in namespaces::all() {
        let error = match namespaces::inside(&namespace, || Ok(look())) {
            Ok((found, error)) => {
                take(found);
                error
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            tracing::debug!(%error, "UDP sockets of a namespace not looked at, or not all");
            closed += 1;
        }
    }
    closed
}

impl Maps<'_> {
    /// Whether the backend still serves what was dialled.
    fn is_current(&self, peer: &SocketPeer) -> io::Result<bool> {
        let dialled = FrontendKey {
            address: peer.frontend,
            port: peer.frontend_port,
            protocol: UDP,
            zero: 0,
        };
        let node_port = if is_mapped(&peer.frontend) { ANY_V4 } else { ANY_V6 };
        let node_port = FrontendKey { address: node_port, ..dialled };
        for _ in 0..TRIES {
            let (key, value) = match self.frontends.get(&dialled)? {
                Some(value) => (dialled, value),
                None => match self.frontends.get(&node_port)? {
                    Some(value) => (node_port, value),
                    None => return Ok(false),
                },
            };
            // Sockets last as long as flows of packets do: what changes policies, hints and drains make is
            // for new ones.
            let serving = self.frontends.get(&key.serving())?;
            let at = |key: &BackendKey| self.backends.get(key).ok().flatten();
            for FrontendEntry { value: all, .. } in [Some(value), serving].into_iter().flatten() {
                for flags in [0, BACKEND_LOCAL] {
                    let backend = Backend { address: peer.backend, port: peer.backend_port, flags };
                    if select::find(all.set_id, all.backends, &backend, at).is_some() {
                        return Ok(true);
                    }
                }
            }
            // Not found in a set that was replaced while it was searched means nothing.
            let is_same = self.frontends.get(&key)? == Some(value)
                && self.frontends.get(&key.serving())? == serving;
            if is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
