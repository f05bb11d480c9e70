//! The network namespaces of this node.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io,
    net::IpAddr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{node, sys};

/// Where network namespaces have names, whoever's processes are in them.
const NAMED: &str = "/run/netns";
/// The PID namespace of this process.
const PIDS: &str = "/proc/self/ns/pid";
/// The inode of the machine's own, the same on all (`PROC_PID_INIT_INO`).
const PIDS_OF_ALL: u64 = 0xefff_fffc;
/// Bit of CAP_SYS_ADMIN, without which no other namespace can be entered.
const SYS_ADMIN: u32 = 21;
/// The one this thread is in.
const OWN: &str = "/proc/thread-self/ns/net";

/// A namespace by what it is known by from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `SO_NETNS_COOKIE` of its sockets.
    pub cookie: u64,
    /// Its addresses that can be dialled from elsewhere.
    pub addresses: Vec<IpAddr>,
}

/// Every namespace that is seen and can be entered: others than one's own with CAP_SYS_ADMIN only. One
/// thread each, in turn: no work for a thread that watches.
pub fn read() -> Vec<Namespace> {
    let read = || {
        let cookie = sys::network_namespace_cookie()?;
        Ok(Namespace { cookie, addresses: node::addresses()? })
    };
    let found = all().into_iter().filter_map(|namespace| {
        let read = inside(&namespace, read);
        read.inspect_err(|error| tracing::debug!(%error, "a namespace cannot be looked into")).ok()
    });
    found.collect()
}

/// The network namespaces of all processes, and those that have names; each once.
pub(crate) fn all() -> Vec<File> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.map(|entry| entry.path().join("ns/net"));
    let named = fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut seen = BTreeSet::new();
    // Processes end while they are looked at, and /proc holds more than processes.
    let open = |path: PathBuf| {
        let file = File::open(path).ok()?;
        seen.insert(id(&file.metadata().ok()?)).then_some(file)
    };
    processes.chain(named).filter_map(open).collect()
}

/// Whether pods' namespaces are among [`all`], and can be entered: with CAP_SYS_ADMIN, where all processes or
/// the names of namespaces are seen.
pub fn are_all_seen() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let is_machines = fs::metadata(PIDS).is_ok_and(|pids| pids.ino() == PIDS_OF_ALL);
    held.is_some_and(|held| held & (1 << SYS_ADMIN) != 0)
        && (is_machines || fs::exists(NAMED).is_ok_and(|exists| exists))
}

/// Runs `body` in the namespace, where the sockets it makes belong: on a thread of its own, unless this
/// one is there, which takes no right.
pub(crate) fn inside<T: Send>(
    namespace: &File,
    body: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    if fs::metadata(OWN).is_ok_and(|own| namespace.metadata().is_ok_and(|of| id(&of) == id(&own))) {
        return body();
    }
    let enter = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        body()
    };
    thread::scope(|scope| scope.spawn(enter).join())
        .unwrap_or_else(|_| Err(io::Error::other("what was done in a namespace broke down")))
}

fn id(namespace: &Metadata) -> (u64, u64) {
    (namespace.dev(), namespace.ino())
}
