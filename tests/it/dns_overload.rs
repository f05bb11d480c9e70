//! More questions than DNS has time for: what it remembers stays bounded, and what it answers is not old.
//!
//! The agent is held up (SIGSTOP), as by others on its core or by its container's limit, so that how much is
//! past its capacity does not depend on the machine.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    common::process::status_kib,
    support::{agent::Agent, world::World},
};

const DNS_ONLY: [&str; 2] = ["--no-proxy", "--no-ingress"];
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a question may have waited (`backlog` in dns/src/fast).
const OLD: Duration = Duration::from_millis(300);
/// A client asks again after so long.
const AGAIN: Duration = Duration::from_millis(100);
/// Far more than a socket's buffer has room for.
const BURST: u32 = 20_000;
/// What as many questions as may wait for upstreams take, each with a socket: 36 KiB each in a build without
/// optimisation, and some more on a busy machine.
const WAITING_KIB_MAX: f64 = 56.0 * 1024.0;
/// What more of them may take: of each that is read from then on 150 bytes.
const GROWTH_KIB_MAX: f64 = 16.0 * 1024.0;

/// A question for an address with a number of its own.
fn question(id: u16, name: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut message = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("short"));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// A socket on the node, where the agent is.
fn on_node(world: &World, own: &'static str, server: Option<&'static str>) -> UdpSocket {
    let runtime = world.runtime("node");
    let bound = runtime.spawn(async move {
        let socket = UdpSocket::bind(own)?;
        server.map_or(Ok(()), |server| socket.connect(server))?;
        std::io::Result::Ok(socket)
    });
    let socket = runtime.block_on(bound).expect("no panic").expect("free");
    runtime.shutdown_background();
    socket
}

/// A counter of the agent, of all its reasons.
fn counted(world: &World, name: &str) -> u64 {
    let metrics = world.page(10249, "/metrics");
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '{']) {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<u64>().ok()
    });
    values.sum()
}

fn dropped(world: &World, reason: &str) -> u64 {
    counted(world, &format!("fairlead_dns_dropped_total{{reason=\"{reason}\"}}"))
}

/// Asks until there is an answer. Returns how many answers with a number below `old` came before.
fn ask(client: &UdpSocket, old: u16, id: u16) -> usize {
    client.set_read_timeout(Some(AGAIN)).expect("a socket");
    let (begun, mut answers) = (Instant::now(), 0);
    let mut buffer = [0; 512];
    loop {
        assert!(begun.elapsed() < PATIENCE, "no answer");
        client.send(&question(id, "hello.default.svc.cluster.local")).expect("sent");
        while client.recv(&mut buffer).is_ok() {
            match u16::from_be_bytes([buffer[0], buffer[1]]) {
                answered if answered == id => return answers,
                answered => answers += usize::from(answered < old),
            }
        }
    }
}

/// Asks for names there are, names there are not, and names nobody answers for, with numbers from 1000 on.
fn burst(client: &UdpSocket, turn: u32) {
    for number in 0..BURST {
        let of_all = turn * BURST + number;
        let name = match number % 3 {
            0 => "hello.default.svc.cluster.local".to_owned(),
            1 => format!("nope-{of_all}.default.svc.cluster.local"),
            _ => format!("slow-{of_all}.example"),
        };
        // A sender without room for more waits; nobody refuses.
        let id = 1000 + u16::try_from(number % 10_000).expect("small");
        client.send(&question(id, &name)).expect("sent");
    }
}

fn held_up(agent: &Agent, meanwhile: impl FnOnce()) {
    agent.signal(Signal::SIGSTOP);
    meanwhile();
    agent.signal(Signal::SIGCONT);
}

#[test]
fn three_times_what_it_serves_takes_no_memory() {
    /// Of four bursts one finds the agent at work.
    const ROUNDS: u32 = 8;
    let world = World::with_pods(1);
    // Takes questions and answers none.
    let _silent = on_node(&world, "127.0.0.9:5300", None);
    let agent = world.agent_with(&[&DNS_ONLY[..], &["--upstream", "127.0.0.9:5300"]].concat());
    agent.await_ready(&world);
    let client = on_node(&world, "127.0.0.1:0", Some("127.0.0.1:53"));
    for _ in 0..1000 {
        ask(&client, 0, 1);
    }
    let before = status_kib(agent.pid(), "VmRSS");
    // From here on, the highest (proc_pid_clear_refs(5)).
    std::fs::write(format!("/proc/{}/clear_refs", agent.pid()), "5").expect("it is ours");
    let mut settled = before;
    for round in 0..ROUNDS {
        held_up(&agent, || (0..3).for_each(|turn| burst(&client, 4 * round + turn)));
        burst(&client, 4 * round + 3);
        ask(&client, 0, 1);
        // Places and allocators are full by then.
        if round == ROUNDS / 4 {
            settled = status_kib(agent.pid(), "VmHWM");
            assert!(counted(&world, "fairlead_dns_crowded_total") > 0, "no more can wait");
        }
    }
    let peak = status_kib(agent.pid(), "VmHWM");
    let (sent, read) =
        (4 * u64::from(ROUNDS * BURST), counted(&world, "fairlead_dns_udp_queries_total"));
    assert!(read * 3 <= sent, "{read} of {sent} were read: no overload");
    assert!(dropped(&world, "queue_full") >= sent / 2, "each is counted");
    let memory = format!("{before} KiB, {settled} KiB before most, {peak} KiB at most");
    assert!(settled <= before + WAITING_KIB_MAX, "{memory}");
    assert!(peak <= settled + GROWTH_KIB_MAX, "{memory}");
}

#[test]
fn past_its_capacity_what_is_answered_was_asked_lately() {
    const BATCH: u16 = 100;
    let world = World::with_pods(1);
    let agent = world.agent_with(&DNS_ONLY);
    agent.await_ready(&world);
    let client = on_node(&world, "127.0.0.1:0", Some("127.0.0.1:53"));
    let begun = Instant::now();
    while dropped(&world, "queue_full") == 0 {
        assert!(begun.elapsed() < PATIENCE, "nothing is lost");
        held_up(&agent, || burst(&client, 0));
        ask(&client, 0, 999);
    }
    // The kernel takes a moment until it notes times of arrival.
    for id in BATCH.. {
        assert!(begun.elapsed() < PATIENCE, "questions that had waited are answered");
        let before = dropped(&world, "too_late");
        held_up(&agent, || {
            for old in 0..BATCH {
                let asked = question(old, "hello.default.svc.cluster.local");
                client.send(&asked).expect("sent");
            }
            // Time itself is what is waited for.
            thread::park_timeout(OLD);
        });
        if ask(&client, BATCH, id) == 0 {
            let late = dropped(&world, "too_late") - before;
            assert!(late >= u64::from(BATCH), "each is counted, not {late} of {BATCH}");
            break;
        }
    }
}
