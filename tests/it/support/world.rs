//! A world of its own for a test: `fairlead world hold`, which takes everything along when it ends.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::agent::{self, Agent};

/// The binary under test.
pub(crate) const FAIRLEAD: &str = env!("CARGO_BIN_EXE_fairlead");
/// A pod of the world in which nothing runs: clients inside of the cluster do.
pub(crate) const PROBE: &str = "probe";
/// Of the requests a second that were asked for, the share without which nothing is proved: two cores that are client,
/// servers and node, and start the agent each second, reach no more than half of 5,000 at times.
pub(crate) const PACE_MIN: f64 = 0.4;
/// In less time a moment's delay is more than the rest of that.
const PACED_SECONDS_MIN: f64 = 5.0;

/// A running pod of the Deployment `hello`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// `node1` is the world's own, `node2` is reached by its uplink.
    pub(crate) node: String,
    pub(crate) v4: std::net::Ipv4Addr,
    pub(crate) v6: std::net::Ipv6Addr,
}

#[derive(Deserialize)]
struct Held {
    root: PathBuf,
    manifests: PathBuf,
    bpffs: PathBuf,
    cgroup: PathBuf,
    pods: Vec<Pod>,
}

/// Node, client and pods in namespaces, with manifests for them; no agent.
pub(crate) struct World {
    held: Held,
    holder: Child,
    stdin: Option<ChildStdin>,
}

impl World {
    /// A world with so many pods of `hello`.
    pub(crate) fn with_pods(pods: usize) -> Self {
        Self::on_two_nodes(pods, 0)
    }

    /// A world with so many pods of `hello` on its node, and so many on another one.
    pub(crate) fn on_two_nodes(pods: usize, elsewhere: usize) -> Self {
        let [pods, elsewhere] = [pods, elsewhere].map(|count| count.to_string());
        let mut holder = Command::new(FAIRLEAD)
            .args(["world", "hold", "--pods", &pods, "--pods-elsewhere", &elsewhere])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdin = holder.stdin.take();
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("readable");
        let held = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("no world was built ({error}): {line:?}"));
        Self { held, holder, stdin }
    }

    /// Where the agent reads objects.
    pub(crate) fn manifests(&self) -> &std::path::Path {
        &self.held.manifests
    }

    /// The world's directory.
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.held.root
    }

    /// The node's BPF file system, as processes inside of the world see it.
    pub(crate) fn bpffs(&self) -> &std::path::Path {
        &self.held.bpffs
    }

    /// The node's cgroup, as processes inside of the world see it.
    pub(crate) fn cgroup(&self) -> &std::path::Path {
        &self.held.cgroup
    }

    /// The pods of `hello`.
    pub(crate) fn pods(&self) -> &[Pod] {
        &self.held.pods
    }

    /// Writes a manifest in one step.
    pub(crate) fn apply(&self, file: &str, text: &str) {
        let unfinished = self.manifests().join(format!(".{file}"));
        std::fs::write(&unfinished, text).expect("writable");
        std::fs::rename(unfinished, self.manifests().join(file)).expect("writable");
    }

    /// A command that will run at a place: `node`, `client`, `probe`.
    pub(crate) fn command(&self, place: &str, program: &str) -> Command {
        let mut command = Command::new(FAIRLEAD);
        command.args(["world", "enter", "--world"]).arg(&self.held.root);
        command.args([place, "--", program]);
        command
    }

    /// An agent on the node with all its roles, reading the world's manifests, ready.
    pub(crate) fn agent(&self) -> Agent {
        let agent = self.agent_with(&[]);
        agent.await_ready(self);
        agent
    }

    /// An agent with further flags, which win over the usual ones. It may not be ready yet.
    pub(crate) fn agent_with(&self, more: &[&str]) -> Agent {
        agent::start(self, FAIRLEAD, more)
    }

    /// Runs the load generator to its own end and returns its last report.
    pub(crate) fn load(&self, place: &str, args: &[&str]) -> Report {
        let output = self
            .command(place, FAIRLEAD)
            .args(["world", "load"])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("the load generator starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Report::parse(&output.stdout).unwrap_or_else(|| panic!("no report from {args:?}: {error}"))
    }

    /// One request that waits until there is a good answer, for at most 10 s.
    pub(crate) fn await_answer(&self, place: &str, url: &str) -> Report {
        self.load(place, &["--url", url, "--wait-ms", "10000", "--count", "1"])
    }

    /// Asks until there is no good answer any more, for at most 10 s.
    pub(crate) fn await_failure(&self, place: &str, url: &str) {
        let is_silent = || self.load(place, &["--url", url, "--count", "1"]).ok() == 0;
        assert!(comes_true(Duration::from_secs(10), is_silent), "{url} still answers {place}");
    }

    /// Status line, headers and body of a GET on the node.
    pub(crate) fn page(&self, port: u16, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let runtime = self.runtime("node");
        // Only the runtime's own threads are on the node.
        let asking = runtime.spawn(async move {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            let mut stream = stream.expect("open");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("text");
            answer
        });
        let answer = runtime.block_on(asking).expect("no panic");
        runtime.shutdown_background();
        answer
    }

    /// Steady traffic, flowing when this returns.
    pub(crate) fn steady(&self, place: &str, args: &[&str]) -> Steady {
        let mut command = self.command(place, FAIRLEAD);
        command.args(["world", "load", "--wait-ms", "10000"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the load generator starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("readable");
        assert!(!first.is_empty(), "no traffic from {place}: {args:?}");
        // A report a second fills a pipe that nobody reads in two minutes, and then traffic stops.
        let last = thread::spawn(move || stdout.lines().map_while(Result::ok).last());
        Steady { stdin: child.stdin.take(), last, child }
    }

    /// A runtime whose tasks open their sockets at a place: for servers inside of the test.
    pub(crate) fn runtime(&self, place: &str) -> Runtime {
        let root = self.held.root.display();
        let path = format!("/proc/{}/root{root}/netns/{place}", self.holder.id());
        // A thread starts where the one that made it was.
        let build = move || {
            let namespace = std::fs::File::open(&path).expect("the namespace is there");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("it can be joined");
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
        };
        std::thread::spawn(build).join().expect("no panic")
    }

    /// Ends the holder as a crash would.
    pub(crate) fn crash(mut self) -> PathBuf {
        self.holder.kill().expect("it runs");
        self.holder.wait().expect("it ran");
        self.held.root.clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The holder cleans up once its standard input closes.
        drop(self.stdin.take());
        drop(self.holder.wait());
    }
}

/// Looks again and again until it is so; whether it was, within that time.
pub(crate) fn comes_true(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > within {
            return false;
        }
    }
    true
}

/// Steady traffic.
pub(crate) struct Steady {
    child: Child,
    stdin: Option<ChildStdin>,
    /// The last line it prints.
    last: JoinHandle<Option<String>>,
}

impl Steady {
    /// Ends it and returns what it counted.
    pub(crate) fn stop(mut self) -> Report {
        drop(self.stdin.take());
        let last = self.last.join().expect("no panic").expect("a last report");
        self.child.wait().expect("it ran");
        Report::parse(last.as_bytes()).expect("a last report")
    }
}

/// Ends traffic of several kinds; nothing of it failed and nothing broke.
#[allow(dead_code, clippy::print_stdout, reason = "for tests that take minutes")]
pub(crate) fn assert_flawless(traffic: Vec<(&str, Steady)>) {
    let stopped = traffic.into_iter().map(|(what, steady)| (what, steady.stop()));
    let reports: Vec<(&str, Report)> = stopped.collect();
    // All of them before the first that fails.
    for (what, report) in &reports {
        let [good, failed, broken] = [report.ok(), report.failed(), report.broken()];
        let of_asked = report.pace().map(|(asked, reached)| {
            format!(", {} skipped, {reached:.0} of {asked} a second", report.skipped())
        });
        println!(
            "{what}: {good} good, {failed} failed, {broken} broken{}",
            of_asked.unwrap_or_default()
        );
    }
    for (what, report) in reports {
        report.assert_flawless(what);
    }
}

/// The load generator's last report.
#[derive(Debug)]
pub(crate) struct Report(Value);

impl Report {
    fn parse(output: &[u8]) -> Option<Self> {
        let output = std::str::from_utf8(output).ok()?;
        let report: Value = serde_json::from_str(output.lines().last()?).ok()?;
        report["done"].as_bool()?.then_some(Self(report))
    }

    /// Good answers.
    pub(crate) fn ok(&self) -> u64 {
        self.0["ok"].as_u64().unwrap_or_default()
    }

    /// Everything else.
    pub(crate) fn failed(&self) -> u64 {
        self.0["failed"].as_u64().unwrap_or_default()
    }

    /// Established connections that broke.
    pub(crate) fn broken(&self) -> u64 {
        self.0["broken"].as_u64().unwrap_or_default()
    }

    /// Requests that the generator did not make, having too many open.
    pub(crate) fn skipped(&self) -> u64 {
        self.0["skipped"].as_u64().unwrap_or_default()
    }

    /// Requests a second, asked for and begun; of streams there is none.
    pub(crate) fn pace(&self) -> Option<(f64, f64)> {
        let pace = &self.0["pace"];
        Some((pace["asked"].as_f64()?, pace["reached"].as_f64()?))
    }

    /// The first failures in words.
    pub(crate) fn failures(&self) -> String {
        self.0["described"].to_string()
    }

    /// Kinds of failure.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        let kinds = self.0["failures"].as_object();
        kinds.map(|kinds| kinds.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// The pods that answered.
    pub(crate) fn answered_by(&self) -> Vec<&str> {
        let pods = self.0["pods"].as_object();
        pods.map(|pods| pods.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// Asserts that there was traffic, as much as was asked for, and none of it failed.
    pub(crate) fn assert_flawless(&self, what: &str) {
        assert!(self.ok() > 0, "{what}: nothing was answered: {}", self.0);
        let (failed, broken) = (self.failed(), self.broken());
        assert_eq!((failed, broken), (0, 0), "{what}: failed, broken: {}", self.failures());
        if let Some((asked, reached)) = self.pace()
            && self.0["pace"]["seconds"].as_f64() >= Some(PACED_SECONDS_MIN)
        {
            let skipped = self.skipped();
            let is_reached = reached >= asked * PACE_MIN;
            assert!(is_reached, "{what}: {reached:.0} of {asked} a second, {skipped} skipped");
        }
    }
}
