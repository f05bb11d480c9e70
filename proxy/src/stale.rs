//! UDP sockets that are connected to a backend that is gone.
//!
//! Such a socket would send to a dead address for ever: a resolver that connected once hangs until
//! it is restarted. The kernel ends it (`SOCK_DESTROY`), its owner gets ECONNABORTED at once and
//! connects anew. Sockets that are not connected choose with every datagram and need nothing.
//!
//! A socket is known by the note its dialling leaves. The note of one that is not connected stays for another
//! round: an answer may be under way, which is shown as the Service's by it. The note of one in a namespace
//! that cannot be looked into stays, too: an agent that may look there ends it.

mod diag;

use std::{
    collections::{HashMap, HashSet},
    io,
};

use fairlead_ebpf::{
    abi::{
        ANY_V4, ANY_V6, BACKEND_LOCAL, Backend, BackendKey, FrontendEntry, FrontendKey, PeerKey,
        SocketPeer, UDP,
    },
    packet::is_mapped,
    select,
};

use self::diag::Found;
use crate::{namespaces, sys::Table, text::ip};

/// Readings of a frontend whose set is replaced meanwhile, before the socket is let be.
const TRIES: u32 = 3;

/// What ending stale sockets did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Sockets that were ended.
    pub sockets: usize,
    /// Namespaces that could not be entered.
    pub closed_namespaces: usize,
}

/// The maps that tell which sockets are stale.
#[derive(Debug)]
pub(crate) struct Maps<'a> {
    pub(crate) peers: &'a Table<PeerKey, SocketPeer>,
    pub(crate) frontends: &'a Table<FrontendKey, FrontendEntry>,
    pub(crate) backends: &'a Table<BackendKey, Backend>,
}

/// Stale notes that were looked into before.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// To be taken away next time, if they are still stale.
    due: HashSet<PeerKey>,
    /// Their sockets were met in no namespace, and not every one was seen.
    unmet: HashSet<PeerKey>,
}

/// Ends every socket of this node that is connected to a backend that no longer serves what was dialled.
pub(crate) fn end(maps: &Maps<'_>, rounds: &mut Rounds) -> io::Result<Ended> {
    let mut stale = HashSet::new();
    for (key, peer) in maps.peers.entries()? {
        if !maps.is_current(&peer)? {
            stale.insert(key);
        }
    }
    let news = rounds.news(&stale);
    let (found, ended) = search(&news, namespaces::are_all_seen());
    maps.peers.delete(&rounds.sort(&stale, &news, &found))?;
    Ok(ended)
}

/// Looks for sockets in every namespace; of those that were not met it is said whether they may be
/// somewhere else.
fn search(keys: &[PeerKey], mut is_all_seen: bool) -> (Search, Ended) {
    let (mut found, mut ended) = (Found::default(), Ended::default());
    if !keys.is_empty() {
        let mut wanted: HashMap<u64, Vec<_>> = HashMap::new();
        for key in keys {
            let remote = (ip(&key.backend), u16::from_be_bytes(key.backend_port));
            wanted.entry(key.socket).or_default().push(remote);
        }
        for namespace in namespaces::all() {
            match namespaces::inside(&namespace, || diag::end(&wanted)) {
                Ok(here) => found.add(here),
                Err(error) => {
                    tracing::debug!(%error, "stale sockets of a namespace not looked for");
                    ended.closed_namespaces += 1;
                    is_all_seen = false;
                }
            }
        }
    }
    ended.sockets = found.ended.len();
    (Search { found, is_all_seen }, ended)
}

/// What a search came to.
struct Search {
    found: Found,
    is_all_seen: bool,
}

impl Rounds {
    /// Stale notes that nobody has looked into.
    fn news(&mut self, stale: &HashSet<PeerKey>) -> Vec<PeerKey> {
        self.unmet.retain(|key| stale.contains(key));
        self.due.retain(|key| stale.contains(key));
        stale
            .iter()
            .filter(|key| !self.due.contains(key) && !self.unmet.contains(key))
            .copied()
            .collect()
    }

    /// Which notes go now; the others are remembered.
    fn sort(
        &mut self,
        stale: &HashSet<PeerKey>,
        news: &[PeerKey],
        search: &Search,
    ) -> Vec<PeerKey> {
        let mut over: Vec<PeerKey> = std::mem::take(&mut self.due).into_iter().collect();
        for key in news.iter().filter(|key| stale.contains(key)) {
            if search.found.ended.contains(&key.socket) {
                over.push(*key);
            } else if search.is_all_seen || search.found.others.contains(&key.socket) {
                self.due.insert(*key);
            } else {
                self.unmet.insert(*key);
            }
        }
        over
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn note(socket: u64) -> PeerKey {
        PeerKey { socket, backend: [7; 16], backend_port: [0, 53], zero: [0; 6] }
    }

    /// Notes that are stale, sockets that were ended, sockets that are there and not connected, whether all were
    /// seen; then notes that go.
    type Round<'a> = (&'a [u64], &'a [u64], &'a [u64], bool, &'a [u64]);

    fn assert_rounds(of: &str, rounds: &[Round<'_>]) {
        let mut known = Rounds::default();
        for (stale, ended, others, is_all_seen, gone) in rounds {
            let stale: HashSet<PeerKey> = stale.iter().map(|socket| note(*socket)).collect();
            let news = known.news(&stale);
            let set = |sockets: &[u64]| sockets.iter().copied().collect();
            let found = Found { ended: set(ended), others: set(others) };
            let search = Search { found, is_all_seen: *is_all_seen };
            let mut over = known.sort(&stale, &news, &search);
            over.sort_unstable_by_key(|key| key.socket);
            assert_eq!(over, gone.iter().map(|socket| note(*socket)).collect::<Vec<_>>(), "{of}");
        }
    }

    #[test]
    fn a_note_goes_with_its_socket_or_a_round_later() {
        assert_rounds(
            "ended, not connected, and closed",
            &[
                (&[1, 2, 3], &[1], &[2], true, &[1]),
                (&[2, 3, 4], &[], &[4], true, &[2, 3]),
                (&[4], &[], &[], true, &[4]),
            ],
        );
        assert_rounds(
            "its backend has come back between",
            &[
                (&[1], &[], &[1], true, &[]),
                (&[], &[], &[], true, &[]),
                (&[1], &[], &[1], true, &[]),
            ],
        );
    }

    /// Their sockets were never looked for again.
    #[test]
    fn a_note_of_a_namespace_that_was_not_searched_stays() {
        assert_rounds(
            "one here, two elsewhere",
            &[
                (&[1, 2, 3], &[1], &[], false, &[1]),
                (&[2, 3], &[], &[], false, &[]),
                (&[2, 3, 4], &[], &[4], false, &[]),
                (&[2, 4], &[], &[], false, &[4]),
            ],
        );
    }
}
