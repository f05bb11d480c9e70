//! What a process has used so far, as the kernel accounts it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// Processor time of all threads of a process, in microseconds (nanosecond accounting, unlike /proc/PID/stat).
pub fn cpu_us(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let mut total = 0.0;
    for task in tasks.flatten() {
        let line = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += line.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0);
    }
    total / 1000.0
}

/// A field of /proc/PID/status in KiB, for instance `VmHWM` or `VmRSS`.
pub fn status_kib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("a number of kB")
}

/// Processor time of a process and of the children it has waited for, in microseconds (by the tick).
pub fn with_children_cpu_us(pid: u32) -> f64 {
    const TICK_US: f64 = 10_000.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    // utime, stime, cutime, cstime (proc_pid_stat(5)).
    let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<f64>);
    ticks.map(|ticks| ticks.expect("a number")).sum::<f64>() * TICK_US
}

/// The share of a core that a process takes meanwhile; that of threads that have ended, too.
pub fn core_share(pid: u32, meanwhile: Duration) -> f64 {
    let (before, begun) = (with_children_cpu_us(pid), Instant::now());
    while begun.elapsed() < meanwhile {
        thread::park_timeout(meanwhile.saturating_sub(begun.elapsed()));
    }
    (with_children_cpu_us(pid) - before) / 1e6 / begun.elapsed().as_secs_f64()
}

/// Resident memory once what a start took is given back, in MiB.
#[expect(clippy::disallowed_methods, reason = "another process's work is waited for")]
pub fn settled_rss_mib(pid: u32) -> f64 {
    // The agent does so five seconds after a change.
    thread::sleep(Duration::from_secs(7));
    status_kib(pid, "VmRSS") / 1024.0
}
