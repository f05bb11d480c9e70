//! `fairlead cleanup`: leaves the kernel as if Fairlead had never run.

use std::{path::PathBuf, process::ExitCode};

use fairlead_proxy::Kernel;

/// Flags of `fairlead cleanup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The BPF file system the agent was given
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf", env = "FAIRLEAD_BPFFS")]
    bpffs: PathBuf,
}

/// Detaches and unpins programs and maps. Sockets that are connected stay connected.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    Kernel::cleanup(&args.bpffs)?;
    Ok(ExitCode::SUCCESS)
}
