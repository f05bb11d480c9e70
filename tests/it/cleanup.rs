//! What `fairlead cleanup` takes away, and when.

use serde_json::{Value, json};

use super::support::world::{FAIRLEAD, PROBE, World};

#[test]
fn draining_keeps_open_connections_from_outside_and_takes_no_new_ones() {
    let world = World::with_pods(2);
    let agent = world.agent();
    let (cluster_ip, node_port) = ("http://10.96.0.20", "http://192.168.77.2:30080");
    let inside = world.steady(PROBE, &["--url", cluster_ip, "--streams", "5"]);
    let outside = world.steady("client", &["--url", node_port, "--streams", "5"]);
    agent.kill();

    let mut cleanup = world.command("node", FAIRLEAD);
    cleanup.arg("cleanup").arg("--bpffs").arg(world.bpffs()).args(["--drain", "3"]);
    let mut cleanup = cleanup.spawn().expect("it starts");
    world.await_failure("client", node_port);
    assert_eq!(cleanup.try_wait().expect("it is ours"), None, "it drains still");
    outside.stop().assert_flawless("open connections by NodePort, while draining");
    assert!(cleanup.wait().expect("it is ours").success());

    // Sockets of the node have had the backend's address from the start.
    inside.stop().assert_flawless("open connections by ClusterIP, after it");
}

#[test]
fn what_was_taken_away_is_told_in_each_form() {
    let world = World::with_pods(0);
    let bpffs = world.bpffs().display().to_string();
    let cleanup = |format: &str| {
        let mut command = world.command("node", FAIRLEAD);
        let output = command.args(["cleanup", "--bpffs", &bpffs, "-o", format]).output();
        let output = output.expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = format!("removed fairlead below {bpffs}");
    for (format, there, nothing) in [
        ("table", format!("{text}\n"), "nothing of Fairlead's is here\n".to_owned()),
        (
            "json",
            json!({"removed": [{"place": bpffs, "names": ["fairlead"], "text": text}],
                   "notes": [], "failed": []})
            .to_string(),
            json!({"removed": [], "notes": [], "failed": []}).to_string(),
        ),
    ] {
        world.agent().kill();
        for expected in [there, nothing] {
            let said = cleanup(format);
            match serde_json::from_str::<Value>(&expected) {
                Ok(expected) => assert_eq!(said.parse::<Value>().expect("JSON"), expected),
                Err(_) => assert_eq!(said, expected),
            }
        }
    }
}

#[test]
fn draining_where_nothing_is_does_not_wait() {
    let world = World::with_pods(0);
    let mut cleanup = world.command("node", FAIRLEAD);
    cleanup.arg("cleanup").arg("--bpffs").arg(world.bpffs()).args(["--drain", "3600"]);
    assert!(cleanup.status().expect("it starts").success());
}
