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

#[cfg(test)]
mod tests {
    use super::*;

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
