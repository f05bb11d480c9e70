//! `fairlead world enter`: becomes another program, at a place in a world.
//!
//! `ip netns exec` will not do: it mounts a fresh /sys, which hides cgroups and the BPF file
//! system.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context;
use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal},
};

use super::{
    layout::{Layout, Place},
    mounts,
};

/// Flags of `fairlead world enter`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The world's directory, as `fairlead demo --keep` prints it
    #[arg(long, value_name = "DIR")]
    world: PathBuf,
    /// node, client or a pod's name
    #[arg(value_name = "PLACE")]
    place: Place,
    /// What to run there
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Does not return unless something failed.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let layout = Layout::at(args.world.clone());
    // A killed parent takes us along: nothing of a world outlives its maker.
    set_pdeathsig(Signal::SIGKILL)?;
    let owner = layout.owner().with_context(|| format!("{} is no world", args.world.display()))?;
    let here = env::current_dir();
    join(&PathBuf::from(format!("/proc/{owner}/ns/mnt")), CloneFlags::CLONE_NEWNS)
        .context("the world is gone")?;
    // Joining a mount namespace moves to its root: relative paths are to mean what they did.
    here.and_then(env::set_current_dir).context("the working directory is gone")?;
    let cgroup = layout.cgroup(&args.place).join("cgroup.procs");
    fs::write(&cgroup, "0").with_context(|| format!("joining {}", cgroup.display()))?;
    join(&layout.netns(&args.place), CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("there is no place {}", args.place))?;
    if matches!(args.place, Place::Pod(_)) {
        resolve_in_cluster(&layout)?;
    }
    let (program, rest) = args.command.split_first().context("no command")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("starting {}", Path::new(program).display()))
}

fn join(path: &Path, kind: CloneFlags) -> anyhow::Result<()> {
    let file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    setns(file, kind).with_context(|| format!("joining {}", path.display()))
}

/// Gives this process the resolver set-up that a kubelet gives a pod.
fn resolve_in_cluster(layout: &Layout) -> anyhow::Result<()> {
    mounts::make_private()?;
    // It is the node's: what a pod keeps mounted would outlive the node's unmounting.
    mounts::unmount_below(layout.bpffs())?;
    for (source, target) in
        [(layout.resolv_conf(), "/etc/resolv.conf"), (layout.nsswitch_conf(), "/etc/nsswitch.conf")]
    {
        // A link (systemd-resolved) is followed to the file that is really read.
        match fs::canonicalize(target) {
            Ok(target) => mounts::bind(&source, &target)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                anyhow::bail!("{target} does not exist here, so a pod's cannot be laid over it");
            }
            Err(e) => return Err(e).context(target),
        }
    }
    Ok(())
}
