//! Beside a proxy that works by netfilter, as kube-proxy does: what it has begun it goes on with.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytemuck::Zeroable as _;
use fairlead_ebpf::abi::{Settings, TCP};
use fairlead_proxy::{Devices, Kernel, KernelOptions, node};
use fairlead_state::Store;
use socket2::{Domain, Socket, Type};
use support::{
    services::{address, node_port, put, unspecified},
    world::{Pod, load_rules, world},
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
