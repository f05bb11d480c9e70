//! A million flows that are never answered, in each family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    process, stats,
    support::world::{PROBE, World},
    traffic::{
        CLUSTER_IP, CLUSTER_IP_V6, NODE_PORT, NODE_PORT_UDP, NODE_PORT_UDP_V6, NODE_PORT_V6,
        Traffic, await_good, run,
    },
};

const FLOWS: u32 = 1_000_000;
/// Of 1024 to 65,535: each client sends from so many ports.
const PORTS: u32 = 64;
/// What an agent may grow by meanwhile.
const GROWTH_KIB_MAX: f64 = 8.0 * 1024.0;
/// What the kernel's maps may grow by: a reason of refusals that was not there before.
const LOCKED_GROWTH_MIB_MAX: f64 = 1.0 / 64.0;
/// Addresses that nobody has, of RFC 2544 and RFC 5180; what is said to them is lost in silence.
const LOST: &str = "ip route add blackhole 198.18.0.0/15; ip route add blackhole 2001:2::/48";
const NODE_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const PORT: u16 = 30080;

const OPEN: [(&str, &str, [&str; 4]); 4] = [
    ("open connections by NodePort", "client", ["--url", NODE_PORT, "--streams", "50"]),
    ("open connections by NodePort, IPv6", "client", ["--url", NODE_PORT_V6, "--streams", "50"]),
    ("open connections by ClusterIP", PROBE, ["--url", CLUSTER_IP, "--streams", "50"]),
    ("open connections by ClusterIP, IPv6", PROBE, ["--url", CLUSTER_IP_V6, "--streams", "50"]),
];
/// Each datagram is a new flow, asked once: where a CPU's queue overflows on the way, it is lost as the flood's packets are.
const DATAGRAMS: [&str; 2] = [NODE_PORT_UDP, NODE_PORT_UDP_V6];
/// Of a hundred datagrams.
const LOST_MAX_PERCENT: u64 = 5;

/// A SYN to the NodePort from client and port number `n`.
fn syn(n: u32, to: IpAddr) -> Vec<u8> {
    let client = n / PORTS;
    let (mut header, addresses) = match to {
        // The kernel fills in checksum and identification.
        IpAddr::V4(to) => (
            vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0],
            [Ipv4Addr::from(0xc612_0000 + client).octets(), to.octets()].concat(),
        ),
        IpAddr::V6(to) => {
            let from = Ipv6Addr::from((0x2001_0002_u128 << 96) + u128::from(client));
            (vec![0x60, 0, 0, 0, 0, 20, 6, 64], [from.octets(), to.octets()].concat())
        }
    };
    let [.., high, low] = (1024 + n % PORTS).to_be_bytes();
    // Ports, sequence number, nothing acknowledged.
    let mut tcp = [&[high, low][..], &PORT.to_be_bytes(), &n.to_be_bytes(), &[0; 4]].concat();
    // Five words, SYN, a window, no checksum yet.
    tcp.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let pairs = addresses.chunks(2).chain(tcp.chunks(2));
    let sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = sum + 6 + 20;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = u16::try_from(sum).expect("folded") ^ 0xffff;
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    header.extend(addresses);
    header.extend(tcp);
    header
}

/// Sends them all, from a thread in the client's namespace.
fn flood(to: IpAddr) -> u32 {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let raw = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
    let raw = raw.expect("a raw socket");
    // Of IPv6 the port must be the protocol or none (raw(7)).
    let address = SockAddr::from(SocketAddr::new(to, 0));
    let sent = (0..FLOWS).filter(|n| raw.send_to(&syn(*n, to), &address).is_ok()).count();
    u32::try_from(sent).expect("as many as there are")
}

/// The second column of `softnet_stat`: packets for which `net.core.netdev_max_backlog` had no room.
fn overflowed() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").expect("readable");
    let of_cpu = |line: &str| u64::from_str_radix(line.split(' ').nth(1)?, 16).ok();
    text.lines().filter_map(of_cpu).sum()
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

/// The agent's memory and the kernel's stay as they are; who is connected stays connected, and pods do
/// not notice.
#[test]
fn a_million_flows_that_nobody_answers_harm_no_open_connection_and_take_no_memory() {
    let world = World::on_two_nodes(2, 1);
    let agent = world.agent();
    run(&world, "client", LOST);
    await_good(&world, PROBE, CLUSTER_IP);
    let traffic = Traffic::start(&world, OPEN);
    let datagrams =
        DATAGRAMS.map(|url| (url, world.steady("client", &["--url", url, "--rate", "100"])));
    let overflowed_before = overflowed();
    for to in [IpAddr::from(NODE_V4), NODE_V6.into()] {
        let memory = || (process::status_kib(agent.pid(), "VmRSS"), stats::locked_mib(agent.pid()));
        let ((before, locked_before), opened) = (memory(), opened(&world));
        let client = world.runtime("client");
        let flooding = client.spawn(async move { flood(to) });
        let sent = client.block_on(flooding).expect("no panic");
        assert!(sent > FLOWS / 10 * 9, "only {sent} went out to {to}");
        // A flood that something before the programs took away would prove nothing.
        let met = self::opened(&world) - opened;
        assert!(met > u64::from(FLOWS / 2), "{to}: only {met} were given a backend");
        let (after, locked) = memory();
        println!(
            "{to}: {sent} flows, {met} with a backend; the agent's memory: {before} KiB, then \
             {after} KiB; the kernel's: {locked_before:.2} MiB, then {locked:.2} MiB"
        );
        assert!(after <= before + GROWTH_KIB_MAX, "{to}: {before} KiB, then {after} KiB");
        assert!(
            locked <= locked_before + LOCKED_GROWTH_MIB_MAX,
            "{to}: {locked_before}, then {locked} MiB"
        );
    }
    println!("packets lost in queues of CPUs: {}", overflowed() - overflowed_before);
    traffic.assert_flawless();
    for (url, steady) in datagrams {
        let report = steady.stop();
        let (good, lost) = (report.ok(), report.failed());
        println!("{url}: {good} good, {lost} lost");
        assert!(lost * 100 <= (good + lost) * LOST_MAX_PERCENT, "{url}: {good} good, {lost} lost");
    }
    await_good(&world, "client", NODE_PORT);
    await_good(&world, "client", NODE_PORT_V6);
}
