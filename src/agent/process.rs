//! What the process takes of the machine, as metrics. What the kernel does not say is left out.

use std::{fs, sync::LazyLock};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeVal,
};

use crate::metrics::single;

/// Of the times in /proc, on x86 and arm64 (asm-generic/param.h: USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// Does not change.
static STARTED_SECONDS: LazyLock<Option<f64>> = LazyLock::new(|| {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    Some(booted_seconds(&machine)? + started_seconds(&stat)?)
});

/// Appends all of it.
pub(super) fn write(text: &mut String) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let used = seconds(usage.user_time()) + seconds(usage.system_time());
        single(text, "process_cpu_seconds_total", used);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = resident_bytes(&status) {
        single(text, "process_resident_memory_bytes", bytes);
    }
    if let Some(seconds) = *STARTED_SECONDS {
        single(text, "process_start_time_seconds", seconds);
    }
    // As its size the kernel says how many there are (6.2, f1f1f2569901): to list them takes long with many.
    if let Ok(metadata) = fs::metadata("/proc/self/fd") {
        single(text, "process_open_fds", metadata.len());
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        single(text, "process_max_fds", soft);
    }
}

fn seconds(time: TimeVal) -> f64 {
    let whole = u32::try_from(time.tv_sec()).map_or(0.0, f64::from);
    let micros = u32::try_from(time.tv_usec()).map_or(0.0, f64::from);
    whole + micros / 1e6
}

/// Of /proc/self/status.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// When the machine was started, of /proc/stat.
fn booted_seconds(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// How long after the machine the process was, of /proc/self/stat.
fn started_seconds(stat: &str) -> Option<f64> {
    // The name may hold anything but ends with the last bracket; the 22nd field is the 20th behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read_whatever_the_process_is_called() {
        let stat = "7 (a) b ( c) S 1 7 7 0 -1 4194560 1 0 0 0 31 12 0 0 20 0 9 0 4250 1024 77 0\n";
        assert_eq!(started_seconds(stat), Some(42.5));
        assert_eq!(started_seconds("7 (a) S 1"), None);
        assert_eq!(
            booted_seconds("cpu  1 2\nbtime 1790000000\nprocesses 9\n"),
            Some(1_790_000_000.0)
        );
        assert_eq!(resident_bytes("VmHWM:\t   9 kB\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident_bytes("VmHWM:\t   9 kB\n"), None);
    }

    #[test]
    fn this_process_has_all_five() {
        let mut text = String::new();
        write(&mut text);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.and_then(|value| value.parse::<f64>().ok())
                .unwrap_or_else(|| panic!("{name}: {text}"))
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.expect("after 1970").as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
        let open = value("process_open_fds");
        assert!(open >= 3.0 && open <= value("process_max_fds"), "{text}");
    }
}
