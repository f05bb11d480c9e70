//! Ingress: what requests, handshakes, bodies, idle connections and changes cost, beside proxies of others that are told
//! the same.
//!
//! Proxies on core 0; upstream, load and API server on core 1; loopback. Needs the packages of `tools/toolchain.sh bench`.
#![allow(unreachable_pub, dead_code, missing_docs, reason = "shared by several programs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "ends at a surprise")]
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "it prints its table")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clocks and samples")]
#![allow(clippy::cast_precision_loss, reason = "figures")]

mod account;
mod bodies;
mod calls;
mod changes;
mod check;
mod churn;
mod client;
#[path = "../common/shared.rs"]
mod common;
mod handshake;
mod idle;
mod keepalive;
mod latency;
mod load;
mod memory;
mod objects;
mod origin;
mod paced;
mod page;
mod subject;
mod table;
mod websockets;
#[path = "../../tests/it/support"]
mod support {
    pub(crate) mod apiserver;
}

use std::{path::Path, time::Instant};

use common::{
    agent, charts,
    report::{self, Row},
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};
use subject::Proxy;

/// Of each figure that is measured in turn; connections and changes are fewer with fewer rounds.
const ROUNDS: usize = 3;
/// How many hosts are known.
const SCALES: [usize; 3] = [1, 1000, 10_000];
/// Where everything runs but proxies.
const CORE: usize = 1;

/// What can be measured alone.
const PARTS: [(&str, Part); 8] = [
    ("keepalive", keepalive::measure),
    ("handshake", handshake::measure),
    ("bodies", bodies::measure),
    ("idle", idle::measure),
    ("latency", latency::measure),
    ("changes", changes::measure),
    ("churn", churn::measure),
    ("rss", memory::measure),
];

/// A name and a unit.
type Figure = (&'static str, &'static str);

/// Given a directory and a number of rounds.
type Part = fn(&Path, usize, &mut Vec<Row>);

fn main() {
    let words = report::words();
    // `make bench-ingress` measures everything and writes the page; a single part is only printed.
    let part = words.first().map(String::as_str);
    if part == Some(report::DRAW) {
        return report::publish("ingress", page::NOTES, page::CHARTS);
    }
    let known = PARTS.map(|(name, _)| name);
    assert!(part.is_none_or(|part| known.contains(&part)), "parts are {known:?}");
    let rounds = words.get(1).map_or(ROUNDS, |word| word.parse().expect("a number of rounds"));
    let cores = prepare();
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut rows = vec![];
    for (name, measure) in PARTS {
        if part.is_none_or(|part| part == name) {
            println!("{name}: begins after {:.0} s", begun.elapsed().as_secs_f64());
            measure(dir.path(), rounds, &mut rows);
        }
    }
    println!("measured in {:.0} s", begun.elapsed().as_secs_f64());
    // The page names the machine with all its cores.
    sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
    let rows = grouped(rows);
    match part {
        Some(_) => print!("{}", report::table(&rows)),
        None => report::finish("ingress", page::NOTES, page::CHARTS, rows),
    }
}

/// Everything begins on core 1, with as many descriptors as there may be. Returns the cores there were.
fn prepare() -> CpuSet {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut cores = CpuSet::new();
    cores.set(CORE).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    all
}

/// Rounds in which the proxies take turns, another one first in each. Of what is measured, the first are told by `figures`.
fn in_turn<const N: usize>(
    (figures, scale): (&[Figure], u64),
    proxies: &[Proxy],
    rounds: usize,
    rows: &mut Vec<Row>,
    measure: impl Fn(&Proxy) -> [f64; N],
) {
    let mut runs = vec![vec![]; proxies.len()];
    for round in 0..rounds {
        for turn in 0..proxies.len() {
            let place = (turn + round) % proxies.len();
            let values = measure(&proxies[place]);
            let (figure, unit) = figures[0];
            let (name, value) = (proxies[place].name(), values[0]);
            println!("round {round}: {figure} {scale} {name} {value:.2} {unit}");
            runs[place].push(values);
        }
    }
    for (n, &(figure, unit)) in figures.iter().enumerate() {
        for (proxy, runs) in proxies.iter().zip(&runs) {
            let runs: Vec<f64> = runs.iter().map(|values| values[n]).collect();
            rows.push(Row::new(figure, proxy.name(), scale, unit, &runs));
        }
    }
}

/// Rows of a figure stand together.
fn grouped(mut rows: Vec<Row>) -> Vec<Row> {
    let order: Vec<_> = rows.iter().map(|row| (row.figure.clone(), row.scale)).collect();
    rows.sort_by_key(|row| {
        order.iter().position(|(figure, scale)| *figure == row.figure && *scale == row.scale)
    });
    rows
}
