//! Which notes are stale: as many questions as there are backends that sockets are connected to, however many
//! sockets there are.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    io,
};

use fairlead_ebpf::abi::{PeerKey, SocketPeer};

/// Notes whose backend no longer serves what was dialled, as `is_current` says.
pub(super) fn stale(
    notes: impl IntoIterator<Item = (PeerKey, SocketPeer)>,
    mut is_current: impl FnMut(&SocketPeer) -> io::Result<bool>,
) -> io::Result<HashSet<PeerKey>> {
    let (mut stale, mut answers) = (HashSet::new(), HashMap::new());
    for (key, peer) in notes {
        let is_current = match answers.entry(peer) {
            Entry::Occupied(answer) => *answer.get(),
            Entry::Vacant(answer) => *answer.insert(is_current(&peer)?),
        };
        if !is_current {
            stale.insert(key);
        }
    }
    Ok(stale)
}

/// Takes notes away, by `take`. One that says what is current has its socket connected again since it was looked for, to the
/// same backend, which serves again: it is put back. (A note too many, of a socket that closes between the two, is stale
/// once its backend is.)
pub(super) fn take_away(
    over: &[PeerKey],
    mut take: impl FnMut(&PeerKey) -> io::Result<Option<SocketPeer>>,
    mut is_current: impl FnMut(&SocketPeer) -> io::Result<bool>,
    mut put_back: impl FnMut(&PeerKey, &SocketPeer) -> io::Result<()>,
) -> io::Result<()> {
    for key in over {
        if let Some(peer) = take(key)?
            && is_current(&peer)?
        {
            put_back(key, &peer)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::stale::{
        diag::Found,
        rounds::{Rounds, Search},
    };

    /// A backend that is ready, not ready, and ready again while namespaces are still searched: the note of a socket that had
    /// been ended, and was connected to it again, went, and the socket sent to a dead address for ever after.
    #[test]
    fn bug_a_note_of_a_socket_that_is_connected_again_during_the_search_for_it_stays() {
        let peer = |frontend| SocketPeer {
            frontend: [frontend; 16],
            backend: [7; 16],
            frontend_port: [0, 53],
            backend_port: [0, 53],
        };
        let key = |socket| PeerKey::of(socket, &peer(1));
        for (what, again, expected) in [
            ("ended, and no more", None, &[][..]),
            ("connected again", Some(peer(1)), &[(key(1), peer(1))]),
            ("by another Service with that endpoint", Some(peer(2)), &[(key(1), peer(2))]),
        ] {
            let notes = RefCell::new(HashMap::from([(key(1), peer(1)), (key(2), peer(1))]));
            let serving = RefCell::new(Vec::new());
            let mut rounds = Rounds::default();
            let is_current = |peer: &SocketPeer| Ok(serving.borrow().contains(&peer.frontend));
            let found = stale(notes.borrow().clone(), is_current).unwrap();
            let now = std::time::Instant::now();
            let wanted = rounds.wanted(&found, now);
            // The search, which ends both sockets.
            if let Some(peer) = again {
                serving.borrow_mut().push(peer.frontend);
                notes.borrow_mut().insert(key(1), peer);
            }
            // The other one's is as it was, or of a Service that has no endpoints.
            notes.borrow_mut().insert(key(2), peer(9));
            let found = Found { ended: [1, 2].into(), ..Found::default() };
            let search = Search { found, is_all_seen: true, closed_namespaces: 0 };
            let over = rounds.sort(&wanted, &search, now);
            let take = |key: &PeerKey| Ok(notes.borrow_mut().remove(key));
            let put_back = |key: &PeerKey, peer: &SocketPeer| {
                notes.borrow_mut().entry(*key).or_insert(*peer);
                Ok(())
            };
            take_away(&over, take, is_current, put_back).unwrap();
            let left: Vec<_> = notes.into_inner().into_iter().collect();
            assert_eq!(left, expected, "{what}");
        }
    }

    /// Each note took six calls of bpf(2), twice a second while endpoints changed.
    #[test]
    fn each_backend_of_each_service_is_asked_about_once() {
        let peer = |frontend: u8, backend: u8| SocketPeer {
            frontend: [frontend; 16],
            backend: [backend; 16],
            frontend_port: [0, 53],
            backend_port: [0, 53],
        };
        // Two Services share a backend, which serves one of them.
        let peers = [peer(1, 1), peer(1, 2), peer(2, 1)];
        let notes = (0..999).zip(peers.iter().cycle());
        let notes = notes.map(|(socket, peer)| (PeerKey::of(socket, peer), *peer));
        let mut asked = Vec::new();
        let found = stale(notes, |peer| {
            asked.push(*peer);
            Ok(*peer != peers[2])
        });
        let sockets: HashSet<u64> = found.unwrap().iter().map(|key| key.socket).collect();
        assert_eq!(sockets, (0..999).skip(2).step_by(3).collect());
        assert_eq!(asked, peers);
    }
}
