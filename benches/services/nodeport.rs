//! Small packets from outside through a NodePort: how many a second, what each costs, how late its answer is.

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
    report::{Row, quantile},
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
/// The first byte of a datagram that wants an answer.
const ASKS: u8 = 1;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A moment's packets while something else has the core.
const RECEIVE_BYTES: usize = 1 << 20;
const SETTLING: Duration = Duration::from_millis(5);
/// The unit of /proc/stat.
const TICK_NS: f64 = 10_000_000.0;

/// By the way of each lane from outside, the lanes taking turns.
pub fn measure(lanes: &mut [Lane<'_>], rows: &mut Vec<Row>) {
    let none: Vec<Vec<f64>> = vec![vec![]; lanes.len()];
    let [mut rate, mut cost, mut median, mut late] =
        [none.clone(), none.clone(), none.clone(), none];
    for round in 0..ROUNDS {
        for turn in 0..lanes.len() {
            let place = (turn + round) % lanes.len();
            let lane = &mut lanes[place];
            // It spins, so only one at a time may live.
            let mut target = start_target(lane.world);
            let (per_second, ns) = flood(lane, &mut target);
            rate[place].push(per_second);
            cost[place].push(ns);
            let [p50, p99] = round_trips(lane);
            median[place].push(p50);
            late[place].push(p99);
        }
    }
    let added: Vec<Vec<f64>> = median.iter().map(|own| above(own, &median[0])).collect();
    for (figure, unit, all) in [
        ("nodeport_packets_per_s", "1/s", &rate),
        ("nodeport_packet_cpu_ns", "ns", &cost),
        ("nodeport_rtt_us_p50", "us", &median),
        ("nodeport_rtt_us_p99", "us", &late),
        ("nodeport_added_us_p50", "us", &added),
    ] {
        for (lane, runs) in lanes.iter().zip(all) {
            let row = Row::new(figure, lane.subject, flows::SCALE, unit, runs);
            println!("{figure} {}: {:.2} {unit}", lane.subject, row.value);
            rows.push(row);
        }
    }
}

fn above(own: &[f64], bare: &[f64]) -> Vec<f64> {
    own.iter().zip(bare).map(|(own, bare)| own - bare).collect()
}

fn start_target(world: &World) -> Role {
    let mut target = client::start(world, "s", "target", &[]);
    assert_eq!(target.line(), "ready");
    target
}

/// Packets that arrive a second, and nanoseconds of the client's core for each: it sends them, and the
/// node's part is done there too.
fn flood(lane: &mut Lane<'_>, target: &mut Role) -> (f64, f64) {
    let before = arrived(target);
    lane.outside.0.order(&format!("flood {}", lane.packets));
    let [seconds, busy_ns] = two_numbers(&lane.outside.0.line());
    let count = (arrived(target) - before) as f64;
    assert!(count > 0.0, "{}: no packet arrived", lane.subject);
    (count / seconds, busy_ns / count)
}

/// Microseconds to the answer, nobody sleeping meanwhile: median and 99th percentile.
fn round_trips(lane: &mut Lane<'_>) -> [f64; 2] {
    lane.outside.0.order(&format!("rtt {}", lane.packets));
    two_numbers(&lane.outside.0.line())
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

/// Counts datagrams and answers those that ask, without sleeping; says how many there were at each line it reads.
pub fn run_target() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    socket.set_nonblocking(true).unwrap();
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let counted = seen.clone();
    thread::spawn(move || {
        let mut bytes = [0; PAYLOAD];
        loop {
            let Ok((len, from)) = socket.recv_from(&mut bytes) else {
                hint::spin_loop();
                continue;
            };
            counted.fetch_add(1, Ordering::Relaxed);
            if bytes[0] == ASKS {
                drop(socket.send_to(&bytes[..len], from));
            }
        }
    });
    println!("ready");
    for order in std::io::stdin().lines() {
        drop(order.unwrap());
        println!("{}", seen.load(Ordering::Relaxed));
    }
}

/// Of a client: sends for a round; how many seconds that took, and nanoseconds its core was busy.
pub fn run_flood(target: SocketAddr) -> String {
    let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| flows::datagram_socket(target)).collect();
    let busy = busy_ns();
    let started = Instant::now();
    while started.elapsed() < ROUND {
        for socket in &sockets {
            socket.send(&[0; PAYLOAD]).unwrap();
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    format!("{seconds} {}", busy_ns() - busy)
}

/// Of a client: asks for a round, one after the other.
pub fn run_round_trips(target: SocketAddr) -> String {
    let socket = flows::datagram_socket(target);
    socket.set_nonblocking(true).unwrap();
    let mut samples = vec![];
    let started = Instant::now();
    while started.elapsed() < ROUND {
        let asked = Instant::now();
        socket.send(&[ASKS; PAYLOAD]).unwrap();
        while socket.recv(&mut [0; PAYLOAD]).is_err() {
            assert!(asked.elapsed() < ANSWER_TIMEOUT, "{target}: no answer");
            hint::spin_loop();
        }
        samples.push(asked.elapsed().as_nanos() as f64 / 1000.0);
    }
    format!("{} {}", quantile(&mut samples, 0.5), quantile(&mut samples, 0.99))
}

/// Of core 0, where clients are. What the hypervisor takes is not among it.
fn busy_ns() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu0 ")).expect("a first core");
    let ticks: Vec<f64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
    // user, nice, system, irq, softirq (proc_stat(5)).
    [0, 1, 2, 5, 6].map(|field: usize| ticks[field]).iter().sum::<f64>() * TICK_NS
}
