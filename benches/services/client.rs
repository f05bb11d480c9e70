//! The processes inside the namespaces: this program again, in a role.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{objects, world::World};

const ROLE: &str = "--role";
/// The other port the server answers on: where changed endpoints lead.
pub const OTHER_PORT: u16 = objects::PORT + 1;

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
    fn order(&mut self, order: &str) {
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

/// A client that connects when it is told to.
pub struct Connects(Role);

impl Connects {
    pub fn start(world: &World, subject: &str, scale: u64) -> Self {
        let cgroup = if subject == "fairlead" { world.node_cgroup() } else { "-".into() };
        let arguments = [subject, &scale.to_string(), cgroup.to_str().unwrap()];
        Self(start(world, "c", "connects", &arguments))
    }

    /// Durations of `count` connects in microseconds.
    pub fn take(&mut self, count: usize) -> Vec<f64> {
        self.0.order(&count.to_string());
        let line = self.0.line();
        let samples: Vec<f64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(samples.len(), count, "every connect must succeed");
        samples
    }
}

pub fn run(arguments: &[String]) {
    match arguments[2].as_str() {
        "server" => serve(),
        "connects" => measure(&arguments[3], arguments[4].parse().unwrap(), &arguments[5]),
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

fn join(cgroup: &str) {
    if cgroup != "-" {
        let file = format!("{cgroup}/cgroup.procs");
        fs::write(&file, std::process::id().to_string()).unwrap();
    }
}

fn measure(subject: &str, scale: u64, cgroup: &str) {
    join(cgroup);
    let mut targets = (0..).map(|n: u64| target(subject, n, scale));
    for order in std::io::stdin().lines() {
        let count: usize = order.unwrap().parse().unwrap();
        let mut text = String::with_capacity(count * 8);
        for target in targets.by_ref().take(count) {
            text += &format!("{:.2} ", connect_us(target));
        }
        println!("{text}");
    }
}

/// Services in an order that no cache foresees.
fn target(subject: &str, n: u64, scale: u64) -> SocketAddr {
    let i = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % scale;
    let target = match subject {
        "fairlead" => format!("{}:80", objects::cluster_ip(i)),
        "kube-proxy-nft" => format!("{}:80", objects::nft_ip(i)),
        _ => format!("{}:{}", objects::SERVER, objects::PORT),
    };
    target.parse().unwrap()
}

fn connect_us(target: SocketAddr) -> f64 {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // Closing by reset keeps TIME_WAIT from using up the ports.
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    let started = Instant::now();
    socket.connect(&target.into()).unwrap();
    started.elapsed().as_nanos() as f64 / 1000.0
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
