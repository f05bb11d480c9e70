//! `fairlead world`: what the demo and the tests run inside of a world. Not for users, therefore
//! not in `--help`.

use std::{
    io::Read,
    net::{IpAddr, ToSocketAddrs},
    process::ExitCode,
    rc::Rc,
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{
    kubelet::{App, Kubelet, Workload},
    upstream,
    world::{self, World},
};
use crate::{echo, load};

/// The tools.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Tool {
    /// Build a world, describe it in one line of JSON, and keep it until standard input closes.
    Hold(HoldArgs),
    /// Run a program at a place in a world.
    Enter(world::enter::Args),
    /// Be a pod that answers HTTP and UDP.
    Pod(echo::Args),
    /// Be the name server of the world outside.
    Upstream,
    /// Make traffic and report on it.
    Load(Box<load::Args>),
    /// Look a name up with the system's resolver.
    Lookup {
        /// As a program would give it to getaddrinfo
        name: String,
    },
}

/// Flags of `fairlead world hold`.
#[derive(Debug, clap::Args)]
pub(crate) struct HoldArgs {
    /// Pods of the Deployment hello, running and published in the manifests
    #[arg(long, default_value_t = 3)]
    pods: usize,
    /// Further ones of it on another node
    #[arg(long, default_value_t = 0)]
    pods_elsewhere: usize,
}

/// A world, described.
#[derive(Debug, Serialize)]
struct Held<'a> {
    root: &'a std::path::Path,
    manifests: &'a std::path::Path,
    bpffs: &'a std::path::Path,
    cgroup: std::path::PathBuf,
    pods: Vec<HeldPod>,
}

#[derive(Debug, Serialize)]
struct HeldPod {
    name: String,
    node: &'static str,
    v4: IpAddr,
    v6: IpAddr,
}

/// What a lookup found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Looked {
    /// Addresses in the order given, each once; empty when the name does not exist.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long it took.
    pub(crate) micros: u64,
    /// The resolver's words when it failed.
    pub(crate) error: Option<String>,
}

/// Runs one tool.
pub(crate) fn run(tool: Tool) -> anyhow::Result<ExitCode> {
    match tool {
        Tool::Hold(args) => hold(&args),
        Tool::Enter(args) => world::enter::run(&args),
        Tool::Pod(args) => echo::run(&args),
        Tool::Upstream => upstream::run(),
        Tool::Load(args) => load::run(*args),
        Tool::Lookup { name } => print_json(&look_up(&name)),
    }
}

fn hold(args: &HoldArgs) -> anyhow::Result<ExitCode> {
    crate::logging::start(crate::logging::Format::Text, &crate::logging::Level::default());
    let world = Rc::new(World::create()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        super::write_objects(&world)?;
        let mut kubelet = Kubelet::new(world.clone());
        let _upstream = kubelet.run_upstream().await?;
        kubelet.sandbox(&world::Place::Pod(super::PROBE.to_owned()))?;
        let mut hello = App::new("hello", Workload::Deployment);
        kubelet.scale(&mut hello, args.pods).await?;
        kubelet.start_elsewhere(&mut hello, args.pods_elsewhere).await?;
        let layout = world.layout();
        print_json(&Held {
            root: layout.root(),
            manifests: layout.manifests(),
            bpffs: layout.bpffs(),
            cgroup: layout.cgroup(&world::Place::Node),
            pods: hello
                .pods()
                .map(|pod| HeldPod {
                    name: pod.name.clone(),
                    node: pod.node,
                    v4: pod.v4.into(),
                    v6: pod.v6.into(),
                })
                .collect(),
        })?;
        // Closed by whoever started us, by its death too.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn look_up(name: &str) -> Looked {
    let started = Instant::now();
    let found = (name, 0).to_socket_addrs();
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    match found {
        Ok(found) => {
            let mut addresses = Vec::new();
            for address in found.map(|found| found.ip()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Looked { addresses, micros, error: None }
        }
        Err(error) => Looked { addresses: Vec::new(), micros, error: Some(error.to_string()) },
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<ExitCode> {
    crate::exit::print(&format!("{}\n", serde_json::to_string(value)?))
}
