//! `fairlead trace --live`: real connections, told as they are made, and only while somebody follows.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::support::{
    agent::{self, Agent},
    world::{FAIRLEAD, World, comes_true},
};

/// How a command that follows is left alone.
type Leave = fn(&mut Child);

const PATIENCE: Duration = Duration::from_secs(20);
const HELLO: &str = "http://10.96.0.20";
const EMPTY: &str = "http://10.96.0.30";
const NODE_PORT: &str = "http://192.168.77.2:30080";

fn socket(world: &World) -> PathBuf {
    world.root().join("admin.sock")
}

/// An agent whose packet programs are attached, too.
fn agent(world: &World) -> Agent {
    let flag = format!("--admin-socket={}", socket(world).display());
    let agent = world.agent_with(&[&flag, "--no-dns", "--no-ingress"]);
    agent.await_ready(world);
    agent.await_line(&["following the node"]);
    agent
}

/// Those of an agent that is not started as usual.
fn flags<'a>(command: &'a mut Command, world: &World) -> &'a mut Command {
    command.args(["--node-name", "node1", "--no-dns", "--no-ingress"]);
    command.arg("--manifests").arg(world.manifests()).arg("--admin-socket").arg(socket(world));
    command.arg("--cgroup-root").arg(world.cgroup()).arg("--bpffs").arg(world.bpffs())
}

fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.command("node", FAIRLEAD);
    command.args(["trace", "--live", "--admin-socket"]).arg(socket(world)).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Nothing that is dialled after this is missed.
fn start(world: &World, args: &[&str]) -> Child {
    let mut command = command(world, args).spawn().expect("it starts");
    let mut said = BufReader::new(command.stderr.take().expect("piped")).lines();
    let first = said.next().and_then(Result::ok).unwrap_or_default();
    assert!(first.starts_with("following new connections"), "{first}");
    thread::spawn(move || said.for_each(drop));
    command
}

/// A command that follows; killed when dropped.
struct Follower {
    command: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(world: &World, args: &[&str]) -> Self {
        let mut command = start(world, args);
        let (sender, lines) = channel();
        let told = BufReader::new(command.stdout.take().expect("piped")).lines();
        thread::spawn(move || {
            told.map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { command, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("something is told")
    }

    fn event(&self) -> Value {
        let line = self.next();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn await_end(&mut self) -> ExitStatus {
        self.command.wait().expect("it ran")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.command.kill());
        drop(self.command.wait());
    }
}

fn dial(world: &World, place: &str, url: &str) {
    world.load(place, &["--url", url, "--count", "1"]);
}

#[test]
fn real_connections_are_told_as_they_are_made_with_client_service_and_endpoint_or_why_none() {
    let world = World::with_pods(1);
    let agent = agent(&world);
    dial(&world, "node", HELLO);
    let follower = Follower::start(&world, &["-o", "json"]);
    agent.await_line(&["connections are followed"]);
    let pod = world.pods().first().expect("one").clone();
    let [backend, name] = [format!("{}:8080", pod.v4), format!("default/{}", pod.name)];

    dial(&world, "node", HELLO);
    let told = follower.event();
    for (field, expected) in [
        ("at", json!("socket")),
        ("client", json!("192.168.77.2")),
        ("client_name", json!("node1")),
        ("protocol", json!("tcp")),
        ("frontend", json!("10.96.0.20:80")),
        ("service", json!("default/hello")),
        ("verdict", json!("served")),
        ("backend", json!(backend)),
        ("pod", json!(name)),
        ("reason", Value::Null),
    ] {
        assert_eq!(told[field], expected, "{field}: {told:#}");
    }
    assert!(told["pid"].is_u64() && told["process"].is_string(), "{told:#}");
    assert!(told["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{told:#}");

    dial(&world, "client", NODE_PORT);
    let told = follower.event();
    let client = told["client"].as_str().unwrap_or_default();
    assert!(client.starts_with("192.168.77.100:"), "{told:#}");
    assert_eq!([&told["at"], &told["frontend"]], ["uplink", "192.168.77.2:30080"], "{told:#}");
    assert_eq!([&told["service"], &told["backend"]], ["default/hello", backend.as_str()]);
    assert_eq!(told["pid"], Value::Null);

    dial(&world, "node", EMPTY);
    let told = follower.event();
    assert_eq!([&told["verdict"], &told["reason"]], ["reject", "no_backends"], "{told:#}");
    assert_eq!(told["service"], "default/empty");
    assert_eq!(told["why"], "the Service has no endpoints for this port");
}

#[test]
fn one_follows_a_name_or_a_client_and_others_follow_theirs_meanwhile() {
    let world = World::with_pods(1);
    let _agent = agent(&world);
    let empty = Follower::start(&world, &["tcp", "empty:80"]);
    let outside = Follower::start(&world, &["--from", "192.168.77.100", "-o", "json"]);
    let all = Follower::start(&world, &["-o", "wide"]);
    dial(&world, "client", NODE_PORT);
    dial(&world, "node", EMPTY);
    let first = all.next();
    assert!(first.contains("-> tcp default/hello (192.168.77.2:30080) -> "), "{first}");
    assert!(first.contains(" 192.168.77.100:") && first.ends_with("[uplink]"), "{first}");
    let second = all.next();
    assert!(second.ends_with("refused: the Service has no endpoints for this port [socket]"));
    assert_eq!(outside.event()["frontend"], "192.168.77.2:30080");
    // The first that this one is told is the second connection.
    let refused = empty.next();
    assert!(refused.contains(" node1 (192.168.77.2) "), "{refused}");
    assert!(refused.ends_with("-> tcp default/empty (10.96.0.30:80) -> refused: the Service has no endpoints for this port"));
}

#[test]
fn the_last_follower_turns_it_off_even_by_a_kill_and_the_agents_end_is_told() {
    let world = World::with_pods(1);
    let mut agent = agent(&world);
    let killed = Follower::start(&world, &[]);
    let mut last = Follower::start(&world, &["-o", "json"]);
    drop(killed);
    // Whoever is gone is met by the first; the second is told all the same.
    for _ in 0..2 {
        dial(&world, "node", HELLO);
        assert_eq!(last.event()["service"], "default/hello", "the other goes on");
    }
    assert!(agent.lines_with(&["nobody follows connections"]).is_empty());

    // Those who only ask find room, however many follow.
    let follow = || {
        let mut stream = UnixStream::connect(socket(&world)).expect("somebody listens");
        stream.write_all(b"GET /v1/live HTTP/1.0\r\nHost: fairlead\r\n\r\n").expect("written");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        (String::from_utf8_lossy(&head).into_owned(), stream)
    };
    let mut many = vec![];
    let is_full = comes_true(PATIENCE, || {
        let (head, stream) = follow();
        many.extend((head == "HTTP/1.0 200").then_some(stream));
        many.len() == 7
    });
    assert!(is_full, "room for {} beside one", many.len());
    assert_eq!(follow().0, "HTTP/1.0 422", "eight at a time");
    drop(many);

    agent.terminate();
    assert!(agent.await_end().success(), "{}", agent.log());
    assert_eq!(last.await_end().code(), Some(1));

    let agent = self::agent(&world);
    drop(Follower::start(&world, &[]));
    agent.await_line(&["nobody follows connections any more"]);
}

/// As the chart arranges it with `proxy.podNamespaces`: other processes are not seen, namespaces are.
#[test]
fn a_pod_is_followed_by_its_name_and_named_where_it_dials() {
    const CONTAINER: &str = "mkdir -p /run/netns && mount --rbind $0 /run/netns && exec \"$@\"";
    let world = World::with_pods(2);
    let mut command = world.command("node", "unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
    command.arg(CONTAINER).arg(world.root().join("netns")).args([FAIRLEAD, "agent"]);
    let agent = agent::spawn(flags(&mut command, &world));
    agent.await_ready(&world);
    let [first, second] = world.pods() else { panic!("two pods") };
    let name = format!("default/{}", first.name);
    let one = Follower::start(&world, &["--from", &name, "-o", "json"]);
    for place in ["node", second.name.as_str(), first.name.as_str()] {
        dial(&world, place, HELLO);
    }
    let told = one.event();
    assert_eq!([&told["at"], &told["client_name"]], ["socket", name.as_str()], "{told:#}");
    assert_eq!(told["client"], first.v4.to_string(), "{told:#}");
}

/// The chart's agent may not look into pods' network namespaces unless it is asked to.
#[test]
fn with_the_charts_rights_the_nodes_processes_are_named_and_to_follow_a_pod_names_what_it_takes() {
    let world = World::with_pods(1);
    let mut command = world.command("node", "setpriv");
    command.args(["--bounding-set=-all,+net_admin,+bpf,+perfmon", FAIRLEAD, "agent"]);
    let agent = agent::spawn(flags(&mut command, &world));
    agent.await_ready(&world);
    let pod = &world.pods().first().expect("one").name;
    let follower = Follower::start(&world, &["-o", "json"]);
    dial(&world, "node", HELLO);
    let told = follower.event();
    assert_eq!([&told["client"], &told["client_name"]], ["192.168.77.2", "node1"], "{told:#}");
    dial(&world, pod, HELLO);
    let told = follower.event();
    assert_eq!([&told["client"], &told["client_name"]], [&Value::Null, &Value::Null], "{told:#}");
    assert!(told["process"].is_string(), "{told:#}");

    let output = self::command(&world, &["--from", pod]).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("CAP_SYS_ADMIN") && error.contains("podNamespaces"), "{error}");
}

#[test]
fn it_ends_with_its_time_with_its_reader_and_with_kubectl_and_what_is_no_service_is_said_at_once() {
    let world = World::with_pods(1);
    let agent = agent(&world);
    let ways: [(&[&str], Leave); 3] = [
        (&["--for", "1s"], |_| ()),
        (&["--for", "1m"], |command| drop(command.stdout.take())),
        (&["--for", "1m", "--while-input"], |command| drop(command.stdin.take())),
    ];
    for (args, leave) in ways {
        let begun = Instant::now();
        let mut command = start(&world, args);
        leave(&mut command);
        assert!(command.wait().expect("it ran").success(), "{args:?}");
        assert!(begun.elapsed() < PATIENCE, "{args:?}");
    }
    agent.await_line(&["nobody follows connections any more"]);

    let pod = format!("{}:8080", world.pods().first().expect("one").v4);
    let output = command(&world, &["tcp", &pod]).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("no address of a Service"), "{error}");
}
