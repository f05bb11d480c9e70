//! The kernel: version, options, BTF, cgroup2, BPF file system, rights.

use std::{fs, io::Read, path::Path};

use fairlead_proxy::namespaces;
use flate2::read::GzDecoder;

use super::{Finding, Health};

/// TCX links.
const KERNEL_MIN: (u32, u32) = (6, 6);
/// Options the programs need; each may be built in or a module.
const NEEDED: [&str; 5] = [
    "CONFIG_BPF_SYSCALL",
    "CONFIG_CGROUP_BPF",
    "CONFIG_NET_CLS_ACT",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_NET_INGRESS",
];
/// Options without which Services work, and what then does not.
const USEFUL: [(&str, &str); 3] = [
    ("CONFIG_INET_DIAG_DESTROY", STALE_SOCKETS),
    ("CONFIG_INET_UDP_DIAG", STALE_SOCKETS),
    (
        "CONFIG_NF_CT_NETLINK",
        "while kube-proxy is replaced a new connection may get the port of one that it has begun",
    ),
];
const STALE_SOCKETS: &str =
    "UDP sockets that are connected to an endpoint that is gone stay so until they are closed";
/// `CAP_*` numbers of capabilities(7).
const CAPABILITIES: [(&str, u32); 3] = [("NET_ADMIN", 12), ("PERFMON", 38), ("BPF", 39)];
const SYS_ADMIN: u32 = 21;
const NET_BIND_SERVICE: u32 = 10;
/// What a kernel is configured by has some 200 KiB.
const CONFIGURATION_BYTES_MAX: u64 = 4 << 20;

pub(super) fn checks(bpffs: &Path) -> Vec<Finding> {
    let release = read("/proc/sys/kernel/osrelease");
    let mut findings = vec![version(&release)];
    findings.push(options(release.trim()));
    findings.push(btf());
    findings.extend([cgroup(), bpf_file_system(bpffs)]);
    findings.extend(rights());
    findings
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn version(release: &str) -> Finding {
    let release = release.trim();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let found = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => return Finding::not("kernel version", Health::Unknown, release).of("proxy"),
    };
    if found >= KERNEL_MIN {
        return Finding::ok("kernel version", release).of("proxy");
    }
    Finding::not("kernel version", Health::Bad, release).of("proxy").means(
        "packet programs cannot be attached (TCX came with 6.6)",
        "run Linux 6.6 or later; DNS and Ingress work without",
    )
}

fn options(release: &str) -> Finding {
    if let Some(configuration) = configuration(release) {
        return judge(&configuration);
    }
    Finding::not("kernel options", Health::Unknown, "the kernel's configuration is not readable")
        .of("proxy")
        .means(
            "the agent says at its start what it lacks",
            format!("modprobe configs (/proc/config.gz), or put it at /boot/config-{release}"),
        )
}

/// From the kernel's own configuration, where it shows it.
fn configuration(release: &str) -> Option<String> {
    let files = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
    let shown = files.iter().find_map(|path| fs::read_to_string(path).ok());
    shown.or_else(|| unpacked(fs::File::open("/proc/config.gz").ok()?))
}

fn unpacked(packed: impl Read) -> Option<String> {
    let mut text = String::new();
    let mut unpacking = GzDecoder::new(packed).take(CONFIGURATION_BYTES_MAX);
    unpacking.read_to_string(&mut text).ok()?;
    Some(text)
}

fn judge(configuration: &str) -> Finding {
    let check = "kernel options";
    let is_missing = |option: &str| {
        !configuration
            .lines()
            .any(|line| line.strip_prefix(option).is_some_and(|rest| rest == "=y" || rest == "=m"))
    };
    let not_set = |options: &[&str]| format!("{} not set", options.join(", "));
    let missing: Vec<&str> = NEEDED.into_iter().filter(|option| is_missing(option)).collect();
    if !missing.is_empty() {
        return Finding::not(check, Health::Bad, not_set(&missing))
            .of("proxy")
            .means("Services cannot be balanced", "use a kernel with these options");
    }
    let missed = USEFUL.into_iter().filter(|(option, _)| is_missing(option));
    let (missed, mut meanings): (Vec<&str>, Vec<&str>) = missed.unzip();
    if missed.is_empty() {
        return Finding::ok(check, "all there").of("proxy");
    }
    meanings.dedup();
    Finding::not(check, Health::Warning, not_set(&missed))
        .of("proxy")
        .means(meanings.join("; "), "use a kernel with these options")
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Finding::ok("BTF", "/sys/kernel/btf/vmlinux").of("proxy");
    }
    Finding::not("BTF", Health::Warning, "no /sys/kernel/btf/vmlinux").of("proxy").means(
        "maps with type information may be refused by the kernel",
        "use a kernel with CONFIG_DEBUG_INFO_BTF, and mount sysfs",
    )
}

fn cgroup() -> Finding {
    let mounts = read("/proc/self/mounts");
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = mounts.find_map(|mount| match mount.as_slice() {
        [_, path, "cgroup2", ..] => Some((*path).to_owned()),
        _ => None,
    });
    match found {
        Some(path) => Finding::ok("cgroup2", path).of("proxy"),
        None => Finding::not("cgroup2", Health::Bad, "not mounted").of("proxy").means(
            "socket programs have nowhere to be attached",
            "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with \
             systemd.unified_cgroup_hierarchy=1; in a container mount the host's",
        ),
    }
}

fn bpf_file_system(path: &Path) -> Finding {
    let shown = path.display().to_string();
    let mounts = read("/proc/self/mounts");
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let is_mounted =
        mounts.any(|mount| matches!(mount.as_slice(), [_, at, "bpf", ..] if *at == shown));
    if is_mounted {
        return Finding::ok("BPF file system", shown).of("proxy");
    }
    let found = format!("none at {shown}");
    Finding::not("BPF file system", Health::Warning, found).of("proxy").means(
        "maps and programs cannot outlive the agent; it mounts one if it may (CAP_SYS_ADMIN)",
        format!("mount -t bpf bpf {shown}, or name another by --bpffs"),
    )
}

fn rights() -> Vec<Finding> {
    let status = read("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return vec![Finding::not("rights", Health::Unknown, "/proc/self/status is not readable")];
    };
    let has = |capability: u32| held & (1 << capability) != 0 || held & (1 << SYS_ADMIN) != 0;
    let missing: Vec<&str> =
        CAPABILITIES.iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| *name).collect();
    let proxy = if missing.is_empty() {
        Finding::ok("rights to eBPF", "BPF, NET_ADMIN, PERFMON").of("proxy")
    } else {
        let found = format!("this process lacks {}", missing.join(", "));
        Finding::not("rights to eBPF", Health::Bad, found).of("proxy").means(
            "programs cannot be loaded or attached",
            "run as root, or grant the capabilities (securityContext.capabilities.add)",
        )
    };
    let first = read("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first: u16 = first.trim().parse().unwrap_or(1024);
    let ports = if held & (1 << NET_BIND_SERVICE) != 0 || first <= 53 {
        Finding::ok("rights to ports", "ports below 1024 can be taken")
    } else {
        let found = format!("ports below {first} cannot be taken");
        Finding::not("rights to ports", Health::Bad, found).means(
            "DNS (53) and Ingress (80, 443) cannot listen at their usual ports",
            "grant NET_BIND_SERVICE, or set net.ipv4.ip_unprivileged_port_start to 53",
        )
    };
    vec![proxy, pods_sockets(), ports.of("dns").of("ingress")]
}

/// What it takes to end pods' sockets, too.
fn pods_sockets() -> Finding {
    let check = "pods' namespaces";
    let finding = if namespaces::are_all_seen() {
        Finding::ok(check, "seen, and can be entered")
    } else {
        Finding::not(check, Health::Warning, "not seen, or cannot be entered").means(
            STALE_SOCKETS,
            "as root on the node they can; in a cluster the chart's proxy.podNamespaces=true gives the agent \
             SYS_ADMIN and /run/netns",
        )
    };
    finding.of("proxy")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn a_packed_configuration_is_read_if_it_is_whole() {
        let text = "CONFIG_BPF_SYSCALL=y\n";
        let mut packing = GzEncoder::new(Vec::new(), Compression::fast());
        packing.write_all(text.as_bytes()).unwrap();
        let packed = packing.finish().unwrap();
        assert_eq!(unpacked(packed.as_slice()).as_deref(), Some(text));
        assert_eq!(unpacked(Read::take(packed.as_slice(), 20)), None, "cut short");
        assert_eq!(unpacked(text.as_bytes()), None, "not packed");
    }

    #[test]
    fn options_that_are_needed_are_told_from_those_that_are_missed() {
        let all: String = NEEDED
            .into_iter()
            .chain(USEFUL.map(|(option, _)| option))
            .map(|o| format!("{o}=y\n"))
            .collect();
        let module = all.replace("CONFIG_INET_UDP_DIAG=y", "CONFIG_INET_UDP_DIAG=m");
        for configuration in [&all, &module] {
            assert_eq!(
                judge(configuration),
                Finding::ok("kernel options", "all there").of("proxy")
            );
        }
        for (option, health, meaning) in [
            ("CONFIG_CGROUP_BPF", Health::Bad, "Services cannot be balanced"),
            ("CONFIG_INET_UDP_DIAG", Health::Warning, STALE_SOCKETS),
            ("CONFIG_INET_DIAG_DESTROY", Health::Warning, STALE_SOCKETS),
            ("CONFIG_NF_CT_NETLINK", Health::Warning, USEFUL[2].1),
        ] {
            let without = all.replace(&format!("{option}=y"), &format!("# {option} is not set"));
            let finding = judge(&without);
            assert_eq!(finding.health, health, "{option}");
            assert_eq!(finding.found, format!("{option} not set"));
            assert_eq!(finding.meaning.as_deref(), Some(meaning), "{option}");
        }
        // What both lack is said once.
        let neither = all.replace("_DIAG", "_DIAGNOSES");
        assert_eq!(judge(&neither).meaning.as_deref(), Some(STALE_SOCKETS));
    }

    #[test]
    fn old_kernels_are_bad_and_say_why() {
        for (release, health) in [
            ("6.18.44\n", Health::Ok),
            ("6.6.0-generic", Health::Ok),
            ("6.5.13", Health::Bad),
            ("5.15.0-105", Health::Bad),
            ("unknown", Health::Unknown),
        ] {
            let finding = version(release);
            assert_eq!(finding.health, health, "{release}");
            assert_eq!(finding.cure.is_some(), health == Health::Bad, "{release}");
        }
    }
}
