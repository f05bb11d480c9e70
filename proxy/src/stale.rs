//! UDP sockets that are connected to a backend that is gone.
//!
//! Such a socket would send to a dead address for ever: a resolver that connected once hangs until
//! it is restarted. The kernel ends it (`SOCK_DESTROY`), its owner gets ECONNABORTED at once and
//! connects anew. Sockets that are not connected choose with every datagram and need nothing.

mod diag;

use std::{collections::HashMap, io, net::IpAddr};

use fairlead_ebpf::{
    abi::{
        ANY_V4, ANY_V6, BACKEND_LOCAL, Backend, BackendKey, FrontendEntry, FrontendKey, PeerKey,
        SocketPeer, UDP,
    },
    packet::is_mapped,
    select,
};

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

/// Ends every socket of this node that is connected to a backend that no longer serves what was dialled.
pub(crate) fn end(maps: &Maps<'_>) -> io::Result<Ended> {
    let mut stale = Vec::new();
    for (key, peer) in maps.peers.entries()? {
        if !maps.is_current(&peer)? {
            stale.push(key);
        }
    }
    let mut ended = Ended::default();
    if stale.is_empty() {
        return Ok(ended);
    }
    let mut wanted: HashMap<u64, Vec<(IpAddr, u16)>> = HashMap::new();
    for key in &stale {
        let remote = (ip(&key.backend), u16::from_be_bytes(key.backend_port));
        wanted.entry(key.socket).or_default().push(remote);
    }
    for namespace in namespaces::all() {
        match namespaces::inside(&namespace, || diag::end(&wanted)) {
            Ok(sockets) => ended.sockets += sockets,
            Err(error) => {
                tracing::debug!(%error, "stale sockets of a namespace not looked for");
                ended.closed_namespaces += 1;
            }
        }
    }
    maps.peers.delete(&stale)?;
    Ok(ended)
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
