//! `fairlead`: one data plane for a Kubernetes node. This file parses the command line and nothing else.
#![forbid(unsafe_code)]

mod demo;
mod echo;
mod exit;
mod load;
mod logging;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Freed memory goes back to the system quickly; a relist would otherwise leave its peak behind.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One data plane for a Kubernetes node: Services by eBPF, cluster DNS, Ingress.
#[derive(Debug, Parser)]
#[command(name = "fairlead", version, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it working: a node, pods and an outside client in network namespaces.
    Demo(demo::Args),
    /// Tools of the demo and of the tests.
    #[command(subcommand, hide = true)]
    World(demo::tools::Tool),
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::World(tool) => demo::tools::run(tool),
        Command::Version => exit::print(&format!("fairlead {}\n", env!("CARGO_PKG_VERSION"))),
    };
    exit::report(result)
}
