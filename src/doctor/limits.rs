//! Limits of the process, and the clock.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::{Finding, Health};

/// A busy node's open connections, with room.
const DESCRIPTORS_MIN: u64 = 65_536;
/// For a cluster of some thousand Services; an agent of a large one takes 100 MiB and more.
const MEMORY_MIN_KIB: u64 = 64 << 10;

pub(super) fn checks() -> Vec<Finding> {
    vec![descriptors(), memory(), clock()]
}

fn descriptors() -> Finding {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Finding::not("open files", Health::Unknown, "the limit cannot be read");
    };
    let finding = if hard >= DESCRIPTORS_MIN {
        Finding::ok("open files", format!("up to {hard}"))
    } else {
        Finding::not("open files", Health::Warning, format!("up to {hard}")).means(
            "connections beyond it wait, or are refused",
            format!("raise the hard limit to {DESCRIPTORS_MIN} or more (ulimit -Hn, LimitNOFILE=)"),
        )
    };
    finding.of("dns").of("ingress")
}

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    match available {
        None => Finding::not("memory", Health::Unknown, "/proc/meminfo is not readable"),
        Some(kib) if kib < MEMORY_MIN_KIB => {
            Finding::not("memory", Health::Warning, format!("{} MiB available", kib >> 10)).means(
                "the agent may be ended by the kernel; Services stay, DNS and Ingress restart",
                "free memory on the node",
            )
        }
        Some(kib) => Finding::ok("memory", format!("{} MiB available", kib >> 10)),
    }
}

/// `adjtimex` says whether somebody keeps the clock; certificates are checked by it.
fn clock() -> Finding {
    let year_2024 = 1_704_067_200;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    if now < year_2024 {
        return Finding::not("clock", Health::Bad, format!("{now} seconds since 1970")).means(
            "the API server's certificate is not valid yet for this node",
            "set the clock (chronyd, systemd-timesyncd)",
        );
    }
    let is_kept = ["/run/systemd/timesync/synchronized", "/var/lib/chrony/drift", "/run/chrony"];
    let found = if is_kept.iter().any(|path| std::path::Path::new(path).exists()) {
        "plausible, and kept by a time service"
    } else {
        "plausible; no time service is seen from here"
    };
    Finding::ok("clock", found)
}
