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
const CONNECT_SCALES: [u64; 2] = [100, 10_000];
const CONNECT_ROUNDS: usize = 10;
const CONNECTS_PER_ROUND: usize = 2_000;
const CHANGES: usize = 200;
const CHANGE_SCALE: u64 = 10_000;

const NOTES: &str = "Two endpoints a Service, one TCP port. `programmed_ms`: from the last object received by the agent to complete kernel maps, as the \
agent logs it; `cold_start_ms`: from starting the process with empty maps to complete maps, listing included; `restart_ms`: the same over maps an earlier \
agent left. `kube-proxy-nft` is a rule set of kube-proxy's nftables shape, loaded by nft -f, without anything a proxy would do around it. \
`change_to_packet`: from the moment the API server sends a changed EndpointSlice to the end of the first connect() that reaches the \
new endpoint. `connect_us`: TCP connect() from one namespace through a routing one to a third; the three ways take turns in one run; `direct` and nft clients run \
outside the cgroup that has the hooks.";

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
    if scale <= 10_000 {
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
    nft::load_ms(&world, scale);
    let subjects = ["fairlead", "direct", "kube-proxy-nft"];
    let mut p50 = [vec![], vec![], vec![]];
    let mut p99 = [vec![], vec![], vec![]];
    let _server = client::server(&world);
    for _ in 0..CONNECT_ROUNDS {
        for (i, subject) in subjects.iter().enumerate() {
            let mut samples = client::connects(&world, subject, scale, CONNECTS_PER_ROUND);
            p50[i].push(quantile(&mut samples, 0.5));
            p99[i].push(quantile(&mut samples, 0.99));
        }
    }
    for (i, subject) in subjects.iter().enumerate() {
        println!("connect at {scale}: {subject} p50 {:.1} us", quantile(&mut p50[i].clone(), 0.5));
        rows.push(Row::new("connect_us_p50", subject, scale, "us", &p50[i]));
        rows.push(Row::new("connect_us_p99", subject, scale, "us", &p99[i]));
    }
}
