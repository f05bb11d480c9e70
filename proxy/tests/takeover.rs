//! Beside a proxy that works by netfilter, as kube-proxy does: what it has begun it goes on with.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use bytemuck::Zeroable as _;
use fairlead_ebpf::abi::{Settings, TCP, UDP};
use fairlead_proxy::{Devices, Kernel, KernelOptions, node};
use fairlead_state::Store;
use socket2::{Domain, Socket, Type};
use support::{
    services::{address, frontend, node_port, put, serve, unspecified},
    world::{Pod, load_rules, run, world},
};

mod support {
    pub(crate) mod services;
    pub(crate) mod world;
}

const DEADLINE: Duration = Duration::from_secs(10);
const NODE_PORT: u16 = 30080;
/// The port netfilter gave a connection, from among all there are (`masquerade fully-random`).
const GIVEN: u16 = 20_000;

/// Answers each line with the client's address as it sees it.
fn mirror(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let Ok(client) = stream.peer_addr() else { return };
                let mut writer = stream.try_clone().unwrap();
                for _ in BufReader::new(stream).lines().map_while(Result::ok) {
                    if writeln!(writer, "{client}").is_err() {
                        return;
                    }
                }
            });
        }
    });
    at
}

/// Who a [`mirror`] sees at the other end.
fn seen(stream: &TcpStream) -> SocketAddr {
    let mut writer = stream;
    writeln!(writer, "?").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().parse().unwrap()
}

/// A client at a port of its own, which breaks its connection off when it is done.
fn dial(from: u16, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(unspecified(to.ip()), from).into()).unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect_timeout(&to.into(), DEADLINE).unwrap();
    socket.into()
}

/// What kube-proxy's rules do with a NodePort, but for the port, which they leave to chance.
fn translate(family: &str, node: IpAddr, server: SocketAddr) {
    let port = server.port();
    load_rules(&format!(
        "table {family} kube-proxy {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                {family} daddr {node} tcp dport {NODE_PORT} dnat to {server}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                tcp dport {port} ct status dnat masquerade to :{GIVEN}
            }}
        }}"
    ));
}

/// Two ports of the client's for whose connections [`GIVEN`] is the first choice.
fn rivals(client: &Pod, is_ipv4: bool, options: &KernelOptions) -> [u16; 2] {
    let (first, last) = (*options.snat_ports.start(), *options.snat_ports.end());
    let settings = Settings { snat_port_first: first, snat_port_last: last, ..Settings::zeroed() };
    let own = address(client.own_address(is_ipv4));
    let mut ports = (first..=u16::MAX)
        .filter(|port| settings.snat_port_of(&own, port.to_be_bytes()) == GIVEN.to_be_bytes());
    [ports.next().unwrap(), ports.next().unwrap()]
}

/// On the wire the two were one: the backend answered the newcomer's SYN as a part of the old
/// connection, and the newcomer's client ended that.
#[test]
fn a_new_connection_never_gets_the_port_of_one_that_kube_proxy_has_begun() {
    world("a_new_connection_never_gets_the_port_of_one_that_kube_proxy_has_begun", |world| {
        let [client, backend] = [1, 2].map(|number| world.pod(number));
        world.forward();
        let families = [("ip", true), ("ip6", false)];
        let servers = families.map(|(family, is_ipv4)| {
            let (node, ip) = (backend.node_address(is_ipv4), backend.own_address(is_ipv4));
            let server = backend.inside(|| mirror(ip));
            translate(family, node, server);
            (server, SocketAddr::new(node, NODE_PORT), SocketAddr::new(node, GIVEN))
        });
        let old = servers.map(|(_, to, given)| {
            let old = client.inside(|| dial(0, to));
            assert_eq!(seen(&old), given, "by netfilter");
            old
        });

        let devices = Devices::List(vec![client.device(), backend.device()]);
        let options = KernelOptions { devices, ..world.options() };
        let kernel = Kernel::open(&options).unwrap();
        let mut maps = kernel.maps().unwrap();
        for ((server, ..), (set, (_, is_ipv4))) in servers.iter().zip((1..).zip(families)) {
            put(&mut maps, node_port(is_ipv4, NODE_PORT, TCP), set, &[(*server, 0)]);
        }
        let (_store, snapshots) = Store::new([]);
        node::prepare(&kernel, &snapshots, "node").unwrap();

        for (old, ((_, is_ipv4), (_, to, given))) in
            old.into_iter().zip(families.into_iter().zip(servers))
        {
            let [first, second] = rivals(&client, is_ipv4, &options);
            let new = client.inside(|| dial(first, to));
            for _ in 0..3 {
                assert_eq!(seen(&old), given, "it goes on");
                let by = seen(&new);
                assert_eq!(by.ip(), given.ip(), "by the node");
                assert_ne!(by.port(), GIVEN, "of two connections to one backend");
            }
            // Ended, it makes room: nothing is kept of it.
            drop(old);
            let begun = Instant::now();
            while client.inside(|| seen(&dial(second, to))) != given {
                assert!(begun.elapsed() < DEADLINE, "the port is never free again");
                thread::park_timeout(Duration::from_millis(50));
            }
            assert_eq!(seen(&new).ip(), given.ip(), "nor is the newcomer disturbed");
        }
        let drops = kernel.drops().unwrap();
        assert!(drops.values().all(|count| *count == 0), "{drops:?}");
    });
}

/// What kube-proxy's rules do with the ClusterIP of name servers. Beside it a network plugin translates what
/// leaves the cluster, and goes on doing so.
fn translate_questions(family: &str, service: SocketAddr, server: SocketAddr) {
    let (ip, port) = (service.ip(), service.port());
    load_rules(&format!(
        "table {family} kube-proxy {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                {family} daddr {ip} udp dport {port} dnat to {server}
            }}
        }}
        table {family} plugin {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                oifname \"elsewhere\" masquerade
            }}
        }}"
    ));
}

/// Connected, as resolvers' sockets are: it hears nobody but whom it asks.
fn resolver(from: u16, to: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None).unwrap();
    if to.is_ipv6() {
        // IPv4 has the same ports for itself.
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&SocketAddr::new(unspecified(to.ip()), from).into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn assert_answered(socket: &UdpSocket, when: &str) {
    let (from, to) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
    socket.send(b"?").unwrap();
    assert!(socket.recv(&mut [0; 16]).is_ok(), "{when}: {from} asks {to} in vain");
}

/// To netfilter a question is another flow than the one before from the same port: that went to the Service,
/// this goes to its endpoint, and replies to both look alike.
#[test]
fn questions_from_ports_that_kube_proxy_knows_are_answered_before_and_after_its_rules_go() {
    let test =
        "questions_from_ports_that_kube_proxy_knows_are_answered_before_and_after_its_rules_go";
    world(test, |world| {
        let [client, backend] = [1, 2].map(|number| world.pod(number));
        world.forward();
        let services = [("ip", true, "10.96.0.10:53"), ("ip6", false, "[fd00:96::10]:53")];
        let kernel = Kernel::open(&world.options()).unwrap();
        let mut maps = kernel.maps().unwrap();
        let begun = services.map(|(family, is_ipv4, service)| {
            let ip = backend.own_address(is_ipv4);
            let server = backend.inside(|| serve(UDP, ip, "an answer"));
            let to: SocketAddr = service.parse().unwrap();
            translate_questions(family, to, server);
            let set = if is_ipv4 { 1 } else { 2 };
            put(&mut maps, frontend(service, UDP), set, &[(server, 0)]);
            let [kept, closed] = [5001, 5002].map(|port| client.inside(|| resolver(port, to)));
            [&kept, &closed].into_iter().for_each(|socket| assert_answered(socket, "kube-proxy"));
            (to, kept)
        });

        let (_store, snapshots) = Store::new([]);
        node::prepare(&kernel, &snapshots, "node").unwrap();
        kernel.attach().unwrap();
        let all = begun.map(|(to, kept)| {
            let [again, new] = [5002, 5003].map(|port| client.inside(|| resolver(port, to)));
            [kept, again, new]
        });
        let ask = |when| all.iter().flatten().for_each(|socket| assert_answered(socket, when));
        ask("both");
        for family in ["ip", "ip6"] {
            run(&format!("nft delete table {family} kube-proxy"));
        }
        ask("Fairlead alone");
        let drops = kernel.drops().unwrap();
        assert!(drops.values().all(|count| *count == 0), "{drops:?}");
    });
}
