//! How long the programs run and what they take, as the kernel counts it.

use std::{collections::BTreeMap, fs};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// BPF_PROG_TYPE_CGROUP_SOCK_ADDR
const SOCKET_PROGRAM: u64 = 18;

/// Statistics are on until this is dropped.
pub struct Enabled(String);

impl Enabled {
    pub fn new() -> Self {
        let before = fs::read_to_string(SWITCH).unwrap();
        fs::write(SWITCH, "1").unwrap();
        Self(before)
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        drop(fs::write(SWITCH, &self.0));
    }
}

/// What the kernel tells of each file a process has open.
fn files(pid: u32) -> impl Iterator<Item = String> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok())
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.trim().parse().ok()
}

/// Nanoseconds and runs of the socket programs a process holds, by program id.
pub fn socket_programs(pid: u32) -> BTreeMap<u64, (u64, u64)> {
    let programs = files(pid).filter_map(|text| {
        let ours = field(&text, "prog_type") == Some(SOCKET_PROGRAM);
        let ran = (field(&text, "run_time_ns")?, field(&text, "run_cnt")?);
        ours.then_some((field(&text, "prog_id")?, ran))
    });
    programs.collect()
}

/// The kernel's memory of the maps and programs a process holds, each once.
pub fn locked_mib(pid: u32) -> f64 {
    let held = files(pid).filter_map(|text| {
        let bytes = field(&text, "memlock")?;
        Some(((field(&text, "map_id"), field(&text, "prog_id")), bytes))
    });
    let held: BTreeMap<_, u64> = held.collect();
    assert!(!held.is_empty(), "the agent holds its maps");
    held.values().sum::<u64>() as f64 / f64::from(1 << 20)
}

/// Nanoseconds a run, of the program that ran most.
pub fn busiest_ns(before: &BTreeMap<u64, (u64, u64)>, after: &BTreeMap<u64, (u64, u64)>) -> f64 {
    let ran = after.iter().map(|(id, (ns, runs))| {
        let (ns_before, runs_before) = before.get(id).copied().unwrap_or_default();
        (runs - runs_before, ns - ns_before)
    });
    let (runs, ns) = ran.max().expect("the agent holds its socket programs");
    assert!(runs > 0, "the connect program did not run");
    ns as f64 / runs as f64
}
