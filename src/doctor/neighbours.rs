//! Other proxies' rules, firewalls, and devices of the network plugin.

use std::{fs, path::Path, process::Command};

use super::{Finding, Health};

pub(super) fn checks() -> Vec<Finding> {
    let rules = Rules::read();
    let mut findings = vec![kube_proxy(&rules), forward(&rules), forwarding()];
    findings.push(network_plugin());
    findings.push(processes());
    findings
}

/// What the firewall tools print; `None`: they are not there, or say no.
struct Rules {
    iptables: Option<String>,
    nftables: Option<String>,
}

impl Rules {
    fn read() -> Self {
        let iptables = output("iptables-save", &[]);
        Self { iptables, nftables: output("nft", &["list", "ruleset"]) }
    }

    fn is_known(&self) -> bool {
        self.iptables.is_some() || self.nftables.is_some()
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        self.iptables.iter().chain(&self.nftables).flat_map(|text| text.lines())
    }
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn kube_proxy(rules: &Rules) -> Finding {
    let check = "kube-proxy's rules";
    if !rules.is_known() {
        return Finding::not(check, Health::Unknown, "neither iptables-save nor nft can be run")
            .of("proxy")
            .means(
                "rules another proxy left are not seen from here",
                "run `iptables-save | grep KUBE-SVC` and `nft list ruleset` on the node as root",
            );
    }
    let count = rules
        .lines()
        .filter(|line| line.contains("KUBE-SVC-") || line.contains("table ip kube-proxy"))
        .count();
    if count == 0 {
        return Finding::ok(check, "none").of("proxy");
    }
    Finding::not(check, Health::Warning, format!("{count} lines")).of("proxy").means(
        "packets that Fairlead leaves alone are translated by old rules, to endpoints of the past",
        "stop kube-proxy, then `fairlead cleanup --kube-proxy` on the node, or restart it",
    )
}

/// Packets to pods of other nodes and from outside pass FORWARD.
fn forward(rules: &Rules) -> Finding {
    let check = "firewall FORWARD";
    if !rules.is_known() {
        return Finding::not(check, Health::Unknown, "neither iptables-save nor nft can be run")
            .of("proxy")
            .means(
                "a policy DROP without exceptions keeps outside clients from pods",
                "run `iptables -S FORWARD` on the node as root",
            );
    }
    let drops = rules.lines().any(|line| {
        line.starts_with(":FORWARD DROP")
            || (line.contains("hook forward") && line.contains("policy drop"))
    });
    if !drops {
        return Finding::ok(check, "accepts by default").of("proxy");
    }
    Finding::not(check, Health::Warning, "policy DROP").of("proxy").means(
        "packets from outside to pods arrive only where a rule of the network plugin lets them",
        "iptables -P FORWARD ACCEPT, or accept the cluster's pod CIDR in FORWARD",
    )
}

fn forwarding() -> Finding {
    let value = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    match value.trim() {
        "1" => Finding::ok("net.ipv4.ip_forward", "1").of("proxy"),
        "" => Finding::not("net.ipv4.ip_forward", Health::Unknown, "not readable").of("proxy"),
        other => Finding::not("net.ipv4.ip_forward", Health::Warning, other)
            .of("proxy")
            .means("NodePorts from outside reach no pods", "sysctl -w net.ipv4.ip_forward=1"),
    }
}

fn network_plugin() -> Finding {
    let check = "network plugin";
    let configurations = fs::read_dir("/etc/cni/net.d").into_iter().flatten().flatten();
    let names: Vec<String> = configurations
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let devices: Vec<String> =
        devices.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let is_cilium = devices.iter().any(|name| name == "cilium_host")
        || names.iter().any(|name| name.contains("cilium"));
    let found = match names.as_slice() {
        [] => "none configured in /etc/cni/net.d".to_owned(),
        names => names.join(", "),
    };
    if is_cilium {
        return Finding::not(check, Health::Warning, found).of("proxy").means(
            "Cilium may balance Services itself (kubeProxyReplacement) before Fairlead sees them",
            "set kubeProxyReplacement: false in Cilium, or leave Services to it: --no-proxy",
        );
    }
    Finding::ok(check, found).of("proxy")
}

/// Processes that do the same work.
fn processes() -> Finding {
    let check = "other data planes";
    let known = ["kube-proxy", "coredns", "nginx-ingress-c", "node-cache", "cilium-agent"];
    let mut found: Vec<String> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|entry| fs::read_to_string(Path::new(&entry.path()).join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| known.contains(&name.as_str()))
        .collect();
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Finding::ok(check, "none is seen from here");
    }
    Finding::not(check, Health::Warning, found.join(", ")).means(
        "two programs do one job; which of them answers depends on who has the port or was first",
        "remove the other one's DaemonSet or Deployment, or turn the role off here (--no-proxy, \
         --no-dns, --no-ingress)",
    )
}
