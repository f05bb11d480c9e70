//! The processes inside the namespaces: this program again, in a role.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{exchanges, nodeport, objects, world::World};

const ROLE: &str = "--role";
/// The other port the server answers on: where changed endpoints lead.
pub const OTHER_PORT: u16 = objects::PORT + 1;

/// More than connects of all ways within one round.
const SINK_BACKLOG: i32 = 4096;
/// Greater than any scale, so the two have no common divisor.
const PRIME: u64 = 2_654_435_761;

pub fn is_role(arguments: &[String]) -> bool {
    arguments.get(1).is_some_and(|a| a == ROLE)
}

/// A child in a role; ends with the benchmark.
pub struct Role {
    child: Child,
    orders: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Role {
    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("the role takes orders");
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let n = self.lines.read_line(&mut line).expect("the role's output");
        assert!(n > 0, "the role ended early");
        line.trim().to_owned()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn start(world: &World, side: &str, role: &str, arguments: &[&str]) -> Role {
    let program = std::env::current_exe().unwrap();
    // Wherever the scheduler puts two of them decides more than what is measured.
    let core = if side == "s" { "1" } else { "0" };
    let mut command: Command = world.enter(side, "taskset");
    command.args(["-c", core, program.to_str().unwrap()]).arg(ROLE).arg(role).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let orders = child.stdin.take().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    Role { child, orders, lines }
}

/// Accepts on both ports and answers each connection with the port it came to.
pub fn server(world: &World) -> Role {
    let mut server = start(world, "s", "server", &[]);
    assert_eq!(server.line(), "ready");
    server
}

/// Takes connections from the queue now and then, and closes them. Nobody sleeps in accept(): else each
/// connect() would pay for waking the server's core, 11 us if the hypervisor has halted it and nothing if not.
pub fn sink(world: &World) -> Role {
    let mut sink = start(world, "s", "sink", &[]);
    assert_eq!(sink.line(), "ready");
    sink
}

/// A way to the server: whose world, inside of its hooks or not.
pub struct Way<'a> {
    pub subject: &'static str,
    pub world: &'a World,
    /// The way that dials the endpoint itself in the same world, by its place.
    pub base: Option<usize>,
}

/// A client that connects by several ways in turn when it is told to.
pub struct Connects {
    role: Role,
    ways: usize,
}

impl Connects {
    pub fn start(ways: &[Way<'_>], scale: u64) -> Self {
        let mut arguments = vec![scale.to_string()];
        for Way { subject, world, .. } in ways {
            let hooks = *subject == "fairlead";
            let cgroup = if hooks { world.node_cgroup() } else { world.outside_cgroup() };
            arguments.push((*subject).to_owned());
            arguments.push(world.client_netns().to_str().unwrap().to_owned());
            arguments.push(cgroup.to_str().unwrap().to_owned());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self { role: start(ways[0].world, "c", "connects", &arguments), ways: ways.len() }
    }

    /// Durations of `count` connects by each way in microseconds.
    pub fn take(&mut self, count: usize) -> Vec<Vec<f64>> {
        self.role.order(&count.to_string());
        let parse = |line: String| line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let all: Vec<Vec<f64>> = (0..self.ways).map(|_| parse(self.role.line())).collect();
        assert!(all.iter().all(|way| way.len() == count), "every connect must succeed");
        all
    }
}

pub fn run(arguments: &[String]) {
    match arguments[2].as_str() {
        "server" => serve(),
        "sink" => swallow(),
        "connects" => measure(arguments[3].parse().unwrap(), &arguments[4..]),
        "answers" => exchanges::run_server(&arguments[3..]),
        "exchanges" => exchanges::run_client(&arguments[3..]),
        "flood" => nodeport::run_client(),
        "target" => nodeport::run_target(),
        "spin" => spin(&arguments[3], &arguments[4]),
        other => panic!("no role {other}"),
    }
}

fn serve() {
    let accept = |port: u16| {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // A client that measures only connect() has gone already.
                drop((&socket).write_all(&port.to_be_bytes()));
            }
        })
    };
    let threads = [accept(objects::PORT), accept(OTHER_PORT)];
    println!("ready");
    for thread in threads {
        thread.join().unwrap();
    }
}

fn swallow() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let address = SocketAddr::from(([0, 0, 0, 0], objects::PORT));
    socket.bind(&address.into()).unwrap();
    socket.listen(SINK_BACKLOG).unwrap();
    socket.set_nonblocking(true).unwrap();
    println!("ready");
    loop {
        while socket.accept().is_ok() {}
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

pub fn join(cgroup: &str) {
    if cgroup != "-" {
        let file = format!("{cgroup}/cgroup.procs");
        fs::write(&file, std::process::id().to_string()).unwrap();
    }
}

/// This thread, for good.
pub fn enter(netns: &Path) {
    let netns = fs::File::open(netns).unwrap();
    nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
}

/// Connect by connect the ways take turns, and each comes first as often as last. A socket keeps the
/// namespace and the cgroup it was made in, so one process can go all ways.
fn measure(scale: u64, ways: &[String]) {
    let ways: Vec<&[String]> = ways.chunks(3).collect();
    let mut next = 0;
    for order in std::io::stdin().lines() {
        let count: u64 = order.unwrap().parse().unwrap();
        let mut sockets: Vec<_> = ways.iter().map(|way| open(way, count).into_iter()).collect();
        let mut texts = vec![String::with_capacity(8 * count as usize); ways.len()];
        for n in next..next + count {
            for turn in 0..ways.len() {
                let way = (turn + n as usize) % ways.len();
                let subject = &ways[way][0];
                let target = target(subject, n, scale);
                let us = connect_us(&sockets[way].next().unwrap(), target)
                    .unwrap_or_else(|error| panic!("{subject}: connect {n} to {target}: {error}"));
                texts[way] += &format!("{us:.3} ");
            }
        }
        next += count;
        for text in texts {
            println!("{text}");
        }
    }
}

fn open(way: &[String], count: u64) -> Vec<Socket> {
    let [_, netns, cgroup] = way else { panic!("SUBJECT NETNS CGROUP") };
    join(cgroup);
    enter(Path::new(netns));
    let socket = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Closing by reset keeps TIME_WAIT from using up the ports.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        socket
    };
    (0..count).map(socket).collect()
}

/// Each Service once, in an order that no cache foresees; then again.
fn target(subject: &str, n: u64, scale: u64) -> SocketAddr {
    let i = n * PRIME % scale;
    let target = match subject {
        "fairlead" | "kube-proxy-nft" => format!("{}:80", objects::cluster_ip(i)),
        _ => format!("{}:{}", objects::SERVER, objects::PORT),
    };
    target.parse().unwrap()
}

fn connect_us(socket: &Socket, target: SocketAddr) -> std::io::Result<f64> {
    let target = target.into();
    let started = Instant::now();
    socket.connect(&target)?;
    Ok(started.elapsed().as_nanos() as f64 / 1000.0)
}

/// Prints `PORT NANOSECONDS` each time the Service's answer comes from another port than before.
fn spin(target: &str, cgroup: &str) {
    join(cgroup);
    let target: SocketAddr = target.parse().unwrap();
    let mut last = 0;
    loop {
        let Ok(mut socket) = TcpStream::connect(target) else { continue };
        let connected = monotonic_ns();
        let mut port = [0; 2];
        if socket.read_exact(&mut port).is_err() {
            continue;
        }
        let port = u16::from_be_bytes(port);
        if port != last {
            println!("{port} {connected}");
            std::io::stdout().flush().unwrap();
            last = port;
        }
    }
}

/// CLOCK_MONOTONIC, which all processes of the machine share.
pub fn monotonic_ns() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
