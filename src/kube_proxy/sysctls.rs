//! The node's connection tracking as kube-proxy sets it. Others' rules rely on it: a CNI's
//! masquerading, a firewall, and half-closed connections that outlive the kernel's own limits.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use crate::agent::ConntrackArgs;

/// Below the root of sysctls.
const DIRECTORY: &str = "net/netfilter";
const MAX: &str = "nf_conntrack_max";
/// The most that is reckoned from the number of CPUs: half a gigabyte of entries.
const MAX_BY_CPUS: u64 = 1 << 20;
const ONLINE_CPUS: &str = "/sys/devices/system/cpu/online";
/// Entries the kernel's hash table takes per bucket, as kube-proxy reckons.
const ENTRIES_PER_BUCKET: u64 = 4;
const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// One value that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// File name: `nf_conntrack_max`.
    pub(crate) name: &'static str,
    /// What it should hold.
    pub(crate) value: u64,
    /// A greater value is somebody's decision and stays.
    pub(crate) is_least: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// `nf_conntrack_max: 65536 -> 262144`
    pub(crate) changed: Vec<String>,
    /// Files that could not be written, and why.
    pub(crate) failed: Vec<(PathBuf, io::Error)>,
}

/// What kube-proxy would write.
pub(crate) fn wanted(args: &ConntrackArgs, cpus: u64) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    if args.conntrack_max_per_core > 0 {
        let scaled = u64::from(args.conntrack_max_per_core) * cpus;
        let least = u64::from(args.conntrack_min);
        // As in kube-proxy, whoever asks for more by --conntrack-min gets it where the CPUs do not ask for too much.
        let value = if scaled > MAX_BY_CPUS { MAX_BY_CPUS } else { scaled.max(least) };
        wanted.push(Wanted { name: MAX, value, is_least: true });
    }
    let timeouts = [
        ("nf_conntrack_tcp_timeout_established", args.conntrack_tcp_timeout_established),
        ("nf_conntrack_tcp_timeout_close_wait", args.conntrack_tcp_timeout_close_wait),
        ("nf_conntrack_udp_timeout", args.conntrack_udp_timeout),
        ("nf_conntrack_udp_timeout_stream", args.conntrack_udp_timeout_stream),
    ];
    let timeouts = timeouts.into_iter().map(|(name, length)| (name, length.0.as_secs()));
    let timeouts = timeouts.filter(|(_, seconds)| *seconds > 0);
    wanted.extend(timeouts.map(|(name, value)| Wanted { name, value, is_least: false }));
    if args.conntrack_tcp_be_liberal {
        wanted.push(Wanted { name: "nf_conntrack_tcp_be_liberal", value: 1, is_least: false });
    }
    wanted
}

/// Writes what is not so already, below `root` (`/proc/sys`).
pub(crate) fn write(root: &Path, wanted: &[Wanted]) -> Outcome {
    let mut outcome = Outcome::default();
    for Wanted { name, value, is_least } in wanted {
        let path = root.join(DIRECTORY).join(name);
        match change(&path, *value, *is_least) {
            Ok(Some(old)) => outcome.changed.push(format!("{name}: {old} -> {value}")),
            Ok(None) => {}
            Err(error) => outcome.failed.push((path, error)),
        }
    }
    outcome
}

/// The value before, if it had to be changed.
fn change(path: &Path, value: u64, is_least: bool) -> io::Result<Option<u64>> {
    let text = fs::read_to_string(path)?;
    let old: u64 = text.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    if old == value || (is_least && old > value) {
        return Ok(None);
    }
    fs::write(path, value.to_string())?;
    Ok(Some(old))
}

/// Writes what kube-proxy would and says what; the complaint is in one line.
pub(crate) fn apply(root: &Path, args: &ConntrackArgs) -> Option<String> {
    let wanted = wanted(args, cpus());
    let Outcome { changed, failed } = write(root, &wanted);
    if !changed.is_empty() {
        tracing::info!("connection tracking: {}", changed.join(", "));
    }
    let max = wanted.iter().find(|wanted| wanted.name == MAX);
    if let Some(buckets) = max.map(|wanted| wanted.value / ENTRIES_PER_BUCKET) {
        widen(Path::new(HASHSIZE), buckets);
    }
    complaint(root, &failed)
}

/// The node's CPUs: the table is everybody's, and this process may have few of them (a CPU limit, a static CPU policy).
fn cpus() -> u64 {
    let online = fs::read_to_string(ONLINE_CPUS).ok().and_then(|list| counted(&list));
    online.unwrap_or_else(|| thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64))
}

/// How many are in a list of the kernel's: `0-3,8`.
fn counted(list: &str) -> Option<u64> {
    let spans = list.trim().split(',').map(|span| {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    spans.sum()
}

/// One line for all files, with the cure.
fn complaint(root: &Path, failed: &[(PathBuf, io::Error)]) -> Option<String> {
    let (path, error) = failed.first()?;
    let names: Vec<_> = failed.iter().filter_map(|(path, _)| path.file_name()?.to_str()).collect();
    let cure = match error.kind() {
        io::ErrorKind::NotFound if !root.join("net").exists() => {
            "--sysctl-root is not where the node's /proc/sys is mounted"
        }
        io::ErrorKind::NotFound => {
            "the node tracks no connections (yet); if something will: modprobe nf_conntrack"
        }
        // As in kind, whose kube-proxy is told to leave it alone.
        io::ErrorKind::PermissionDenied if names == [MAX] => {
            "only the host's own network namespace may change it: set it with sysctl on the host, or \
             --conntrack-max-per-core 0 to leave it alone"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "mount the node's /proc/sys/net writable outside /proc and name its parent with \
             --sysctl-root, or set them with sysctl on the node"
        }
        _ => "set them with sysctl on the node",
    };
    let path = path.parent().unwrap_or(path).display();
    let names = names.join(", ");
    Some(format!("connection tracking: {path} cannot be written ({error}), for {names}: {cure}"))
}

/// A table of too few buckets makes each packet walk longer chains. Containers see the file
/// read-only, and then it stays: it is speed, not correctness.
fn widen(path: &Path, buckets: u64) {
    match change(path, buckets, true) {
        Ok(Some(old)) => tracing::info!("nf_conntrack hashsize: {old} -> {buckets}"),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "nf_conntrack hashsize stays"),
    }
}

/// Sets this process's `oom_score_adj`.
pub(crate) fn set_oom_score(value: i32) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", value.to_string()) {
        tracing::warn!(
            "--oom-score-adj {value}: stays as it is ({error}): lowering it needs CAP_SYS_RESOURCE"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kube_proxy::duration::GoDuration;

    fn args() -> ConntrackArgs {
        let seconds = |seconds| GoDuration(Duration::from_secs(seconds));
        ConntrackArgs {
            conntrack_max_per_core: 32_768,
            conntrack_min: 131_072,
            conntrack_tcp_timeout_established: seconds(86_400),
            conntrack_tcp_timeout_close_wait: seconds(3600),
            conntrack_tcp_be_liberal: false,
            conntrack_udp_timeout: seconds(0),
            conntrack_udp_timeout_stream: seconds(0),
        }
    }

    fn shown(args: &ConntrackArgs, cpus: u64) -> Vec<(&'static str, u64)> {
        wanted(args, cpus).into_iter().map(|wanted| (wanted.name, wanted.value)).collect()
    }

    #[test]
    fn the_defaults_are_kube_proxys() {
        for (cpus, max) in
            [(1, 131_072), (4, 131_072), (8, 262_144), (32, 1_048_576), (128, 1_048_576)]
        {
            let expected = [
                ("nf_conntrack_max", max),
                ("nf_conntrack_tcp_timeout_established", 86_400),
                ("nf_conntrack_tcp_timeout_close_wait", 3600),
            ];
            assert_eq!(shown(&args(), cpus), expected);
        }
        let mut changed = args();
        changed.conntrack_max_per_core = 0;
        changed.conntrack_tcp_timeout_established = GoDuration::default();
        changed.conntrack_tcp_be_liberal = true;
        changed.conntrack_udp_timeout = "30s".parse().unwrap();
        let expected = [
            ("nf_conntrack_tcp_timeout_close_wait", 3600),
            ("nf_conntrack_udp_timeout", 30),
            ("nf_conntrack_tcp_be_liberal", 1),
        ];
        assert_eq!(shown(&changed, 8), expected);
    }

    #[test]
    fn cpus_are_the_nodes_whatever_this_process_may_use() {
        for (list, expected) in [
            ("0\n", Some(1)),
            ("0-7\n", Some(8)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-0", None),
            ("0-18446744073709551615", None),
            ("a", None),
        ] {
            assert_eq!(counted(list), expected, "{list:?}");
        }
        let online = fs::read_to_string(ONLINE_CPUS).ok().and_then(|list| counted(&list));
        assert!(online.is_none_or(|online| online == cpus()));
    }

    #[test]
    fn a_greater_maximum_stays_and_what_is_right_is_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        let files = [
            ("nf_conntrack_max", "1000000\n", "1000000\n"),
            ("nf_conntrack_tcp_timeout_established", "432000\n", "86400"),
            ("nf_conntrack_tcp_timeout_close_wait", "3600\n", "3600\n"),
        ];
        for (name, before, _) in files {
            fs::write(directory.join(name), before).unwrap();
        }
        let outcome = write(root.path(), &wanted(&args(), 2));
        assert_eq!(outcome.changed, ["nf_conntrack_tcp_timeout_established: 432000 -> 86400"]);
        assert!(outcome.failed.is_empty());
        for (name, _, after) in files {
            assert_eq!(fs::read_to_string(directory.join(name)).unwrap(), after, "{name}");
        }
    }

    #[test]
    fn files_that_cannot_be_written_are_one_line_with_the_cure() {
        let root = tempfile::tempdir().unwrap();
        let complain = |kind: io::ErrorKind| {
            let failed = ["nf_conntrack_max", "nf_conntrack_tcp_timeout_close_wait"]
                .map(|name| (root.path().join(DIRECTORY).join(name), io::Error::from(kind)));
            complaint(root.path(), &failed).unwrap()
        };
        let missing = complain(io::ErrorKind::NotFound);
        assert!(missing.contains("--sysctl-root is not where"), "{missing}");
        fs::create_dir_all(root.path().join("net")).unwrap();
        for (kind, cure) in [
            (io::ErrorKind::NotFound, "modprobe nf_conntrack"),
            (io::ErrorKind::ReadOnlyFilesystem, "--sysctl-root"),
            (io::ErrorKind::PermissionDenied, "--sysctl-root"),
        ] {
            let line = complain(kind);
            let names = "nf_conntrack_max, nf_conntrack_tcp_timeout_close_wait: ";
            assert!(line.contains(names) && line.contains(cure), "{line}");
        }
        let max = root.path().join(DIRECTORY).join(MAX);
        let line = complaint(root.path(), &[(max, io::ErrorKind::PermissionDenied.into())]);
        assert!(line.unwrap().contains("--conntrack-max-per-core 0"));
        assert_eq!(complaint(root.path(), &[]), None);
    }
}
