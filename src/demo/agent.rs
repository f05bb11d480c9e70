//! The real agent, run as a child on the world's node.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::process::Child;

use super::{
    traffic,
    world::{Place, World},
};

/// Good once every role serves.
const READY_URL: &str = "http://127.0.0.1:10256/readyz";
/// Longest wait for all roles to be ready.
const READY_PATIENCE_MS: &str = "20000";

/// An agent, running or killed.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts it and waits until every role is ready. Returns how long that took.
    pub(crate) async fn start(world: &World) -> anyhow::Result<(Self, Duration)> {
        let started = Instant::now();
        let log = world.layout().logs().join("agent.log");
        let process = spawn(world, &log)?;
        let mut agent = Self { process, log };
        agent.await_ready(world).await?;
        Ok((agent, started.elapsed()))
    }

    /// `kill -9`, and a new one at once. Returns how long there was no ready agent.
    pub(crate) async fn kill_and_restart(&mut self, world: &World) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.process.kill().await.context("kill -9")?;
        self.process = spawn(world, &self.log)?;
        self.await_ready(world).await?;
        Ok(started.elapsed())
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    async fn await_ready(&mut self, world: &World) -> anyhow::Result<()> {
        let args = ["--url", READY_URL, "--wait-ms", READY_PATIENCE_MS, "--count", "1"];
        tokio::select! {
            ready = traffic::run(world, &Place::Node, args) => {
                ready.map(drop).with_context(|| self.last_words("the agent does not get ready"))
            }
            status = self.process.wait() => {
                bail!(self.last_words(&format!("the agent ended: {}", status?)))
            }
        }
    }

    fn last_words(&self, what: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        format!("{what}; its last words: {}", log.lines().last().unwrap_or("none"))
    }
}

fn spawn(world: &World, log: &Path) -> anyhow::Result<Child> {
    let layout = world.layout();
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = world.own_command(&Place::Node);
    command.args(["agent", "--node-name", "node1", "--manifests"]).arg(layout.manifests());
    command.arg("--cgroup-root").arg(layout.cgroup(&Place::Node));
    command.arg("--bpffs").arg(layout.bpffs());
    // The machine's own name server cannot be reached from inside.
    command.args(["--upstream", "192.168.77.100:53"]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("starting the agent")
}
