//! Processes under measurement, each pinned to one core, and load.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What is asked to end has so long.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A child process that ends with the benchmark.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts `command`; its errors go to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        Self::start_to(command, Stdio::null(), log)
    }

    /// The same; what it prints goes to `out`.
    pub fn start_to(command: &mut Command, out: Stdio, log: &Path) -> Self {
        let log = fs::File::create(log).expect("log file");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked first: nginx's workers outlive a master that is killed. Already gone is as good as ended.
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < END_WITHIN {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command pinned to one core.
pub fn on_core(core: usize, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

/// A loopback address nothing listens on at the moment.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// Waits until `ready` says so.
pub fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} took over 60 s");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Runs a load generator on core 1 and returns what it printed.
pub fn load(program: &str, arguments: &[&str]) -> String {
    let output = on_core(1, program).args(arguments).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?} failed: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// The first number on the first line that contains `marker`.
pub fn number(text: &str, marker: &str) -> f64 {
    let line =
        BufReader::new(text.as_bytes()).lines().map_while(Result::ok).find(|l| l.contains(marker));
    let line = line.unwrap_or_else(|| panic!("no {marker:?} in:\n{text}"));
    let digits =
        line.split(|c: char| !c.is_ascii_digit() && c != '.').find(|part| !part.is_empty());
    digits.and_then(|part| part.parse().ok()).unwrap_or_else(|| panic!("no number in {line:?}"))
}
