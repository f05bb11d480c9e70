//! Sockets that were connected under an agent that noted them in `datagram_peers`, with those that are not connected.
//!
//! Nobody else knows of them: they would send to a dead address for ever once their endpoint goes. Not every such note is
//! taken over: those of closed sockets would stay where nothing gives way.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use fairlead_ebpf::abi::{PeerKey, SocketPeer};

use super::{diag, in_each, remote, remotes};
use crate::sys::Table;

/// Notes in `peers` the sockets among those of `earlier` that are connected to what they were noted with. Those in
/// namespaces that cannot be entered are left out: nobody could end them.
pub(super) fn take_over(
    earlier: &Table<PeerKey, SocketPeer>,
    peers: &Table<PeerKey, SocketPeer>,
) -> io::Result<()> {
    let notes: HashMap<PeerKey, SocketPeer> = earlier.entries()?.into_iter().collect();
    let wanted = remotes(&notes.keys().copied().collect::<Vec<_>>());
    let mut connected = HashSet::new();
    in_each(|| diag::connected(&wanted), |met| connected.extend(met));
    let (mut taken_over, mut left_out) = (0, 0);
    for (key, peer) in &notes {
        if !connected.contains(&(key.socket, remote(key))) {
            continue;
        }
        // One that has been connected again is known better.
        match peers.add(key, peer) {
            Ok(()) => taken_over += 1,
            Err(_) => left_out += 1,
        }
    }
    if taken_over + left_out > 0 {
        tracing::info!(taken_over, left_out, "UDP sockets connected under an earlier agent");
    }
    Ok(())
}
