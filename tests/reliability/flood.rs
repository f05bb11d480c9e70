//! A million flows that are never answered.

use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    process,
    support::world::{PROBE, World},
    traffic::{CLUSTER_IP, NODE_PORT, Traffic, await_good},
};

const FLOWS: u32 = 1_000_000;
/// Of 1024 to 65,535: each client sends from so many ports.
const PORTS: u32 = 64;
/// What an agent may grow by meanwhile.
const GROWTH_KIB_MAX: f64 = 8.0 * 1024.0;

/// A SYN to the NodePort from client and port number `n`, addresses that nobody has (RFC 2544).
fn syn(n: u32, to: SocketAddrV4) -> [u8; 40] {
    let from = Ipv4Addr::from(0xc612_0000 + n / PORTS);
    let [.., high, low] = (1024 + n % PORTS).to_be_bytes();
    let mut packet = [0; 40];
    let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
    // The kernel fills in checksum and identification of the IPv4 header.
    put(0, &[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    put(12, &from.octets());
    put(16, &to.ip().octets());
    put(20, &[high, low]);
    put(22, &to.port().to_be_bytes());
    put(24, &n.to_be_bytes());
    // Five words, SYN, a window.
    put(32, &[0x50, 0x02, 0xff, 0xff]);
    let pseudo =
        packet[12..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = pseudo.sum::<u32>() + 6 + 20;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = u16::try_from(sum).expect("folded") ^ 0xffff;
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Sends them all, from a thread in the client's namespace.
fn flood(to: SocketAddrV4) -> u32 {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
    let raw = raw.expect("a raw socket");
    let address = SockAddr::from(to);
    let sent = (0..FLOWS).filter(|n| raw.send_to(&syn(*n, to), &address).is_ok()).count();
    u32::try_from(sent).expect("as many as there are")
}

/// Connections that were given a backend of `hello`.
fn opened(world: &World) -> u64 {
    let metrics = world.page(10249, "/metrics");
    let of_hello = metrics.lines().filter(|line| {
        line.starts_with("fairlead_service_connections_total{") && line.contains("\"hello\"")
    });
    let counts = of_hello.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

/// The agent's memory and what its table of connections holds stay as they are; who is connected stays
/// connected, and pods do not notice.
#[test]
fn a_million_flows_that_nobody_answers_harm_no_open_connection_and_take_no_memory() {
    let world = World::with_pods(3);
    let agent = world.agent();
    await_good(&world, PROBE, CLUSTER_IP);
    let traffic = Traffic::start(
        &world,
        [
            ("open connections by NodePort", "client", ["--url", NODE_PORT, "--streams", "50"]),
            ("open connections by ClusterIP", PROBE, ["--url", CLUSTER_IP, "--streams", "50"]),
            ("UDP by NodePort", "client", ["--url", "udp://192.168.77.2:30080", "--rate", "100"]),
        ],
    );
    let (before, opened) = (process::status_kib(agent.pid(), "VmRSS"), opened(&world));
    let client = world.runtime("client");
    let to = SocketAddrV4::new(Ipv4Addr::new(192, 168, 77, 2), 30080);
    let flooding = client.spawn(async move { flood(to) });
    let sent = client.block_on(flooding).expect("no panic");
    assert!(sent > FLOWS / 10 * 9, "only {sent} went out");
    // A flood that something before the programs took away would prove nothing.
    let met = self::opened(&world) - opened;
    assert!(met > u64::from(FLOWS / 2), "only {met} were given a backend");
    let after = process::status_kib(agent.pid(), "VmRSS");
    println!("{sent} flows; the agent's memory: {before} KiB, then {after} KiB");
    assert!(after <= before + GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
    traffic.assert_flawless();
    await_good(&world, "client", NODE_PORT);
}
