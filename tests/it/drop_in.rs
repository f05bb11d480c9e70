//! In kube-proxy's place: its configuration file, its pages, its sysctls, its leftovers.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use super::support::{
    agent::{self, Agent},
    manifests::kube_proxy_config,
    world::{FAIRLEAD, World},
};

const PROXY_ONLY: [&str; 2] = ["--no-dns", "--no-ingress"];

/// Replaces kube-proxy's configuration in one step.
fn configure(world: &World, text: &str) -> PathBuf {
    let file = world.root().join("config.conf");
    let unfinished = file.with_extension("new");
    fs::write(&unfinished, kube_proxy_config(text)).expect("writable");
    fs::rename(unfinished, &file).expect("writable");
    file
}

fn agent_with(world: &World, more: &[&str]) -> Agent {
    world.agent_with(&[&PROXY_ONLY, more].concat())
}

/// Asks until the answer has all of `parts`.
fn await_page(world: &World, port: u16, path: &str, parts: &[&str]) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = world.page(port, path);
        if parts.iter().all(|part| answer.contains(part)) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} never has {parts:?}: {answer}");
        std::thread::yield_now();
    }
}

/// What a command prints at the world's node.
fn at_node(world: &World, program: &str, args: &[&str], input: &str) -> String {
    let mut command = world.command("node", program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ran");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_kube_proxy_configuration_is_taken_and_flags_win_over_it() {
    let world = World::with_pods(1);
    let file = configure(
        &world,
        "hostnameOverride: other\nmetricsBindAddress: 127.0.0.1:10300\nclusterCIDR: 10.244.0.0/16\n\
         mode: iptables\niptables: {masqueradeAll: true}\nconntrack: {tcpCloseWaitTimeout: 30m}\n",
    );
    let agent = agent_with(&world, &["--kube-proxy-config", &file.display().to_string()]);
    agent.await_ready(&world);
    agent.await_line(&["settings:", "node-name=node1", "masquerade-all=true"]);
    let warning = agent.await_line(&["WARN", "--kube-proxy-config: clusterCIDR", "no meaning"]);
    assert!(warning.contains("mode: \"iptables\""), "one line has all: {warning}");
    assert!(world.page(10300, "/proxyMode").ends_with("\r\n\r\nebpf"));
    let configz = world.page(10300, "/configz");
    for part in [
        "200 OK",
        "application/json",
        "{\"kubeproxy.config.k8s.io\":{",
        "\"clusterCIDR\":\"10.244.0.0/16\"",
        "\"tcpCloseWaitTimeout\":\"30m0s\"",
        "\"hostnameOverride\":\"node1\"",
        "\"metricsBindAddress\":\"127.0.0.1:10300\"",
    ] {
        assert!(configz.contains(part), "{part}: {configz}");
    }

    configure(&world, "conntrack: {tcpCloseWaitTimeout: 20m}\nnodePortAddresses: [primary]\n");
    agent.await_line(&["settings changed", "conntrack-tcp-timeout-close-wait: 30m -> 20m"]);
    agent.await_line(&["nodeport-addresses", "next start"]);
    configure(&world, "conntrack: {tcpCloseWaitTimeout: often}\n");
    agent.await_line(&["ERROR", "config.conf: conntrack.tcpCloseWaitTimeout", "stay in force"]);
    configure(&world, "conntrack: {tcpCloseWaitTimeout: 10m}\n");
    agent.await_line(&["can be used again"]);
    agent.await_line(&["settings changed", "20m -> 10m"]);
}

#[test]
fn a_kube_proxy_configuration_that_is_wrong_ends_with_64_naming_file_field_and_cure() {
    let world = World::with_pods(0);
    for (text, parts) in [
        ("conntrack: 1\n", ["config.conf: conntrack:", "is a section"]),
        ("oomScoreAdj: 2000\n", ["config.conf: oomScoreAdj: 2000:", "from -1000 to 1000"]),
        ("nodePortAddresses: [eth0]\n", ["config.conf: nodePortAddresses:", "address ranges"]),
    ] {
        let file = configure(&world, text);
        let path = file.display().to_string();
        let mut agent = agent_with(&world, &["--kube-proxy-config", &path]);
        assert_eq!(agent.await_end().code(), Some(64), "{}", agent.log());
        let log = agent.log();
        assert!(parts.iter().all(|part| log.contains(part)), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}

#[test]
fn a_taken_port_is_the_end_if_the_configuration_says_so() {
    let world = World::with_pods(0);
    let runtime = world.runtime("node");
    let bind = runtime.spawn(tokio::net::TcpListener::bind(("127.0.0.1", 10249)));
    let _taken = runtime.block_on(bind).expect("no panic").expect("free so far");
    let file = configure(&world, "bindAddressHardFail: true\n");
    let mut agent = agent_with(&world, &["--kube-proxy-config", &file.display().to_string()]);
    assert_eq!(agent.await_end().code(), Some(1), "{}", agent.log());
    agent_said(&agent, &["--metrics-listen", "127.0.0.1:10249", "choose another address"]);
}

fn agent_said(agent: &Agent, parts: &[&str]) {
    assert_eq!(agent.lines_with(parts).len(), 1, "{}", agent.log());
}

#[test]
fn pages_answer_as_kube_proxys_and_a_node_that_goes_gets_no_traffic() {
    let world = World::with_pods(1);
    let agent = agent_with(&world, &[]);
    agent.await_ready(&world);
    let json = ["200 OK", "content-type: application/json", "x-content-type-options: nosniff"];
    let health = world.page(10256, "/healthz");
    for part in json.iter().chain(&["{\"lastUpdated\": \"20", "Z\",\"currentTime\": \"20"]) {
        assert!(health.contains(part), "{part}: {health}");
    }
    assert!(
        health.contains("Z\", \"nodeEligible\": true, \"healthy\": true, \"status\": {"),
        "{health}"
    );
    let live = world.page(10256, "/livez");
    assert!(json.iter().all(|part| live.contains(part)), "{live}");
    let told = ["Z\", \"healthy\": true, \"status\": {\"IPv4\": {\"lastUpdated\": ", "\"IPv6\": {"];
    assert!(told.iter().all(|part| live.contains(part)), "{live}");
    assert!(world.page(10256, "/readyz").contains("proxy: ready"));
    let mode = world.page(10249, "/proxyMode");
    assert!(mode.contains("200 OK") && mode.ends_with("\r\n\r\nebpf"), "{mode}");
    assert!(mode.contains("content-type: text/plain; charset=utf-8"), "{mode}");

    let cluster = fs::read_to_string(world.manifests().join("cluster.yaml")).expect("readable");
    let tainted = |taint: &str| {
        let spec = format!("spec:\n  taints: [{taint}]\n  podCIDR:");
        cluster.replacen("spec:\n  podCIDR:", &spec, 1)
    };
    let taint = "{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}";
    world.apply("cluster.yaml", &tainted(taint));
    let parts = ["503 Service Unavailable", "\"nodeEligible\": false, \"healthy\": true"];
    await_page(&world, 10256, "/healthz", &parts);
    assert!(world.page(10256, "/livez").contains("200 OK"));
    world.apply("cluster.yaml", &tainted(""));
    await_page(&world, 10256, "/healthz", &["200 OK", "\"nodeEligible\": true"]);
    let metrics = world.page(10249, "/metrics");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("kubeproxy_proxy_livez_total{code=\"200\"} 2\n"), "{metrics}");
    let refused = "\nkubeproxy_proxy_healthz_total{code=\"503\"} ";
    let refused = metrics.split(refused).nth(1).and_then(|rest| rest.lines().next());
    assert!(refused.is_some_and(|count| count.parse::<u64>().is_ok_and(|n| n > 0)), "{metrics}");
}

#[test]
fn metrics_have_kube_proxys_names_and_measure_from_the_trigger_on() {
    let world = World::with_pods(1);
    let agent = agent_with(&world, &[]);
    agent.await_ready(&world);
    let passes = "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1";
    let first = await_page(&world, 10249, "/metrics", &[passes]);
    for name in [
        "sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"} 1",
        "sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} 1",
        "sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 0",
        "sync_full_proxy_rules_duration_seconds_bucket{ip_family=\"IPv6\",le=\"16.384\"} 1",
        "sync_proxy_rules_service_changes_pending 0",
        "sync_proxy_rules_service_changes_total ",
        "sync_proxy_rules_endpoint_changes_pending 0",
        "sync_proxy_rules_endpoint_changes_total ",
        "network_programming_duration_seconds_count{ip_family=\"IPv4\"} 0",
        "network_programming_duration_seconds_bucket{ip_family=\"IPv6\",le=\"0\"} 0",
        "network_programming_duration_seconds_bucket{ip_family=\"IPv6\",le=\"0.25\"} 0",
        "network_programming_duration_seconds_bucket{ip_family=\"IPv6\",le=\"300\"} 0",
        "proxy_healthz_total{code=\"200\"} ",
        "proxy_livez_total{code=\"503\"} ",
        "sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"external\"}",
        "sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"}",
    ] {
        assert!(first.contains(&format!("\nkubeproxy_{name}")), "{name}: {first}");
    }
    world.apply(
        "zz-late.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: default}\n\
         spec: {clusterIP: 10.96.0.77, ports: [{port: 80}]}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: late-1\n  \
         namespace: default\n  labels: {kubernetes.io/service-name: late}\n  annotations: \
         {endpoints.kubernetes.io/last-change-trigger-time: \"2026-01-01T00:00:00Z\"}\n\
         addressType: IPv4\nports: [{port: 8080}]\nendpoints: [{addresses: [10.1.0.1]}]\n",
    );
    let programming = "kubeproxy_network_programming_duration_seconds";
    let count = format!("{programming}_count{{ip_family=\"IPv4\"}} 1");
    let late = await_page(&world, 10249, "/metrics", &[&count]);
    let old = format!("{programming}_bucket{{ip_family=\"IPv4\",le=\"300\"}} 0");
    assert!(late.contains(&old), "it happened long ago: {late}");
    let partial = "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1";
    assert!(late.contains(partial), "{late}");
}

#[test]
fn connection_tracking_is_set_in_the_nodes_namespace_and_follows_the_file() {
    let world = World::with_pods(0);
    let value = |name: &str| {
        let file = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        at_node(&world, "cat", &[&file], "").trim().to_owned()
    };
    let here = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait");
    let file = configure(&world, "conntrack: {udpTimeout: 35s, tcpBeLiberal: true}\n");
    let agent = agent_with(&world, &["--kube-proxy-config", &file.display().to_string()]);
    agent.await_line(&["connection tracking:", "tcp_timeout_close_wait: 60 -> 3600"]);
    assert_eq!(value("tcp_timeout_close_wait"), "3600");
    assert_eq!(value("tcp_timeout_established"), "86400");
    assert_eq!(value("tcp_be_liberal"), "1");
    assert_eq!(value("udp_timeout"), "35");
    configure(&world, "conntrack: {udpTimeout: 40s}\n");
    agent.await_line(&["connection tracking:", "udp_timeout: 35 -> 40"]);
    assert_eq!(value("udp_timeout"), "40");
    let after = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait");
    assert_eq!(here.ok(), after.ok(), "another namespace keeps its own");
}

#[test]
fn sysctls_that_cannot_be_written_are_one_warning_with_the_cure() {
    let world = World::with_pods(0);
    let empty = world.root().join("no-sysctls");
    fs::create_dir(&empty).expect("writable");
    let agent = agent_with(&world, &["--sysctl-root", &empty.display().to_string()]);
    let line = agent.await_line(&["WARN", "nf_conntrack_max", "close_wait", "--sysctl-root"]);
    agent.await_ready(&world);
    assert_eq!(agent.lines_with(&["--sysctl-root is not"]).len(), 1, "{line}");
}

/// As runc and the chart arrange it: /proc/sys read-only, the node's /proc/sys/net elsewhere, and three
/// capabilities.
#[test]
fn in_a_container_connection_tracking_is_set_through_the_mount_beside_proc() {
    const CONTAINER: &str = "mkdir -p $0/net && mount --bind /proc/sys/net $0/net && \
        mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && \
        exec setpriv --bounding-set=-all,+net_admin,+bpf,+perfmon \"$@\"";
    let world = World::with_pods(0);
    let sysctls = world.root().join("sysctl").display().to_string();
    let manifests = world.manifests().display().to_string();
    let start = |root: &str| {
        let mut command = world.command("node", "unshare");
        command.args(["--mount", "sh", "-c", CONTAINER, &sysctls, FAIRLEAD, "agent"]);
        command.args(PROXY_ONLY).args(["--manifests", &manifests, "--sysctl-root", root]);
        agent::spawn(command.arg("--bpffs").arg(world.bpffs()))
    };
    let line = "tcp_timeout_close_wait: 60 -> 3600";
    let agent = start("/proc/sys");
    agent.await_line(&["WARN", "Read-only file system", "name its parent with --sysctl-root"]);
    assert!(agent.lines_with(&[line]).is_empty(), "{}", agent.log());
    agent.kill();
    start(&sysctls).await_line(&["connection tracking:", line]);
}

#[test]
fn with_a_name_services_of_that_name_are_served_and_others_left_alone() {
    let world = World::with_pods(1);
    let pod = world.pods()[0].v4;
    let service = |name: &str, ip: &str, label: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, labels: \
             {{{label}}}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, \
             namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [{pod}]}}]\n---\n"
        )
    };
    let label = "service.kubernetes.io/service-proxy-name: edge";
    let named = service("named", "10.96.0.81", label);
    let other = service("other", "10.96.0.82", "service.kubernetes.io/service-proxy-name: x");
    world.apply("zz-named.yaml", &(named + &other + &service("plain", "10.96.0.83", "")));
    let agent = agent_with(&world, &["--proxy-name", "edge"]);
    agent.await_ready(&world);
    let dump =
        at_node(&world, FAIRLEAD, &["dump", "--bpffs", &world.bpffs().display().to_string()], "");
    let leads = |ip: &str| dump.lines().any(|line| line.contains(&format!("{ip}:80")));
    assert!(leads("10.96.0.81"), "{dump}");
    assert!(!leads("10.96.0.82") && !leads("10.96.0.83"), "{dump}");
}

const LEFT: &str = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
    :KUBE-POSTROUTING - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:MINE - [0:0]\n\
    -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
    -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
    -A POSTROUTING -j KUBE-POSTROUTING\n-A POSTROUTING -o nowhere -j MASQUERADE\n\
    -A PREROUTING -j MINE\n-A KUBE-SERVICES -p tcp --dport 80 -j KUBE-SVC-A\n\
    -A KUBE-SVC-A -j KUBE-MARK-MASQ\n-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\nCOMMIT\n\
    *filter\n:KUBE-FORWARD - [0:0]\n:KUBE-FIREWALL - [0:0]\n-A FORWARD -j KUBE-FORWARD\n\
    -A INPUT -j KUBE-FIREWALL\n-A KUBE-FORWARD -j ACCEPT\nCOMMIT\n";

#[test]
fn kube_proxys_leftovers_go_and_nobody_elses() {
    let world = World::with_pods(0);
    let tools = ["iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"];
    for tool in tools {
        at_node(&world, &format!("{tool}-restore"), &["--noflush"], LEFT);
    }
    let tables = "add table ip kube-proxy\nadd chain ip kube-proxy services\nadd table ip6 kube-proxy\n\
                  add table inet mine\nadd chain inet mine kube-proxy\n";
    at_node(&world, "nft", &["-f", "-"], tables);

    let said = at_node(&world, FAIRLEAD, &["cleanup", "--kube-proxy"], "");
    for part in ["nftables table ip kube-proxy", "nftables table ip6 kube-proxy"] {
        assert!(said.contains(&format!("removed {part}\n")), "{said}");
    }
    for tool in tools {
        let nat = format!(
            "removed {tool} nat: 3 jumps, 4 chains: KUBE-MARK-MASQ, KUBE-POSTROUTING, \
             KUBE-SERVICES, KUBE-SVC-A\n"
        );
        let filter = format!("removed {tool} filter: 1 jump, 1 chain: KUBE-FORWARD\n");
        assert!(said.contains(&nat) && said.contains(&filter), "{said}");
        let left = at_node(&world, &format!("{tool}-save"), &[], "");
        let left: Vec<_> = left.lines().filter(|line| line.contains("KUBE-")).collect();
        let expected =
            [":KUBE-KUBELET-CANARY - [0:0]", ":KUBE-FIREWALL - [0:0]", "-A INPUT -j KUBE-FIREWALL"];
        assert!(left.len() == 3 && expected.iter().all(|line| left.contains(line)), "{left:?}");
        let kept = at_node(&world, &format!("{tool}-save"), &[], "");
        for line in ["-A PREROUTING -j MINE", "-A POSTROUTING -o nowhere -j MASQUERADE"] {
            assert!(kept.contains(line), "{tool}: {kept}");
        }
    }
    let tables = at_node(&world, "nft", &["list", "tables"], "");
    assert!(tables.contains("table inet mine") && !tables.contains(" kube-proxy"), "{tables}");

    let again = at_node(&world, FAIRLEAD, &["cleanup", "--kube-proxy"], "");
    assert_eq!(again, "nothing of kube-proxy's is here\n");
}

/// A directory that is all of PATH: nft and ip as they are, and `stubs` with their scripts.
fn tools(world: &World, stubs: &[(&str, &str)]) -> PathBuf {
    let folder = world.root().join(format!("tools-{}", stubs.len()));
    fs::create_dir_all(&folder).expect("writable");
    let path = std::env::var_os("PATH").expect("set");
    for tool in ["nft", "ip"] {
        let found = std::env::split_paths(&path).map(|at| at.join(tool)).find(|at| at.exists());
        let link = folder.join(tool);
        if !link.exists() {
            symlink(found.expect("installed"), link).expect("writable");
        }
    }
    for (name, script) in stubs {
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\ncase $1 in\n{script}\nesac\n")).expect("writable");
        fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("ours");
    }
    folder
}

/// Without ipvsadm the device went, and with it the only sign of whose the virtual servers were that stayed.
#[test]
fn what_cannot_go_keeps_nothing_else_and_the_device_stays_as_long_as_its_virtual_servers() {
    const SETS: &str = "list) echo KUBE-CLUSTER-IP; echo KUBE-LOOP-BACK; echo MINE;;\n\
        destroy) [ $2 != KUBE-CLUSTER-IP ] || { echo it is in use >&2; exit 1; };;";
    const SAVE: &str = "--save) echo '-A -t 10.96.0.1:443 -s rr'; echo '-A -u 10.96.0.1:53 -s rr'; \
        echo '-A -t 192.0.2.9:80 -s wlc';;";
    let world = World::with_pods(0);
    for args in [
        &["link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "not-ipvs0"][..],
        &["address", "add", "10.96.0.1/32", "dev", "kube-ipvs0"],
    ] {
        at_node(&world, "ip", args, "");
    }
    let stuck = format!(
        "{SAVE}\n--delete-service) [ $3 != 10.96.0.1:443 ] || {{ echo busy >&2; exit 1; }};;"
    );
    let sets_fail = "ipset destroy KUBE-CLUSTER-IP: it is in use";
    let sets = "removed 1 ipset: KUBE-LOOP-BACK\n";
    let one = format!("{sets}removed 1 virtual server: 10.96.0.1:53\n");
    let all = format!(
        "{sets}removed 2 virtual servers: 10.96.0.1:443, 10.96.0.1:53\nremoved device kube-ipvs0\n"
    );
    for (ipvsadm, removed, said, stays) in [
        (None, sets, "ipvsadm is not installed: virtual servers of kube-proxy stay, and so", true),
        (Some(stuck.as_str()), one.as_str(), "--delete-service -t 10.96.0.1:443: busy", true),
        (Some(SAVE), all.as_str(), sets_fail, false),
    ] {
        let ipvsadm = ipvsadm.map(|script| ("ipvsadm", script));
        let stubs: Vec<_> = ipvsadm.into_iter().chain([("ipset", SETS)]).collect();
        let mut command = world.command("node", FAIRLEAD);
        command.args(["cleanup", "--kube-proxy"]).env("PATH", tools(&world, &stubs));
        let output = command.output().expect("it starts");
        assert!(!output.status.success(), "a set stays");
        assert_eq!(String::from_utf8_lossy(&output.stdout), removed);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(said) && error.contains(sets_fail), "{error}");
        let devices = at_node(&world, "ip", &["-o", "link"], "");
        assert_eq!(devices.contains("kube-ipvs0"), stays, "{devices}");
    }
}

#[test]
fn without_tools_cleanup_says_so() {
    let world = World::with_pods(0);
    let mut command = world.command("node", FAIRLEAD);
    let output = command.args(["cleanup", "--kube-proxy"]).env("PATH", "/nonexistent").output();
    let output = output.expect("it starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("install nftables and iptables"), "{said}");
}
