//! Runs the load generator and the resolver at places of the world and reads what they report.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use super::{
    tools::Looked,
    world::{Place, World},
};
use crate::load::report::Report;

/// Longest wait for a generator to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(40);

/// Runs a generator to its own end.
pub(crate) async fn run(
    world: &World,
    place: &Place,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<Report> {
    let output = output(world, place, "load", args).await?;
    last_report(&output)
}

/// Looks a name up with the system's resolver there.
pub(crate) async fn look_up(world: &World, place: &Place, name: &str) -> anyhow::Result<Looked> {
    let output = output(world, place, "lookup", [name]).await?;
    serde_json::from_str(&output).with_context(|| format!("looking up {name}: {output}"))
}

async fn output(
    world: &World,
    place: &Place,
    tool: &str,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<String> {
    let mut command = world.tool(place, tool);
    command.args(args).stdin(Stdio::null());
    let output = timeout(END_TIMEOUT, command.output()).await.context("it did not end")??;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn last_report(output: &str) -> anyhow::Result<Report> {
    let line = output.lines().last().context("no report")?;
    let report: Report = serde_json::from_str(line).with_context(|| format!("report: {line}"))?;
    if !report.done {
        bail!("the load generator ended early");
    }
    Ok(report)
}

/// A generator that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct Steady {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Steady {
    /// Starts it; traffic flows, with at least one good answer, when this returns.
    pub(crate) async fn start(
        world: &World,
        place: &Place,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        let mut command = world.tool(place, "load");
        command.args(["--wait-ms", "5000"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().context("starting the load generator")?;
        let stdin = process.stdin.take().context("no standard input")?;
        let stdout = process.stdout.take().context("no standard output")?;
        let mut steady = Self { process, stdin, stdout: BufReader::new(stdout) };
        let mut first = String::new();
        steady.stdout.read_line(&mut first).await?;
        if first.is_empty() {
            bail!("no traffic: {}", failure(steady.process).await?);
        }
        Ok(steady)
    }

    /// Ends it and returns what it counted.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Report> {
        drop(self.stdin);
        let mut reports = String::new();
        let end = self.stdout.read_to_string(&mut reports);
        timeout(END_TIMEOUT, end).await.context("it did not end")??;
        if !self.process.wait().await?.success() {
            bail!("{}", failure(self.process).await?);
        }
        last_report(&reports)
    }
}

async fn failure(process: Child) -> anyhow::Result<String> {
    let output = process.wait_with_output().await?;
    Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
