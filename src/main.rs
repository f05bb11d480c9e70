//! `fairlead`: one data plane for a Kubernetes node. This file parses the command line and nothing else.
#![deny(unsafe_code)]

mod admin;
mod agent;
mod check;
mod classes;
mod cleanup;
mod commands;
mod completions;
mod counted;
mod demo;
mod doctor;
mod dump;
mod echo;
mod exit;
mod given;
mod kube_proxy;
mod kubectl;
mod load;
mod logging;
mod memory;
mod metrics;
mod output;
mod plan;
mod probe;
mod reference;
mod report;
mod table;
mod version;
mod view;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fast where many threads allocate; what is freed goes back to the system by [`memory`].
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
    /// Run on a node.
    Agent(Box<agent::Args>),
    /// Show it working: a node, pods and an outside client in network namespaces.
    Demo(demo::Args),
    /// How an agent fares: roles, sync state, maps, programs, warnings.
    Status(commands::StatusArgs),
    /// What passed and what was not served, by reason.
    Traffic(commands::StatusArgs),
    /// Services: frontends, endpoints, policies, counters.
    Services(commands::ServicesArgs),
    /// Hosts and paths: backends, certificates, what is refused and why.
    Routes(commands::RoutesArgs),
    /// What DNS would answer, and why.
    Names(commands::NamesArgs),
    /// Every decision on the way of one connection or request.
    Trace(commands::TraceArgs),
    /// Print what the kernel maps would hold for these manifests, without touching a kernel.
    Plan(plan::Args),
    /// Print what the kernel maps hold, in the same form as `plan`.
    Dump(dump::Args),
    /// Whether objects and configurations work here: works, differs, refused, and what instead.
    Check(check::Args),
    /// What this node lacks, what it means, and the cure.
    Doctor(doctor::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Print the manual page, or write one for each command.
    Man(completions::ManArgs),
    /// Detach and unpin everything of Fairlead's on this node, or take kube-proxy's leftovers away.
    Cleanup(cleanup::Args),
    /// Tools of the demo and of the tests.
    #[command(subcommand, hide = true)]
    World(demo::tools::Tool),
    /// What kubelets and `helm test` ask from inside a container.
    #[command(subcommand, hide = true)]
    Probe(probe::Probe),
    /// Print the version.
    Version(version::Args),
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    // kubectl finds its plugins by their names: `kubectl fairlead` runs kubectl-fairlead.
    if kubectl::is_plugin(&words) {
        return exit::report(kubectl::run(&words));
    }
    run(given::parse(&words))
}

/// Runs one command.
fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Agent(args) => agent::run(&args),
        Command::Status(args) => commands::status(&args),
        Command::Traffic(args) => commands::traffic(&args),
        Command::Services(args) => commands::services(&args),
        Command::Routes(args) => commands::routes(&args),
        Command::Names(args) => commands::names(&args),
        Command::Trace(args) => commands::trace(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::man(&args),
        Command::Cleanup(args) => cleanup::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Probe(probe) => probe::run(&probe),
        Command::World(tool) => demo::tools::run(tool),
        Command::Version(args) => version::run(&args),
    };
    exit::report(result)
}
