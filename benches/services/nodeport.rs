//! Small packets from outside through a NodePort: how many a second and what each costs.

use std::{
    fs, hint,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::{
    client::{self, Role},
    flows::{self, Lane},
    report::Row,
    world::World,
};

/// Where the target listens.
pub const PORT: u16 = 9101;
/// The node's port that leads there.
pub const NODE_PORT: u16 = 30_082;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
/// In turn, as more than one entry of the connection table is in use anywhere.
const SOCKETS: usize = 64;
/// A frame of the least size Ethernet has.
const PAYLOAD: usize = 18;
/// A moment's packets while something else has the core.
const RECEIVE_BYTES: usize = 1 << 20;
const SETTLING: Duration = Duration::from_millis(5);
/// The unit of /proc/stat.
const TICK_NS: f64 = 10_000_000.0;

/// By the way of each lane from outside, the lanes taking turns.
pub fn measure(lanes: &[Lane<'_>], rows: &mut Vec<Row>) {
    let none: Vec<Vec<f64>> = vec![vec![]; lanes.len()];
    let [mut rate, mut cost] = [none.clone(), none];
    let start = |lane: &Lane<'_>| client::start(lane.world, "c", "flood", &[]);
    let mut clients: Vec<Role> = lanes.iter().map(start).collect();
    for round in 0..ROUNDS {
        for turn in 0..lanes.len() {
            let place = (turn + round) % lanes.len();
            // It spins, so only one at a time may live.
            let mut target = start_target(lanes[place].world);
            let (per_second, ns) = flood(&lanes[place], &mut clients[place], &mut target);
            rate[place].push(per_second);
            cost[place].push(ns);
        }
    }
    for (figure, unit, all) in
        [("nodeport_packets_per_s", "1/s", &rate), ("nodeport_packet_cpu_ns", "ns", &cost)]
    {
        for (lane, runs) in lanes.iter().zip(all) {
            let row = Row::new(figure, lane.subject, flows::SCALE, unit, runs);
            println!("{figure} {}: {:.2} {unit}", lane.subject, row.value);
            rows.push(row);
        }
    }
}

fn start_target(world: &World) -> Role {
    let mut target = client::start(world, "s", "target", &[]);
    assert_eq!(target.line(), "ready");
    target
}

/// Packets that arrive a second, and nanoseconds of the client's core for each: it sends them, and the
/// node's part is done there too.
fn flood(lane: &Lane<'_>, client: &mut Role, target: &mut Role) -> (f64, f64) {
    let before = arrived(target);
    client.order(&lane.packets.to_string());
    let [seconds, busy_ns] = two_numbers(&client.line());
    let count = (arrived(target) - before) as f64;
    assert!(count > 0.0, "{}: no packet arrived", lane.subject);
    (count / seconds, busy_ns / count)
}

/// What the target has seen, once nothing comes any more.
fn arrived(target: &mut Role) -> u64 {
    let mut last = None;
    loop {
        target.order("seen");
        let seen: u64 = target.line().parse().expect("a number");
        if last == Some(seen) {
            return seen;
        }
        last = Some(seen);
        thread::park_timeout(SETTLING);
    }
}

fn two_numbers(line: &str) -> [f64; 2] {
    let (first, second) = line.split_once(' ').expect("two numbers");
    [first, second].map(|number| number.parse().expect("a number"))
}

/// Counts datagrams without sleeping; says how many there were at each line it reads.
pub fn run_target() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    socket.set_nonblocking(true).unwrap();
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let counted = seen.clone();
    thread::spawn(move || {
        let mut bytes = [0; PAYLOAD];
        loop {
            match socket.recv(&mut bytes) {
                Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                Err(_) => hint::spin_loop(),
            }
        }
    });
    println!("ready");
    for order in std::io::stdin().lines() {
        drop(order.unwrap());
        println!("{}", seen.load(Ordering::Relaxed));
    }
}

/// Sends for a round to each target that is ordered; how many seconds that took, and nanoseconds its core was busy.
pub fn run_client() {
    for order in std::io::stdin().lines() {
        let target: SocketAddr = order.unwrap().parse().unwrap();
        let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| connected(target)).collect();
        let busy = busy_ns();
        let started = Instant::now();
        while started.elapsed() < ROUND {
            for socket in &sockets {
                socket.send(&[0; PAYLOAD]).unwrap();
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{seconds} {}", busy_ns() - busy);
    }
}

fn connected(target: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect(target).unwrap();
    socket
}

/// Of core 0, where clients are. What the hypervisor takes is not among it.
fn busy_ns() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu0 ")).expect("a first core");
    let ticks: Vec<f64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
    // user, nice, system, irq, softirq (proc_stat(5)).
    [0, 1, 2, 5, 6].map(|field: usize| ticks[field]).iter().sum::<f64>() * TICK_NS
}
