//! What this binary was built from, and `fairlead version`.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::output::Output;

/// `0.1.0`.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The commit, or what stands for it.
pub(crate) const COMMIT: &str = env!("FAIRLEAD_COMMIT");

/// `0.1.0 (commit)`: `build.rs` says which commit.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("FAIRLEAD_COMMIT"), ")");

/// Flags of `fairlead version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) version: String,
    pub(crate) commit: String,
}

/// Prints it.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let version = Version { version: RELEASE.to_owned(), commit: COMMIT.to_owned() };
    args.output.print(&version, |_, _, _| format!("fairlead {VERSION}\n"))
}
