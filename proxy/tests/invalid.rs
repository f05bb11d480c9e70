//! What connection tracking finds invalid (kubernetes/kubernetes#74839): netfilter does not translate
//! it, so behind a proxy that works by netfilter a client got a stranger's packet in the middle of its
//! connection, and reset it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP};
use socket2::{Domain, Protocol, Socket, Type};
use support::{
    followed::{DEADLINE, Follower, echo_tcp},
    frames::{ACK, PSH, Packet, RST, SYN},
    services::{frontend, node_port, put},
    world::{Pod, load_rules, world},
};

mod support {
    pub(crate) mod followed;
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod world;
}

/// Further than any window that has been offered.
const FAR: u32 = 1_000_000;
/// With them the kernel tracks what it forwards, and says what it finds.
const RULES: &str = "
table inet watch {
    counter strays { }
    chain forward {
        type filter hook forward priority filter;
        ct state invalid counter name \"strays\"
    }
}
";

#[test]
fn an_out_of_window_packet_of_the_server_resets_no_connection() {
    world("an_out_of_window_packet_of_the_server_resets_no_connection", |world| {
        let [outside, backend, pod] = [1, 2, 3].map(|number| world.pod(number));
        world.forward();
        load_rules(RULES);
        let own = outside.node_addresses();
        let follower = Follower::start_on(world, &[outside.device()], own);
        follower.wait_for(world, 3);
        let mut maps = follower.kernel.maps().unwrap();
        let mut set = 0;
        for is_ipv4 in [true, false] {
            let service = if is_ipv4 { "10.96.0.1:80" } else { "[fd00:96::1]:80" };
            let cluster_ip: SocketAddr = service.parse().unwrap();
            let by_node = SocketAddr::new(outside.node_address(is_ipv4), 30080);
            let by_service = frontend(service, TCP);
            let by_port = node_port(is_ipv4, 30080, TCP);
            // The last: towards another node the node's own address stands in for the client's.
            for (client, to, key, flags) in [
                (&pod, cluster_ip, by_service, BACKEND_LOCAL),
                (&outside, by_node, by_port, BACKEND_LOCAL),
                (&outside, by_node, by_port, 0),
            ] {
                set += 1;
                let server = backend.inside(|| echo_tcp(backend.own_address(is_ipv4)));
                put(&mut maps, key, set, &[(server, flags)]);
                let before = strays();
                outlives_a_stray(client, to, &backend, server);
                assert!(strays() > before, "{to}, flags {flags}: tracking must find it invalid");
            }
        }
        follower.assert_nothing_dropped();
    });
}

/// By the packets of upstream's e2e spec, "invalid conntrack state bug", whose stray is far behind.
/// Since Linux 6.1 that is merely late to connection tracking; one far ahead is invalid everywhere.
fn outlives_a_stray(client: &Pod, to: SocketAddr, backend: &Pod, server: SocketAddr) {
    let wire = backend.inside(|| wire(server.ip()));
    let mut stream = client.inside(|| TcpStream::connect_timeout(&to, DEADLINE)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    let seen: IpAddr = line.trim_end().parse().unwrap();

    let opened = next_segment(&wire, server, |segment| segment.flags & SYN == 0);
    let told = opened.acknowledged.wrapping_add(u32::try_from(line.len()).unwrap());
    let quiet = next_segment(&wire, server, |segment| segment.acknowledged == told);
    let stray = Packet {
        protocol: TCP,
        from: server,
        to: SocketAddr::new(seen, quiet.port),
        flags: PSH | ACK,
        payload: b"boom!!!".to_vec(),
    };
    for sequence in [told.wrapping_sub(FAR), told.wrapping_add(FAR)] {
        let bytes = stray.segment(sequence, quiet.sequence);
        // A raw socket's peer has no port.
        wire.send_to(&bytes, &SocketAddr::new(seen, 0).into()).unwrap();
        // RFC 9293 §3.10.7.4: what is unacceptable is answered with what was expected.
        let answer = next_segment(&wire, server, |_| true);
        assert_eq!(answer.flags & RST, 0, "{to}: the client resets its connection");
        assert_eq!(answer.acknowledged, told, "{to}: the client expects what it expected");
    }
    stream.write_all(b"still there").unwrap();
    let mut back = [0; 11];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still there", "{to}");
}

/// Every TCP packet that comes to this address, and a way to send any.
fn wire(ip: IpAddr) -> Socket {
    let at = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(at), Type::RAW, Some(Protocol::TCP)).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

#[derive(Debug)]
struct Segment {
    port: u16,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
}

/// The next one for `server` that is wanted.
fn next_segment(
    wire: &Socket,
    server: SocketAddr,
    is_wanted: impl Fn(&Segment) -> bool,
) -> Segment {
    let (mut wire, mut buffer) = (wire, [0; 2048]);
    loop {
        let len = wire.read(&mut buffer).unwrap();
        // IPv4's raw sockets give the IP header, too (raw(7)).
        let header_len = if server.is_ipv4() { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
        let tcp = &buffer[header_len..len];
        let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let word = |at: usize| (u32::from(half(at)) << 16) | u32::from(half(at + 2));
        let segment =
            Segment { port: half(0), sequence: word(4), acknowledged: word(8), flags: tcp[13] };
        if half(2) == server.port() && is_wanted(&segment) {
            return segment;
        }
    }
}

/// Packets that tracking has found invalid so far.
fn strays() -> u64 {
    let list = ["list", "counter", "inet", "watch", "strays"];
    let output = Command::new("nft").args(list).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}
