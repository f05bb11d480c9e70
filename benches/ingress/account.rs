//! What a proxy has used: a control group of its own knows of all that ever ran in it.

use std::{
    fs,
    ops::Sub,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const CGROUP2: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// What was left behind has so long to end.
const END_WITHIN: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A control group. What still runs in it ends with it.
pub struct Account(PathBuf);

/// Processor time so far, in microseconds.
#[derive(Clone, Copy)]
pub struct Cpu {
    /// Of both, as the scheduler counts it.
    pub total: f64,
    /// The kernel divides `total` by the ticks it saw in each.
    pub user: f64,
    pub system: f64,
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            total: self.total - before.total,
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}

impl Account {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = CGROUP2.iter().map(Path::new).find(|root| root.join("cgroup.procs").exists());
        let name = format!("flb{}i{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = root.expect("a cgroup2 mount").join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// A command that is counted here from the start, with all it starts, pinned to one core.
    pub fn on_core(&self, core: usize, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0" && exec taskset -c "$@""#]);
        command.arg(self.0.join("cgroup.procs")).arg(core.to_string()).arg(program);
        command
    }

    /// Of all processes and threads, those that have ended, too.
    pub fn cpu(&self) -> Cpu {
        let text = self.read("cpu.stat");
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let value =
                lines.find(|(known, _)| *known == name).and_then(|(_, us)| us.parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
        };
        Cpu { total: field("usage_usec"), user: field("user_usec"), system: field("system_usec") }
    }

    /// Of all processes in MiB, pages that several have counted once.
    pub fn memory_mib(&self) -> f64 {
        self.read("cgroup.procs").lines().map(pss_kib).sum::<f64>() / 1024.0
    }

    fn read(&self, file: &str) -> String {
        let path = self.0.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Workers outlive a master that had to be killed.
        drop(fs::write(self.0.join("cgroup.kill"), "1"));
        let begun = Instant::now();
        while fs::remove_dir(&self.0).is_err() && begun.elapsed() < END_WITHIN {
            thread::park_timeout(BETWEEN_LOOKS);
        }
    }
}

/// Nothing of a process that has just ended.
fn pss_kib(pid: &str) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0)
}
