//! `fairlead plan`: what the kernel maps would hold, without touching a kernel.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use fairlead_proxy::{
    plan::{NodeView, Plans},
    text,
};
use fairlead_state::source::directory;

use crate::{output::Output, report::maps::Maps};

/// Flags of `fairlead plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Manifest files and directories
    #[arg(
        short,
        long = "filename",
        value_name = "FILE",
        required = true,
        num_args = 1..,
        env = "FAIRLEAD_FILENAME",
        value_delimiter = ','
    )]
    file: Vec<PathBuf>,
    /// Plan for this node (default: none, so no endpoint is local)
    #[arg(long, value_name = "NAME", env = "FAIRLEAD_NODE_NAME")]
    node_name: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Prints the plan; what is refused or not served in full is named on standard error and make the status 1.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = directory::load(&args.file, None, std::collections::BTreeSet::new())?;
    let snapshot = &loaded.snapshot;
    let node = NodeView::new(args.node_name.as_deref().unwrap_or_default(), snapshot);
    let text = text::plan_text_with_names(snapshot, &node);
    args.output.print(&Maps::of(&text), |_, _, _| text)?;
    let refused = snapshot.refused().values().map(ToString::to_string);
    let warnings = Plans::of(snapshot, &node).warnings().into_iter().map(|w| w.to_string());
    let problems: Vec<String> =
        loaded.problems.iter().cloned().chain(refused).chain(warnings).collect();
    for line in loaded.foreign.iter().chain(&problems) {
        // Nowhere is left to report a failure of standard error to.
        drop(writeln!(std::io::stderr(), "fairlead: {line}"));
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
