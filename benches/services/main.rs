//! Services: from objects to kernel maps, from a change to the first packet, and what connect() costs.
//!
//! The real agent, against the list/watch server of the tests, in network namespaces and a cgroup of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark ends at the first surprise"
)]
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a program that prints its table"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures: a clock and an index of samples"
)]
#![allow(unreachable_pub, dead_code, reason = "shared by several benchmarks")]

mod client;
mod nft;
mod objects;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;
mod subject;
#[path = "../../tests/it/support"]
mod support {
    pub(crate) mod apiserver;
}
mod world;

use report::{Row, quantile};
use world::World;

const SYNC_SCALES: [u64; 3] = [1_000, 10_000, 50_000];
const SYNC_ROUNDS: usize = 3;
const CONNECT_SCALES: [u64; 3] = [100, 10_000, 30_000];
/// The ways take turns so quickly that what else the machine does falls on all of them alike.
const CONNECT_TURNS: usize = 400;
const CONNECTS_PER_TURN: usize = 50;
/// Beyond it `nft -f` takes minutes.
const NFT_SCALE_MAX: u64 = 10_000;
const CHANGES: usize = 200;
const CHANGE_SCALE: u64 = 10_000;

const NOTES: &str = "Two endpoints a Service, one TCP port. `programmed_ms`: from the last object received by the agent to complete kernel maps, as the \
agent logs it; `cold_start_ms`: from starting the process with empty maps to complete maps, listing included; `restart_ms`: the same over maps an earlier \
agent left. `kube-proxy-nft` is a rule set of kube-proxy's nftables shape, loaded by nft -f, without anything a proxy would do around it. \
`change_to_packet`: from the moment the API server sends a changed EndpointSlice to the end of the first connect() that reaches the \
new endpoint. `connect_us`: TCP connect() from one namespace through a routing one to a third, each time to another Service; client on core 0, server on core 1; `connect_first` is the first \
connect to each Service, after which the ways take turns of 50 connects; \
`connect_added_us_p50` is the median, over 400 turns, of the difference between a way's median and that of `direct` in the same turn; `direct` and nft clients \
run outside the cgroup that has the hooks.";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if client::is_role(&arguments) {
        return client::run(&arguments);
    }
    let mut rows = vec![];
    for scale in SYNC_SCALES {
        sync(scale, &mut rows);
    }
    change(&mut rows);
    for scale in CONNECT_SCALES {
        connect(scale, &mut rows);
    }
    report::finish("services", NOTES, &rows);
}

fn sync(scale: u64, rows: &mut Vec<Row>) {
    let world = World::new();
    let api = subject::serve(&world, objects::services(scale));
    let (mut programmed, mut cold, mut restart, mut cpu, mut rss) =
        (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..SYNC_ROUNDS {
        world.clear_pins();
        let first = subject::Agent::start(&world, &api);
        programmed.push(first.programmed_ms);
        cold.push(first.started_ms);
        cpu.push(process::cpu_us(first.pid()) / 1000.0);
        rss.push(process::status_kib(first.pid(), "VmHWM") / 1024.0);
        println!(
            "{scale} round {round}: programmed {:.1} ms, cold {:.1} ms",
            first.programmed_ms, first.started_ms
        );
        drop(first);
        restart.push(subject::Agent::start(&world, &api).started_ms);
    }
    for (figure, unit, runs) in [
        ("programmed_ms", "ms", &programmed),
        ("cold_start_ms", "ms", &cold),
        ("restart_ms", "ms", &restart),
        ("cold_start_cpu_ms", "ms", &cpu),
        ("rss_mib", "MiB", &rss),
    ] {
        rows.push(Row::new(figure, "fairlead", scale, unit, runs));
    }
    if scale <= NFT_SCALE_MAX {
        let load = nft::load_ms(&world, scale);
        println!("{scale}: nft -f {load:.0} ms");
        rows.push(Row::new("programmed_ms", "kube-proxy-nft", scale, "ms", &[load]));
    }
}

fn change(rows: &mut Vec<Row>) {
    let world = World::new();
    let api = subject::serve(&world, objects::services(CHANGE_SCALE));
    let _agent = subject::Agent::start(&world, &api);
    let mut samples = subject::changes(&world, &api, CHANGES);
    println!("changes: median {:.0} us", quantile(&mut samples.clone(), 0.5));
    for (figure, share) in [("change_to_packet_us_p50", 0.5), ("change_to_packet_us_p99", 0.99)] {
        let value = quantile(&mut samples, share);
        rows.push(Row::new(figure, "fairlead", CHANGE_SCALE, "us", &[value]));
    }
}

fn connect(scale: u64, rows: &mut Vec<Row>) {
    let world = World::new();
    let api = subject::serve(&world, objects::services(scale));
    let _agent = subject::Agent::start(&world, &api);
    let mut subjects = vec!["direct", "fairlead"];
    if scale <= NFT_SCALE_MAX {
        nft::load_ms(&world, scale);
        subjects.push("kube-proxy-nft");
    }
    let _server = client::server(&world);
    let mut clients: Vec<_> =
        subjects.iter().map(|subject| client::Connects::start(&world, subject, scale)).collect();
    for (subject, client) in subjects.iter().zip(&mut clients) {
        // A Service's counters are made at its first connection: a cost of its own.
        let mut first = client.take(usize::try_from(scale).unwrap());
        let value = quantile(&mut first, 0.5);
        rows.push(Row::new("connect_first_us_p50", subject, scale, "us", &[value]));
    }
    let mut all = vec![vec![]; subjects.len()];
    let mut added = vec![vec![]; subjects.len()];
    for _ in 0..CONNECT_TURNS {
        let mut direct = None;
        for (i, client) in clients.iter_mut().enumerate() {
            let mut samples = client.take(CONNECTS_PER_TURN);
            let median = quantile(&mut samples, 0.5);
            added[i].push(median - *direct.get_or_insert(median));
            all[i].append(&mut samples);
        }
    }
    for (i, subject) in subjects.iter().enumerate() {
        for (figure, share) in [("connect_us_p50", 0.5), ("connect_us_p99", 0.99)] {
            rows.push(Row::new(figure, subject, scale, "us", &[quantile(&mut all[i], share)]));
        }
        if *subject != "direct" {
            let row = Row::new("connect_added_us_p50", subject, scale, "us", &added[i]);
            println!("connect at {scale}: {subject} adds {:.2} us", row.value);
            rows.push(row);
        }
    }
}
