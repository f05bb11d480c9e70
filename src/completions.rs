//! `fairlead completions SHELL` and `fairlead man DIR`: made from the flags themselves.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{Cli, exit, metrics, reference};

/// Flags of `fairlead completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Flags of `fairlead man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Write one page a command into this directory (default: this program's page to standard output)
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Print every command and flag as Markdown instead
    #[arg(long, conflicts_with = "directory", env = "FAIRLEAD_MARKDOWN")]
    markdown: bool,
    /// Print every metric as Markdown instead
    #[arg(long, conflicts_with_all = ["directory", "markdown"], env = "FAIRLEAD_METRICS")]
    metrics: bool,
}

/// Prints a completion script: `source <(fairlead completions bash)`.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fairlead", &mut script);
    exit::print(&String::from_utf8_lossy(&script))
}

/// Prints or writes manual pages.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    if args.markdown {
        return exit::print(&reference::markdown(&Cli::command()));
    }
    if args.metrics {
        return exit::print(&metrics::markdown());
    }
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return exit::print(&String::from_utf8_lossy(&page));
    };
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("writing to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
