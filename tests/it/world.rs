//! The test bed itself: what tests and demo rely on.

use super::support::world::{FAIRLEAD, PROBE, World};

#[test]
fn pods_answer_http_and_udp_on_both_families() {
    let world = World::with_pods(1);
    let pod = world.pods().first().expect("one pod");
    for url in [
        format!("http://{}:8080", pod.v4),
        format!("http://[{}]:8080", pod.v6),
        format!("udp://{}:8080", pod.v4),
        format!("udp://[{}]:8080", pod.v6),
    ] {
        let report = world.load(PROBE, &["--url", &url, "--count", "1"]);
        assert_eq!((report.ok(), report.answered_by()), (1, vec![pod.name.as_str()]), "{url}");
    }
}

#[test]
fn pods_of_another_node_are_reached_by_the_uplink_alone() {
    let world = World::on_two_nodes(1, 1);
    let nodes: Vec<&str> = world.pods().iter().map(|pod| pod.node.as_str()).collect();
    assert_eq!(nodes, ["node1", "node2"]);
    let pod = world.pods().last().expect("two pods");
    let urls = [
        format!("http://{}:8080", pod.v4),
        format!("http://[{}]:8080", pod.v6),
        format!("udp://{}:8080", pod.v4),
        format!("udp://[{}]:8080", pod.v6),
    ];
    for url in &urls {
        let report = world.load(PROBE, &["--url", url, "--count", "1"]);
        assert_eq!((report.ok(), report.answered_by()), (1, vec![pod.name.as_str()]), "{url}");
    }
    let cut = world.command("node", "ip").args(["link", "set", "eth0", "down"]).status();
    assert!(cut.expect("ip starts").success());
    for url in &urls {
        assert_eq!(world.load(PROBE, &["--url", url, "--count", "1"]).ok(), 0, "{url}");
    }
}

#[test]
fn a_killed_world_is_swept_by_the_next_one() {
    let root = World::with_pods(1).crash();
    let next = World::with_pods(0);
    assert!(!root.exists(), "{} stayed", root.display());
    let own = next.cgroup().parent().expect("a parent");
    let gone = own.with_file_name(root.file_name().expect("a name"));
    let cgroup = next.command("node", "ls").arg(gone).output().expect("ls starts");
    assert!(!cgroup.status.success(), "its cgroup stayed");
}

#[test]
fn a_terminated_pod_takes_connections_until_it_has_drained() {
    let world = World::with_pods(0);
    let args = ["world", "pod", "--name", "leaving", "--quiet-ms", "700"];
    let mut command = world.command(PROBE, FAIRLEAD);
    let mut pod = command.args(args).stdout(std::process::Stdio::null()).spawn().expect("a pod");
    let url = "http://127.0.0.1:8080";
    assert_eq!(world.await_answer(PROBE, url).ok(), 1);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pod.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    assert_eq!(world.load(PROBE, &["--url", url, "--count", "1"]).ok(), 1, "while draining");
    assert!(pod.wait().expect("it ran").success(), "drained");
    let after = world.load(PROBE, &["--url", url, "--count", "1"]);
    assert_eq!(after.kinds(), ["refused"]);
}
