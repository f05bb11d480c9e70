//! A small world on one machine: a node, its pods and an outside client, each in a network
//! namespace, the node's processes in a cgroup of their own.
//!
//! Everything lives in a mount namespace of the process that made it, and every child dies with its
//! parent: however that process ends, nothing stays but a directory and two empty cgroups, and the
//! next world sweeps those.

mod cgroup;
pub(crate) mod enter;
mod layout;
mod mounts;
mod network;
mod sweep;

use std::{
    env,
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
};

use anyhow::Context;
pub(crate) use layout::{Layout, Place};
use tokio::process::Command;

/// The node's addresses on its uplink.
pub(crate) const NODE_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// See [`NODE_V4`].
pub(crate) const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// The outside client's addresses; it is also the node's router.
pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 100);
/// See [`CLIENT_V4`].
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

/// What a pod's `/etc/resolv.conf` says by `dnsPolicy: ClusterFirst`.
const POD_RESOLV_CONF: &str = "nameserver 10.96.0.10\n\
    search default.svc.cluster.local svc.cluster.local cluster.local\n\
    options ndots:5\n";
/// Names come from that server alone, whatever the machine itself is set up to ask.
const POD_NSSWITCH_CONF: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// A world that exists as long as this value.
#[derive(Debug)]
pub(crate) struct World {
    layout: Layout,
    /// This binary.
    program: PathBuf,
}

impl World {
    /// Builds it: directories, mounts, cgroups, namespaces and links. Must be called before the
    /// process has threads.
    pub(crate) fn create() -> anyhow::Result<Self> {
        mounts::make_private().context(
            "namespaces, cgroups and BPF need root with all its rights: run it with sudo, \
             in a container as privileged",
        )?;
        let program = env::current_exe().context("where this program is")?;
        // From here on a failure is cleaned up by drop.
        let world = Self { layout: Layout::of_process(process::id()), program };
        world.build()?;
        Ok(world)
    }

    fn build(&self) -> anyhow::Result<()> {
        let layout = &self.layout;
        sweep::directories();
        for dir in [layout.root(), layout.netns_dir(), layout.manifests(), layout.logs()] {
            // Not `create_dir_all`: a directory that somebody else made first is not ours to fill
            // and remove.
            let made = fs::DirBuilder::new().mode(0o700).create(dir);
            made.with_context(|| format!("creating {}", dir.display()))?;
        }
        fs::write(layout.resolv_conf(), POD_RESOLV_CONF)?;
        fs::write(layout.nsswitch_conf(), POD_NSSWITCH_CONF)?;
        mounts::mount("bpf", layout.bpffs())?;
        mounts::mount("cgroup2", layout.cgroup2())?;
        sweep::cgroups(layout);
        cgroup::create(layout)?;
        network::build(layout)
    }

    /// Paths and names.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A network namespace for a pod, wired to its node's bridge, and its addresses, which end with
    /// `last`.
    pub(crate) fn add_pod(&self, place: &Place, last: u8) -> anyhow::Result<(Ipv4Addr, Ipv6Addr)> {
        network::add_pod(&self.layout, place, last)
            .with_context(|| format!("network of {place}"))?;
        Ok(network::addresses(place, last))
    }

    /// Another node for pods to be on, reached by the uplink.
    pub(crate) fn add_node(&self) -> anyhow::Result<()> {
        network::build_elsewhere(&self.layout).context("network of another node")
    }

    /// Lets go of a pod's namespace; the kernel removes it with its last process.
    pub(crate) fn remove_pod(&self, place: &Place) {
        let path = self.layout.netns(place);
        if let Err(error) = mounts::unmount(&path).and_then(|()| Ok(fs::remove_file(&path)?)) {
            tracing::warn!(%error, pod = %place, "its namespace stays until the end");
        }
    }

    /// A command that will run at `place` and die with this process.
    pub(crate) fn command(&self, place: &Place, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["world", "enter", "--world"]).arg(self.layout.root());
        command.arg(place.to_string()).arg("--").arg(program).kill_on_drop(true);
        command
    }

    /// The same for a tool of this binary (`fairlead world TOOL …`).
    pub(crate) fn tool(&self, place: &Place, tool: &str) -> Command {
        let mut command = self.own_command(place);
        command.args(["world", tool]);
        command
    }

    /// The same for this binary, with whatever arguments follow.
    pub(crate) fn own_command(&self, place: &Place) -> Command {
        self.command(place, &self.program)
    }

    /// This binary.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let layout = &self.layout;
        cgroup::remove(layout);
        let mounted = mounts::unmount_below(layout.root());
        if mounted.is_err() || !is_ours(layout.root()) {
            // Removing a directory with a cgroup file system in it would reach into the machine's
            // cgroups.
            tracing::warn!(dir = %layout.root().display(), "still has mounts and stays");
            return;
        }
        if let Err(error) = fs::remove_dir_all(layout.root()) {
            tracing::warn!(%error, dir = %layout.root().display(), "could not be removed");
        }
    }
}

fn is_ours(root: &Path) -> bool {
    root.file_name().is_some_and(|name| layout::owner(name).is_some())
}
