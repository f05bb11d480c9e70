//! What a process has used so far, as the kernel accounts it.

use std::fs;

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
