//! The real agent under test, with its log.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::world::World;

/// How long a test waits for a line of log or an end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the agent has said so far.
#[derive(Default)]
struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    process: Child,
    log: Arc<Log>,
}

/// Starts an agent of a build on the world's node. A flag in `more` takes the place of the usual one.
pub(crate) fn start(world: &World, build: &str, more: &[&str]) -> Agent {
    let given = |flag: &str| more.iter().any(|arg| arg.split('=').next() == Some(flag));
    let mut command = world.command("node", build);
    command.args(["agent", "--node-name", "node1"]);
    if !given("--manifests") && !given("--kubeconfig") {
        command.arg("--manifests").arg(world.manifests());
    }
    if !given("--cgroup-root") {
        command.arg("--cgroup-root").arg(world.cgroup());
    }
    if !given("--bpffs") {
        command.arg("--bpffs").arg(world.bpffs());
    }
    if !given("--upstream") {
        command.args(["--upstream", "192.168.77.100:53"]);
    }
    spawn(command.args(more))
}

/// Starts an agent by a command of the test's own.
pub(crate) fn spawn(command: &mut std::process::Command) -> Agent {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("the agent starts");
    let stderr = process.stderr.take().expect("piped");
    let log = Arc::new(Log::default());
    let writer = log.clone();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            writer.update(|state| state.lines.push(line));
        }
        writer.update(|state| state.ended = true);
    });
    Agent { process, log }
}

impl Log {
    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Agent {
    /// The agent's own: whoever enters a world becomes what is run there.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until every role is ready.
    pub(crate) fn await_ready(&self, world: &World) {
        let url = "http://127.0.0.1:10256/readyz";
        let args = ["--url", url, "--wait-ms", "20000", "--count", "1"];
        let report = world.load("node", &args);
        assert_eq!(report.ok(), 1, "the agent does not get ready:\n{}", self.log());
    }

    /// Waits for a line with all of `parts` and returns it.
    pub(crate) fn await_line(&self, parts: &[&str]) -> String {
        self.await_lines(1, parts).swap_remove(0)
    }

    /// Waits for so many lines with all of `parts` and returns them.
    pub(crate) fn await_lines(&self, count: usize, parts: &[&str]) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.log.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let fits = |line: &&String| parts.iter().all(|part| line.contains(part));
            let found: Vec<String> = state.lines.iter().filter(fits).take(count).cloned().collect();
            if found.len() == count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let log = || state.lines.join("\n");
            assert!(!left.is_zero(), "no line with {parts:?} in {PATIENCE:?}:\n{}", log());
            assert!(!state.ended, "the agent ended without a line with {parts:?}:\n{}", log());
            let woken = self.log.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the first line of all.
    pub(crate) fn await_any_line(&self) -> String {
        self.await_line(&[])
    }

    /// Lines so far that contain all of `parts`.
    pub(crate) fn lines_with(&self, parts: &[&str]) -> Vec<String> {
        let state = self.log.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |line: &&String| parts.iter().all(|part| line.contains(part));
        state.lines.iter().filter(fits).cloned().collect()
    }

    /// Everything it has said.
    pub(crate) fn log(&self) -> String {
        self.lines_with(&[]).join("\n")
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ran");
    }

    /// SIGTERM: it drains and ends.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("it runs");
    }

    /// Waits until it ends by itself; its log is then complete.
    pub(crate) fn await_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.log.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it goes on:\n{}", state.lines.join("\n"));
            let woken = self.log.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.process.wait().expect("it ran")
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
