//! `fairlead dump`: what the kernel maps hold, in the form `fairlead plan` prints.

use std::{path::PathBuf, process::ExitCode};

use fairlead_proxy::{
    maps::{Maps as _, kernel::KernelMaps},
    text,
};

use crate::{output::Output, report::maps::Maps};

/// Flags of `fairlead dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The BPF file system the agent was given
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf", env = "FAIRLEAD_BPFFS")]
    bpffs: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Reads the pinned maps; changes nothing.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let maps = KernelMaps::open_pinned(&args.bpffs)?;
    let text = text::image_text(&maps.load()?);
    args.output.print(&Maps::of(&text), |_, _, _| text)
}
