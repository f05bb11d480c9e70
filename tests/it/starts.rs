//! An agent none of whose roles can start says why as its last line, ends with 1, and leaves the
//! node as it was.

use std::net::{TcpListener, UdpSocket};

use super::support::{
    agent::{self, Agent},
    mounted::MountedBpffs,
    world::{FAIRLEAD, PROBE, World},
};

/// Something on the node that has a port.
enum Held {
    Nothing,
    Udp(&'static str),
    Tcp(&'static str),
}

impl Held {
    /// The socket, in a runtime of the node; both are gone when it is dropped.
    fn take(
        &self,
        world: &World,
    ) -> Option<(tokio::runtime::Runtime, Box<dyn std::any::Any + Send>)> {
        let runtime = world.runtime("node");
        let socket: Box<dyn std::any::Any + Send> = match *self {
            Held::Nothing => return None,
            Held::Udp(address) => {
                let bound = runtime.spawn(async move { UdpSocket::bind(address) });
                Box::new(runtime.block_on(bound).expect("no panic").expect("free"))
            }
            Held::Tcp(address) => {
                let bound = runtime.spawn(async move { TcpListener::bind(address) });
                Box::new(runtime.block_on(bound).expect("no panic").expect("free"))
            }
        };
        Some((runtime, socket))
    }
}

/// What is pinned, mounted and set up: programs and maps that are not pinned end with their process. Whether a link has its carrier
/// yet, and its address of that link alone, is the kernel's affair. What others mount is theirs: a world has a copy of it, which goes
/// when they remove the directory (`detach_mounts`).
fn traces(world: &World) -> String {
    let mut list = world.command("node", "sh");
    list.arg("-c").arg(format!(
        "find {} -mindepth 1; ip -o link | cut -d: -f2; ip -o address show scope global | cut -d' ' -f2-7; grep -F ' {}/' /proc/self/mounts | cut -d' ' -f1-3",
        world.bpffs().display(),
        world.root().display(),
    ));
    let output = list.output().expect("it starts");
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_another_test_run_mounts_and_takes_away_is_no_trace_of_an_agent() {
    let others = MountedBpffs::new();
    let world = World::with_pods(0);
    let before = traces(&world);
    assert!(before.contains(&world.bpffs().display().to_string()), "its own mounts: {before}");
    drop(others);
    assert_eq!(traces(&world), before);
}

fn ends_with_reason(mut agent: Agent, parts: &[&str]) {
    let status = agent.await_end();
    let log = agent.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("fairlead: "), "{log}");
    for part in parts {
        assert!(last.contains(part), "{part:?} is not in the last line:\n{log}");
    }
}

#[test]
fn a_single_role_that_cannot_start_ends_the_agent_with_its_reason() {
    let world = World::with_pods(0);
    let here = world.manifests().display().to_string();
    let dns: &[&str] = &["--no-proxy", "--no-ingress"];
    let ingress: &[&str] = &["--no-proxy", "--no-dns"];
    let proxy: &[&str] = &["--no-dns", "--no-ingress"];
    let mut cgroup = proxy.to_vec();
    cgroup.extend(["--cgroup-root", &here]);
    let mut bpffs = proxy.to_vec();
    bpffs.extend(["--bpffs", "/proc/nowhere"]);
    let before = traces(&world);
    for (flags, held, parts) in [
        (dns, Held::Udp("0.0.0.0:53"), ["dns", "port 53", "held by"]),
        (dns, Held::Tcp("0.0.0.0:53"), ["dns", "port 53", "held by"]),
        (ingress, Held::Tcp("0.0.0.0:80"), ["ingress", "0.0.0.0:80", "held by"]),
        (ingress, Held::Tcp("[::]:443"), ["ingress", ":443", "held by"]),
        (dns, Held::Tcp("0.0.0.0:10256"), ["--healthz-listen", "10256", "held by"]),
        (&cgroup, Held::Nothing, ["proxy", &here, "--cgroup-root"]),
        (&bpffs, Held::Nothing, ["proxy", "/proc/nowhere", "--bpffs"]),
    ] {
        let _held = held.take(&world);
        ends_with_reason(world.agent_with(flags), &parts);
        assert_eq!(traces(&world), before, "left behind by {parts:?}");
    }
}

#[test]
fn without_rights_the_proxy_alone_ends_with_the_missing_ones() {
    let world = World::with_pods(0);
    let before = traces(&world);
    let mut command = world.command("node", "setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", FAIRLEAD, "agent"]);
    command.args(["--node-name", "node1", "--no-dns", "--no-ingress", "--manifests"]);
    command.arg(world.manifests());
    command.arg("--cgroup-root").arg(world.cgroup()).arg("--bpffs").arg(world.bpffs());
    let mut agent = agent::spawn(&mut command);
    let rights = "rights to eBPF: this process lacks";
    let cure = "run as root, or grant the capabilities";
    doctors_word(&mut agent, [rights, "programs cannot be loaded or attached", cure]);
    assert_eq!(agent.lines_with(&["doctor: port"]), [""; 0], "its own ports are its own");
    ends_with_reason(agent, &["proxy", "no rights", "CAP_BPF"]);
    assert_eq!(traces(&world), before);
}

/// What the doctor found, what that means, and the cure.
fn doctors_word(agent: &mut Agent, parts: [&str; 3]) {
    let status = agent.await_end();
    assert_eq!(status.code(), Some(1), "{}", agent.log());
    let log = agent.log();
    let line =
        |parts: &[&str]| log.lines().position(|line| parts.iter().all(|part| line.contains(part)));
    let advice = line(&[&["doctor: "][..], &parts].concat());
    let advice = advice.unwrap_or_else(|| panic!("no advice with {parts:?}:\n{log}"));
    let error =
        log.lines().position(|line| line.contains("ERROR") || line.starts_with("fairlead:"));
    assert!(error.is_some_and(|error| advice < error), "before the error itself:\n{log}");
}

#[test]
fn the_doctor_is_asked_before_a_failing_start_is_told() {
    let world = World::with_pods(0);
    let flag = |name: &str| format!("stop its holder, or choose another address with {name}");
    let until = "nothing of the agent's can listen there until it is free";
    for (flags, held, parts) in [
        (
            &["--no-proxy", "--no-ingress"][..],
            Held::Udp("0.0.0.0:53"),
            ["port 53/udp: held by", until, &flag("--dns-listen")],
        ),
        (
            &["--no-proxy", "--no-dns"],
            Held::Tcp("0.0.0.0:443"),
            ["port 443/tcp: held by", until, &flag("--https-listen")],
        ),
        // Before there is a role.
        (
            &["--no-proxy", "--no-ingress"],
            Held::Tcp("0.0.0.0:10256"),
            ["port 10256/tcp: held by", until, &flag("--healthz-listen")],
        ),
        (
            &["--no-dns", "--no-ingress", "--bpffs", "/proc/nowhere"],
            Held::Nothing,
            ["BPF file system: none at", "cannot outlive the agent", "mount -t bpf bpf"],
        ),
    ] {
        let _held = held.take(&world);
        doctors_word(&mut world.agent_with(flags), parts);
    }
}

#[test]
fn bad_configuration_is_no_matter_for_the_doctor() {
    let world = World::with_pods(0);
    let flags = ["--healthz-listen", "127.0.0.1:9", "--metrics-listen", "127.0.0.1:9"];
    let mut agent = world.agent_with(&flags);
    assert_eq!(agent.await_end().code(), Some(64), "{}", agent.log());
    assert!(!agent.log().contains("doctor"), "{}", agent.log());
}

#[test]
fn a_start_that_fails_leaves_what_an_earlier_agent_serves() {
    let world = World::with_pods(1);
    let url = "http://10.96.0.20";
    let earlier = world.agent();
    assert_eq!(world.await_answer(PROBE, url).ok(), 1);
    earlier.kill();
    let here = world.manifests().display().to_string();
    let flags = ["--no-dns", "--no-ingress", "--cgroup-root", here.as_str()];
    ends_with_reason(world.agent_with(&flags), &["proxy"]);
    assert_eq!(world.await_answer(PROBE, url).ok(), 1, "Services go on without an agent");
}

#[test]
fn with_an_admin_socket_a_taken_health_port_is_waited_for() {
    let world = World::with_pods(0);
    let held = Held::Tcp("0.0.0.0:10256").take(&world);
    let socket = world.root().join("admin.sock").display().to_string();
    let agent = world.agent_with(&["--no-proxy", "--no-ingress", "--admin-socket", &socket]);
    agent.await_line(&["--healthz-listen", "10256", "held by"]);
    drop(held);
    agent.await_ready(&world);
}
