//! The processes inside the namespaces: this program again, in a role.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
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
    lines: BufReader<ChildStdout>,
}

impl Role {
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
    let mut command: Command = world.enter(side, program.to_str().unwrap());
    command.arg(ROLE).arg(role).args(arguments);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    Role { child, lines }
}

/// Accepts on both ports and answers each connection with the port it came to.
pub fn server(world: &World) -> Role {
    let mut server = start(world, "s", "server", &[]);
    assert_eq!(server.line(), "ready");
    server
}

/// Durations of `count` connects in microseconds.
pub fn connects(world: &World, subject: &str, scale: u64, count: usize) -> Vec<f64> {
    let cgroup = if subject == "fairlead" { world.node_cgroup() } else { "-".into() };
    let arguments = [subject, &scale.to_string(), &count.to_string(), cgroup.to_str().unwrap()];
    let mut role = start(world, "c", "connects", &arguments);
    let mut text = String::new();
    role.lines.read_to_string(&mut text).unwrap();
    let samples: Vec<f64> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(samples.len(), count, "{subject}: every connect must succeed");
    samples
}

pub fn run(arguments: &[String]) {
    match arguments[2].as_str() {
        "server" => serve(),
        "connects" => measure(
            &arguments[3],
            arguments[4].parse().unwrap(),
            arguments[5].parse().unwrap(),
            &arguments[6],
        ),
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

fn measure(subject: &str, scale: u64, count: usize, cgroup: &str) {
    join(cgroup);
    let mut text = String::with_capacity(count * 8);
    for n in 0..count as u64 {
        let i = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % scale;
        let target: SocketAddr = match subject {
            "fairlead" => format!("{}:80", objects::cluster_ip(i)),
            "kube-proxy-nft" => format!("{}:80", objects::nft_ip(i)),
            _ => format!("{}:{}", objects::SERVER, objects::PORT),
        }
        .parse()
        .unwrap();
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // Closing by reset keeps TIME_WAIT from using up the ports.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        let started = Instant::now();
        socket.connect(&target.into()).unwrap();
        let us = started.elapsed().as_nanos() as f64 / 1000.0;
        text += &format!("{us:.2} ");
    }
    print!("{text}");
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
