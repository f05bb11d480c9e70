//! How long the programs run, as the kernel counts it.

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

/// Nanoseconds and runs of the socket programs a process holds, by program id.
pub fn socket_programs(pid: u32) -> BTreeMap<u64, (u64, u64)> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let texts = files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
    let programs = texts.filter_map(|text| {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line?.trim().parse::<u64>().ok()
        };
        let ours = field("prog_type") == Some(SOCKET_PROGRAM);
        ours.then_some((field("prog_id")?, (field("run_time_ns")?, field("run_cnt")?)))
    });
    programs.collect()
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
