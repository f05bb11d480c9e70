//! UDP sockets that are connected to a backend that is gone.
//!
//! Such a socket would send to a dead address for ever: a resolver that connected once hangs until
//! it is restarted. The kernel ends it (`SOCK_DESTROY`), its owner gets ECONNABORTED at once and
//! connects anew. Sockets that are not connected choose with every datagram and need nothing.

mod diag;

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    net::IpAddr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    thread,
};

use fairlead_ebpf::{
    abi::{
        ANY_V4, ANY_V6, BACKEND_LOCAL, Backend, BackendKey, FrontendKey, FrontendValue, PeerKey,
        SocketPeer, UDP,
    },
    packet::{is_mapped, unmapped},
    select::{self, Lead, Origin},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys::Table;

/// Readings of a frontend whose set is replaced meanwhile, before the socket is let be.
const TRIES: u32 = 3;
/// Where network namespaces have names, whoever's processes are in them.
const NAMED: &str = "/run/netns";

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
    pub(crate) frontends: &'a Table<FrontendKey, FrontendValue>,
    pub(crate) backends: &'a Table<BackendKey, Backend>,
}

/// Ends every socket of this node that is connected to a backend its service no longer leads to.
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
        let remote = (ip(key), u16::from_be_bytes(key.backend_port));
        wanted.entry(key.socket).or_default().push(remote);
    }
    for namespace in namespaces() {
        match inside(&namespace, || diag::end(&wanted)) {
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
    /// Whether what was dialled still leads to the backend.
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
            let Lead::Backends { set_id, count } = select::lead(&value, Origin::Inside) else {
                return Ok(false);
            };
            let at = |key: &BackendKey| self.backends.get(key).ok().flatten();
            for flags in [0, BACKEND_LOCAL] {
                let backend = Backend { address: peer.backend, port: peer.backend_port, flags };
                if select::find(set_id, count, &backend, at).is_some() {
                    return Ok(true);
                }
            }
            // Not found in a set that was replaced while it was searched means nothing.
            if self.frontends.get(&key)? == Some(value) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn ip(key: &PeerKey) -> IpAddr {
    if is_mapped(&key.backend) { unmapped(&key.backend).into() } else { key.backend.into() }
}

/// The network namespaces of all processes, and those that have names; each once.
fn namespaces() -> Vec<File> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.map(|entry| entry.path().join("ns/net"));
    let named = fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut seen = BTreeSet::new();
    // Processes end while they are looked at, and /proc holds more than processes.
    let open = |path: PathBuf| {
        let file = File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        seen.insert((metadata.dev(), metadata.ino())).then_some(file)
    };
    processes.chain(named).filter_map(open).collect()
}

/// Runs `body` on a thread of its own in the namespace: sockets belong where they are made.
fn inside<T: Send>(namespace: &File, body: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let enter = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        body()
    };
    thread::scope(|scope| scope.spawn(enter).join())
        .unwrap_or_else(|_| Err(io::Error::other("looking for stale sockets broke down")))
}
