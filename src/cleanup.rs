//! `fairlead cleanup`: leaves the kernel as if Fairlead had never run.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::bail;
use fairlead_proxy::{
    Kernel, KernelError,
    connections::{Connections, Sweep},
    maps::kernel::KernelMaps,
};
use serde::{Deserialize, Serialize};

use crate::{kube_proxy::leftovers, output::Output};

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
    #[command(flatten)]
    output: Output,
}

/// What was taken away, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// A file system, or the program that keeps such things.
    pub(crate) place: String,
    pub(crate) names: Vec<String>,
    /// The same for people.
    pub(crate) text: String,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) removed: Vec<Removed>,
    /// What was not looked at, or stays, and why.
    pub(crate) notes: Vec<String>,
    /// What should have gone and did not, and why.
    pub(crate) failed: Vec<String>,
}

/// Takes away what is asked for, and says what that was.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (whose, report) = if args.kube_proxy {
        ("kube-proxy", leftovers::remove())
    } else {
        ("Fairlead", own(args)?)
    };
    for note in &report.notes {
        // Nowhere is left to report a failure of standard error to.
        drop(writeln!(io::stderr(), "fairlead: {note}"));
    }
    let printed = args.output.print(&report, |report, _, _| show(whose, report))?;
    if !report.failed.is_empty() {
        bail!("{}", report.failed.join("; "));
    }
    Ok(printed)
}

fn show(whose: &str, report: &Report) -> String {
    if report.removed.is_empty() && report.failed.is_empty() {
        return format!("nothing of {whose}'s is here\n");
    }
    report.removed.iter().map(|removed| format!("{}\n", removed.text)).collect()
}

/// Detaches and unpins programs and maps. Sockets that are connected stay connected.
fn own(args: &Args) -> anyhow::Result<Report> {
    if args.drain > 0 && step_aside(args)? {
        drain(args)?;
    }
    let mut removed = vec![];
    if let Some(names) = pinned(&args.bpffs) {
        let place = args.bpffs.display().to_string();
        let text = format!("removed {} below {place}", names.join(", "));
        removed.push(Removed { place, names, text });
    }
    Kernel::cleanup(&args.bpffs)?;
    Ok(Report { removed, notes: vec![], failed: vec![] })
}

/// Where Fairlead's programs and maps are; `None`: they are not there.
fn pinned(bpffs: &Path) -> Option<Vec<String>> {
    let name = "fairlead";
    bpffs.join(name).is_dir().then(|| vec![name.to_owned()])
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
