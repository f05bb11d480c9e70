//! `fairlead cleanup`: leaves the kernel as if Fairlead had never run.

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use fairlead_proxy::{
    Kernel, KernelError,
    connections::{Connections, Sweep},
    maps::kernel::KernelMaps,
};

use crate::kube_proxy::leftovers;

/// Flags of `fairlead cleanup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The BPF file system the agent was given
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf", env = "FAIRLEAD_BPFFS")]
    bpffs: PathBuf,
    /// Leave new connections to another proxy at once, and those that are open their way for so many
    /// seconds more. The agent must have ended: it would write back what this takes out
    #[arg(long, value_name = "SECONDS", default_value_t = 0, env = "FAIRLEAD_DRAIN")]
    drain: u64,
    /// Take away what kube-proxy left instead: its nftables tables, iptables chains, ipsets and virtual
    /// servers. Fairlead stays
    #[arg(long, conflicts_with = "drain", env = "FAIRLEAD_KUBE_PROXY")]
    kube_proxy: bool,
}

/// Detaches and unpins programs and maps. Sockets that are connected stay connected.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.kube_proxy {
        leftovers::remove()?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.drain > 0 && step_aside(args)? {
        drain(args)?;
    }
    Kernel::cleanup(&args.bpffs)?;
    Ok(ExitCode::SUCCESS)
}

/// Lets open connections go on, and takes those away that are not: the next proxy may use their ports
/// for connections of its own.
fn drain(args: &Args) -> anyhow::Result<()> {
    let connections = Connections::open_pinned(&args.bpffs)?;
    for _ in 0..args.drain {
        connections.sweep(Sweep::Loose)?;
        #[expect(clippy::disallowed_methods, reason = "there is no runtime, and nothing to await")]
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// The programs then pass new connections on, and still translate packets of those they know. False
/// when nothing of Fairlead's is there.
fn step_aside(args: &Args) -> anyhow::Result<bool> {
    let mut maps = match KernelMaps::open_pinned(&args.bpffs) {
        Err(KernelError::NothingPinned { .. }) => return Ok(false),
        maps => maps?,
    };
    maps.step_aside()?;
    Ok(true)
}
