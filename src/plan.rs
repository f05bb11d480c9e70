//! `fairlead plan`: what the kernel maps would hold, without touching a kernel.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use fairlead_proxy::{plan::NodeView, text};
use fairlead_state::source::directory;

use crate::exit;

/// Flags of `fairlead plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Manifest files and directories
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    file: Vec<PathBuf>,
    /// Plan for this node (default: none, so no endpoint is local)
    #[arg(long, value_name = "NAME", env = "FAIRLEAD_NODE_NAME")]
    node_name: Option<String>,
}

/// Prints the plan; objects and files that are refused are named on standard error and make the status 1.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = directory::load(&args.file, None, std::collections::BTreeSet::new())?;
    let snapshot = &loaded.snapshot;
    let node = NodeView::new(args.node_name.as_deref().unwrap_or_default(), snapshot);
    exit::print(&text::plan_text(snapshot, &node))?;
    let refused = snapshot.refused().values().map(ToString::to_string);
    let problems: Vec<String> = loaded.problems.iter().cloned().chain(refused).collect();
    for problem in &problems {
        // Nowhere is left to report a failure of standard error to.
        drop(writeln!(std::io::stderr(), "fairlead: {problem}"));
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
