//! Other proxies' rules and programs, firewalls, and devices of the network plugin.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::Path,
    process::Command,
};

use fairlead_proxy::node::IPVS_DEVICE;

use super::{Finding, Health};
use crate::{agent::SocketPrograms, counted::counted};

/// Processes and plugins of service meshes that redirect pods' connections (Istio's sidecars and ambient mode, Linkerd).
const MESHES: [&str; 5] = ["pilot-agent", "ztunnel", "linkerd2-proxy", "istio-cni", "linkerd-cni"];
const PLUGINS: &str = "/etc/cni/net.d";
/// A network plugin's configuration has some KiB.
const PLUGIN_BYTES_MAX: u64 = 1 << 20;

pub(super) fn checks(socket_programs: SocketPrograms) -> Vec<Finding> {
    let rules = Rules::read();
    let has_ipvs = Path::new("/sys/class/net").join(IPVS_DEVICE).exists();
    let mut findings = vec![kube_proxy(&rules, has_ipvs), forward(&rules), forwarding()];
    findings.push(network_plugin());
    findings.push(service_mesh(&meshes(), socket_programs));
    findings.push(programs(fairlead_proxy::others::socket_programs()));
    findings.push(processes());
    findings
}

/// What the firewall tools print; `None`: they are not there, or say no.
#[derive(Default)]
struct Rules {
    iptables: Option<String>,
    ip6tables: Option<String>,
    nftables: Option<String>,
}

impl Rules {
    fn read() -> Self {
        let [iptables, ip6tables] =
            ["iptables-save", "ip6tables-save"].map(|program| output(program, &[]));
        Self { iptables, ip6tables, nftables: output("nft", &["list", "ruleset"]) }
    }

    fn is_known(&self) -> bool {
        self.iptables.is_some() || self.nftables.is_some()
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        self.iptables.iter().chain(&self.nftables).flat_map(|text| text.lines())
    }
}

/// What a program prints; `None`: it is not there, or fails.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Of both families and all its modes: iptables has chains of Services, ipvs only the one that leads to its
/// sets, and a device; nftables has a table of each family.
fn kube_proxy(rules: &Rules, has_ipvs: bool) -> Finding {
    let check = "kube-proxy's rules";
    let marks = ["KUBE-SVC-", "KUBE-SERVICES", "table ip kube-proxy", "table ip6 kube-proxy"];
    let lines = rules.lines().chain(rules.ip6tables.iter().flat_map(|text| text.lines()));
    let count = lines.filter(|line| marks.iter().any(|mark| line.contains(mark))).count();
    let lines = (count > 0).then(|| counted(count, "line"));
    let device = has_ipvs.then(|| format!("device {IPVS_DEVICE}"));
    let found: Vec<String> = lines.into_iter().chain(device).collect();
    if !found.is_empty() {
        return Finding::not(check, Health::Warning, found.join(", ")).of("proxy").means(
            "packets that Fairlead leaves alone are translated by old rules, to endpoints of the past",
            "stop kube-proxy, then `fairlead cleanup --kube-proxy` on the node, or restart it",
        );
    }
    if !rules.is_known() {
        return Finding::not(check, Health::Unknown, "neither iptables-save nor nft can be run")
            .of("proxy")
            .means(
                "rules another proxy left are not seen from here",
                "run `iptables-save | grep KUBE-SVC` and `nft list ruleset` on the node as root",
            );
    }
    Finding::ok(check, "none").of("proxy")
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
    let configurations = names_in(PLUGINS);
    let configurations: Vec<String> =
        configurations.into_iter().filter(|name| !name.starts_with('.')).collect();
    plugin(&configurations, &names_in("/sys/class/net"))
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn plugin(configurations: &[String], devices: &[String]) -> Finding {
    let check = "network plugin";
    let is_cilium = devices.iter().any(|name| name == "cilium_host")
        || configurations.iter().any(|name| name.contains("cilium"));
    let configured = match configurations {
        [] => "none configured in /etc/cni/net.d".to_owned(),
        names => names.join(", "),
    };
    let found = format!("{configured}; devices {}", by_kind(devices));
    // A pod of a secondary interface answers through that one, whichever the client came by, and its switch takes
    // no other interface's address: kube-proxy's packets are led back by the plugin's own marks.
    if configurations.iter().any(|name| name.ends_with("-aws.conflist")) {
        return Finding::not(check, Health::Warning, found).of("proxy").means(
            "of pods with an address of a secondary network interface, answers to clients at NodePorts and load \
             balancers are lost",
            "--masquerade-all (the client's address is not kept), or a load balancer that asks pods themselves \
             (target type ip)",
        );
    }
    if is_cilium {
        return Finding::not(check, Health::Warning, found).of("proxy").means(
            "Cilium may balance Services itself (kubeProxyReplacement) before Fairlead sees them",
            "set kubeProxyReplacement: false in Cilium, or leave Services to it: --no-proxy",
        );
    }
    Finding::ok(check, found).of("proxy")
}

/// `cni0, eth0, 42 veth…`: plugins name pods' devices alike, with a number or a sum behind.
fn by_kind(devices: &[String]) -> String {
    const ALIKE: [&str; 6] = ["veth", "cali", "lxc", "azv", "eni", "tap"];
    let mut crowds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut single = vec![];
    for name in devices.iter().filter(|name| *name != "lo") {
        match ALIKE.into_iter().find(|first| name.starts_with(first)) {
            Some(first) => *crowds.entry(first).or_default() += 1,
            None => single.push(name.clone()),
        }
    }
    single.extend(crowds.into_iter().map(|(first, count)| format!("{count} {first}…")));
    if single.is_empty() { "none".to_owned() } else { single.join(", ") }
}

/// eBPF programs that change where sockets connect to; `None`: the kernel does not tell.
fn programs(others: Option<BTreeSet<String>>) -> Finding {
    let check = "other eBPF programs";
    let Some(others) = others else {
        return Finding::not(check, Health::Unknown, "the kernel does not tell this process")
            .of("proxy")
            .means(
                "programs of others that change where sockets connect to are not seen from here",
                "run `fairlead doctor` on the node as root",
            );
    };
    if others.is_empty() {
        return Finding::ok(check, "none that changes where sockets connect to").of("proxy");
    }
    let names: Vec<String> = others.into_iter().collect();
    Finding::not(check, Health::Warning, names.join(", ")).of("proxy").means(
        "they change where sockets connect to, too: of two that balance Services the first decides",
        "turn Services off in whatever loaded them (Cilium: kubeProxyReplacement: false; Calico: \
         bpfConnectTimeLoadBalancing: Disabled), or leave Services to it: --no-proxy",
    )
}

/// Those of these programs that run, as far as is seen from here.
fn running(known: &[&str]) -> BTreeSet<String> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|entry| fs::read_to_string(Path::new(&entry.path()).join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| known.contains(&name.as_str()))
        .collect()
}

/// What of service meshes runs here, or is chained behind the network plugin.
fn meshes() -> BTreeSet<String> {
    let mut found = running(&MESHES);
    for name in names_in(PLUGINS) {
        let file = fs::File::open(Path::new(PLUGINS).join(name));
        let mut text = String::new();
        let read = file.map(|file| file.take(PLUGIN_BYTES_MAX).read_to_string(&mut text));
        if matches!(read, Ok(Ok(_))) {
            let chained = MESHES.into_iter().filter(|mesh| text.contains(mesh));
            found.extend(chained.map(str::to_owned));
        }
    }
    found
}

/// A sidecar knows a Service by its address, and it is its pod's own network that brings it the connection.
fn service_mesh(found: &BTreeSet<String>, socket_programs: SocketPrograms) -> Finding {
    let check = "service mesh";
    if found.is_empty() {
        return Finding::ok(check, "none is seen from here").of("proxy");
    }
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    if socket_programs == SocketPrograms::Node {
        let found = format!("{}; pods' sockets are left alone", names.join(", "));
        return Finding::ok(check, found).of("proxy");
    }
    Finding::not(check, Health::Warning, names.join(", ")).of("proxy").means(
        "sockets of pods are led to endpoints before the mesh sees the Service's address: its routes and policies \
         for Services do not apply",
        "--socket-programs node (the chart's proxy.socketPrograms)",
    )
}

/// Processes that do the same work.
fn processes() -> Finding {
    let check = "other data planes";
    let known = ["kube-proxy", "coredns", "nginx-ingress-c", "node-cache", "cilium-agent"];
    let found: Vec<String> = running(&known).into_iter().collect();
    if found.is_empty() {
        return Finding::ok(check, "none is seen from here");
    }
    Finding::not(check, Health::Warning, found.join(", ")).means(
        "two programs do one job; which of them answers depends on who has the port or was first",
        "remove the other one's DaemonSet or Deployment, or turn the role off here (--no-proxy, \
         --no-dns, --no-ingress)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_network_plugin_is_named_with_its_devices_and_pods_are_counted() {
        for (configurations, devices, health, found) in [
            (
                "10-aws.conflist",
                "eni01 eni02 eth0 eth1 lo",
                Health::Warning,
                "10-aws.conflist; devices eth0, eth1, 2 eni…",
            ),
            ("", "lo", Health::Ok, "none configured in /etc/cni/net.d; devices none"),
            (
                "10-flannel.conflist",
                "cni0 eth0 flannel.1 lo veth01 veth02",
                Health::Ok,
                "10-flannel.conflist; devices cni0, eth0, flannel.1, 2 veth…",
            ),
            (
                "05-cilium.conflist",
                "cilium_host eth0 lxc1",
                Health::Warning,
                "05-cilium.conflist; devices cilium_host, eth0, 1 lxc…",
            ),
        ] {
            let finding = plugin(&names(configurations), &names(devices));
            assert_eq!((finding.health, finding.found.as_str()), (health, found));
            assert_eq!(finding.cure.is_some(), health != Health::Ok, "{found}");
        }
    }

    #[test]
    fn bug_what_kube_proxy_left_is_found_in_each_mode_and_family() {
        let some = |text: &str| Some(text.to_owned());
        let none =
            || Rules { iptables: some("*nat\n:KUBE-FIREWALL - [0:0]\n"), ..Rules::default() };
        for (rules, has_ipvs, health, found) in [
            (none(), false, Health::Ok, "none"),
            (
                Rules { iptables: some(":KUBE-SVC-A - [0:0]"), ..none() },
                false,
                Health::Warning,
                "1 line",
            ),
            (
                Rules { ip6tables: some(":KUBE-SVC-A - [0:0]"), ..none() },
                false,
                Health::Warning,
                "1 line",
            ),
            (
                Rules { iptables: some(":KUBE-SERVICES - [0:0]"), ..none() },
                true,
                Health::Warning,
                "1 line, device kube-ipvs0",
            ),
            (none(), true, Health::Warning, "device kube-ipvs0"),
            (Rules::default(), true, Health::Warning, "device kube-ipvs0"),
            (
                Rules { nftables: some("table ip6 kube-proxy {\n}"), ..none() },
                false,
                Health::Warning,
                "1 line",
            ),
            (Rules::default(), false, Health::Unknown, "neither iptables-save nor nft can be run"),
        ] {
            let finding = kube_proxy(&rules, has_ipvs);
            assert_eq!((finding.health, finding.found.as_str()), (health, found));
        }
    }

    #[test]
    fn a_service_mesh_is_named_with_a_cure_unless_it_is_followed() {
        use SocketPrograms::{All, Node};
        for (found, socket_programs, health) in [
            ("", All, Health::Ok),
            ("istio-cni ztunnel", All, Health::Warning),
            ("linkerd2-proxy", Node, Health::Ok),
        ] {
            let finding = service_mesh(&names(found).into_iter().collect(), socket_programs);
            assert_eq!(finding.health, health, "{found}");
            assert_eq!(finding.cure.is_some(), health != Health::Ok, "{found}");
        }
    }

    #[test]
    fn programs_that_balance_sockets_elsewhere_are_named_with_a_cure() {
        let cilium = BTreeSet::from(["cil_sock4_conne".to_owned()]);
        for (others, health, found) in [
            (Some(BTreeSet::new()), Health::Ok, "none that changes where sockets connect to"),
            (Some(cilium), Health::Warning, "cil_sock4_conne"),
            (None, Health::Unknown, "the kernel does not tell this process"),
        ] {
            let finding = programs(others);
            assert_eq!((finding.health, finding.found.as_str()), (health, found));
            assert_eq!(finding.cure.is_some(), health != Health::Ok, "{found}");
        }
    }
}
