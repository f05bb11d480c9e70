//! Short connections and datagrams with their answers, exchange by exchange in turns, neither end sleeping: what waking a
//! halted core costs would hide what a way costs, and a second later the machine is another one.

use std::{
    hint, io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    libc::MSG_DONTWAIT,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    client::{self, Role},
    flows::SCALE,
    objects,
    report::{Row, quantile},
    world::World,
};

/// What a way is asked to do, and what it is called how often it does so in a second, how late the slowest of a hundred is, and
/// how much later the median is than by the way's base, and than without a proxy.
pub type Kind = (&'static str, [&'static str; 4]);

/// By ClusterIP.
pub const INSIDE: [Kind; 3] = [
    ("crr", ["crr_per_s", "crr_us_p99", "crr_added_us_p50", "crr_above_bare_us_p50"]),
    (
        "udp_rr",
        ["udp_rr_per_s", "udp_rr_us_p99", "udp_rr_added_us_p50", "udp_rr_above_bare_us_p50"],
    ),
    (
        "udp_crr",
        ["udp_crr_per_s", "udp_crr_us_p99", "udp_crr_added_us_p50", "udp_crr_above_bare_us_p50"],
    ),
];
/// By NodePort: the way without a proxy is every way's base.
pub const OUTSIDE: [Kind; 3] = [
    ("crr", ["nodeport_crr_per_s", "nodeport_crr_us_p99", "", "nodeport_crr_added_us_p50"]),
    ("udp_rr", ["nodeport_udp_rr_per_s", "nodeport_rtt_us_p99", "", "nodeport_added_us_p50"]),
    (
        "udp_crr",
        ["nodeport_udp_crr_per_s", "nodeport_udp_crr_us_p99", "", "nodeport_udp_crr_added_us_p50"],
    ),
];

const ROUNDS: usize = 20;
/// Of each way in a round.
const ROUND_EXCHANGES: usize = 500;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A way to the server of a world.
pub struct Way<'w> {
    pub subject: &'static str,
    pub world: &'w World,
    /// With the hooks, or without.
    pub cgroup: PathBuf,
    pub target: SocketAddr,
    /// The way to the endpoint itself in the same world, by its place.
    pub base: Option<usize>,
}

/// What a client has for the exchanges of a round.
enum Sockets {
    /// Connected.
    Kept(Socket),
    Each(Vec<Socket>),
}

/// Rows of each kind by these ways, of which the first has no proxy. Rates are by a round's whole time, differences to another
/// way's exchange of the same turn.
pub fn measure(kinds: &[Kind], ways: &[Way<'_>], rows: &mut Vec<Row>) {
    let mut client = start_client(ways);
    for (kind, [rate, late, added, above_bare]) in kinds {
        let rounds: Vec<Vec<Vec<f64>>> =
            (0..ROUNDS).map(|_| round(&mut client, kind, ways.len())).collect();
        let of = |way: usize| rounds.iter().map(move |times| &times[way]);
        for (place, way) in ways.iter().enumerate() {
            let mut row = |figure: &'static str, unit: &'static str, runs: Vec<f64>| {
                let row = Row::new(figure, way.subject, SCALE, unit, &runs);
                println!("{figure} {}: {:.2} {unit}", way.subject, row.value);
                rows.push(row);
            };
            let per_s = |times: &Vec<f64>| times.len() as f64 * 1e6 / times.iter().sum::<f64>();
            row(rate, "1/s", of(place).map(per_s).collect());
            row(late, "us", of(place).map(|times| quantile(&mut times.clone(), 0.99)).collect());
            let above = |other: usize| {
                let pairs = of(place).flatten().zip(of(other).flatten());
                pairs.map(|(own, other)| own - other).collect()
            };
            if let Some(base) = way.base {
                row(added, "us", above(base));
            }
            row(above_bare, "us", above(0));
        }
    }
}

/// Microseconds of each exchange by each way.
fn round(client: &mut Role, kind: &str, ways: usize) -> Vec<Vec<f64>> {
    client.order(kind);
    (0..ways).map(|_| numbers(&client.line())).collect()
}

fn numbers(line: &str) -> Vec<f64> {
    let numbers: Vec<f64> = line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    assert_eq!(numbers.len(), ROUND_EXCHANGES, "every exchange must succeed");
    numbers
}

fn start_client(ways: &[Way<'_>]) -> Role {
    let mut arguments = vec![];
    for Way { world, cgroup, target, .. } in ways {
        arguments.push(world.client_netns().display().to_string());
        arguments.push(cgroup.display().to_string());
        arguments.push(target.to_string());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    client::start(ways[0].world, "c", "exchanges", &arguments)
}

/// Answers in all of these worlds. One process, since it spins.
pub fn start_server(worlds: &[World]) -> Role {
    let netns: Vec<String> =
        worlds.iter().map(|w| w.server_netns().display().to_string()).collect();
    let netns: Vec<&str> = netns.iter().map(String::as_str).collect();
    let mut server = client::start(&worlds[0], "s", "answers", &netns);
    assert_eq!(server.line(), "ready");
    server
}

/// Answers each connection's byte and each datagram.
pub fn run_server(netns: &[String]) {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, objects::PORT));
    let (mut listeners, mut datagrams) = (vec![], vec![]);
    for netns in netns {
        client::enter(Path::new(netns));
        let listener = TcpListener::bind(any).unwrap();
        listener.set_nonblocking(true).unwrap();
        listeners.push(listener);
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_nonblocking(true).unwrap();
        datagrams.push(socket);
    }
    println!("ready");
    let fds = listeners.iter().map(AsFd::as_fd).chain(datagrams.iter().map(AsFd::as_fd));
    let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let mut bytes = [0; 64];
    loop {
        if poll(&mut polled, PollTimeout::ZERO).unwrap() == 0 {
            continue;
        }
        let ready = |at: usize| polled[at].any().unwrap_or(true);
        for (at, listener) in listeners.iter().enumerate() {
            if ready(at)
                && let Ok((stream, _)) = listener.accept()
            {
                answer(&stream);
            }
        }
        for (at, socket) in datagrams.iter().enumerate() {
            if ready(listeners.len() + at)
                && let Ok((len, from)) = socket.recv_from(&mut bytes)
            {
                drop(socket.send_to(&bytes[..len], from));
            }
        }
    }
}

fn answer(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    if receive(&socket).is_ok() {
        drop(socket.send(&[1]));
    }
}

/// The first byte that comes, without sleeping for it; an error if none does.
fn receive(socket: &Socket) -> io::Result<()> {
    let mut byte = [MaybeUninit::uninit()];
    let since = Instant::now();
    loop {
        match socket.recv_with_flags(&mut byte, MSG_DONTWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if since.elapsed() > ANSWER_TIMEOUT => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(_) => hint::spin_loop(),
        }
    }
}

/// Goes these ways, each a network namespace, a cgroup and a target, in turns at each line with a kind; the times of each way
/// in microseconds are a line. Each comes first as often as last.
pub fn run_client(ways: &[String]) {
    let ways: Vec<&[String]> = ways.chunks(3).collect();
    let targets: Vec<SocketAddr> = ways.iter().map(|way| way[2].parse().unwrap()).collect();
    for order in io::stdin().lines() {
        let kind = order.unwrap();
        let mut sockets: Vec<Sockets> = ways
            .iter()
            .zip(&targets)
            .map(|(way, &target)| {
                client::join(&way[1]);
                client::enter(Path::new(&way[0]));
                open(&kind, target)
            })
            .collect();
        let mut texts = vec![String::with_capacity(8 * ROUND_EXCHANGES); ways.len()];
        for n in 0..ROUND_EXCHANGES {
            for turn in 0..ways.len() {
                let way = (turn + n) % ways.len();
                let us = exchange_us(&mut sockets[way], targets[way])
                    .unwrap_or_else(|error| panic!("{kind} {n} to {}: {error}", ways[way][2]));
                texts[way] += &format!("{us:.3} ");
            }
        }
        for text in texts {
            println!("{text}");
        }
    }
}

/// What is made in a namespace stays there.
fn open(kind: &str, target: SocketAddr) -> Sockets {
    let stream = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Closing by reset keeps TIME_WAIT from using up the ports.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        socket
    };
    let datagram = |_| Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    match kind {
        "crr" => Sockets::Each((0..ROUND_EXCHANGES).map(stream).collect()),
        "udp_crr" => Sockets::Each((0..ROUND_EXCHANGES).map(datagram).collect()),
        "udp_rr" => {
            let socket = datagram(0);
            socket.connect(&target.into()).unwrap();
            Sockets::Kept(socket)
        }
        other => panic!("no kind {other}"),
    }
}

/// One of many is connected before and closed after.
fn exchange_us(sockets: &mut Sockets, target: SocketAddr) -> io::Result<f64> {
    let started = Instant::now();
    match sockets {
        Sockets::Kept(socket) => ask(socket)?,
        Sockets::Each(sockets) => {
            let socket = sockets.pop().expect("a socket for each exchange");
            socket.connect(&target.into())?;
            ask(&socket)?;
        }
    }
    Ok(started.elapsed().as_nanos() as f64 / 1000.0)
}

fn ask(socket: &Socket) -> io::Result<()> {
    socket.send(&[1])?;
    receive(socket)
}
