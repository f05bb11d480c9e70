//! The page in a large cluster: how long people wait for it in a real browser, and what it costs the agent.
//!
//! The real agent in a world of its own, headless Chromium on the same machine (`make bench-page`).
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

#[path = "../common/charts.rs"]
mod charts;
#[path = "../common/plot.rs"]
mod plot;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;
#[path = "../../tests/it/support"]
mod support {
    pub(crate) mod agent;
    pub(crate) mod browser;
    pub(crate) mod page;
    pub(crate) mod world;
}

use std::time::{Duration, Instant};

use charts::Chart;
use report::Row;
use support::{
    browser::{Browser, Look},
    page::{AT, filter_ms, first_paint_ms, many},
    world::World,
};

const SCALES: [u32; 3] = [1_000, 10_000, 30_000];
const PAINTS: usize = 9;
const FILTERS: u32 = 21;
const ROUNDS: usize = 3;
/// How long a page is followed, or nobody looks.
const ROUND: Duration = Duration::from_secs(20);

const NOTES: &str = "The agent and headless Chromium on the same machine, `/services` with two endpoints each. `first_paint_ms`: from going to the page \
to the first thing to be seen (`first-contentful-paint`); `filter_ms`: from typing a Service's name to its row alone. `followed_core_pct`: processor time of the \
agent while a tab is open and nothing happens in the cluster, as a share of one core; `alone_core_pct`: the same while nobody looks. To hold: first paint \
below 1,000 ms, filter below 100 ms, less than 1 % of a core more for a follower, with 10,000 Services.";

const CHARTS: &[Chart] = &[
    against("paint", "First paint of the list of Services", "first_paint_ms"),
    against("filter", "From typing to the filtered list", "filter_ms"),
    against("core", "The agent while a tab is open, nothing happening", "followed_core_pct"),
];

const fn against(file: &'static str, title: &'static str, figure: &'static str) -> Chart {
    Chart::Against { file, title, figure, objects: "Services", subjects: &["fairlead"] }
}

fn main() {
    if std::env::args().any(|word| word == report::DRAW) {
        return report::publish("page", NOTES, CHARTS);
    }
    let rows = SCALES.into_iter().flat_map(measure).collect();
    report::finish("page", NOTES, CHARTS, rows);
}

fn measure(services: u32) -> Vec<Row> {
    let world = World::with_pods(1);
    world.apply("many.json", &many(services as usize));
    let socket = format!("--admin-socket={}", world.root().join("admin.sock").display());
    let agent = world.agent_with(&[&socket, "--no-dns", "--no-ingress"]);
    let ready = ["--url", "http://127.0.0.1:10256/readyz", "--wait-ms", "180000", "--count", "1"];
    assert_eq!(world.load("node", &ready).ok(), 1, "the agent reads them all");
    let browser = Browser::on_node(&world);
    browser.look(Look::Light);
    let paints: Vec<f64> = (0..PAINTS).map(|_| first_paint_ms(&browser, "/services")).collect();
    let names = (services - FILTERS..services).map(|n| format!("service-{n}"));
    let filters: Vec<f64> = names.map(|name| filter_ms(&browser, &name)).collect();
    let (mut followed, mut alone) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        browser.open(&format!("{AT}/services"));
        followed.push(core_pct(agent.pid()));
        browser.open("about:blank");
        alone.push(core_pct(agent.pid()));
    }
    println!("{services}: {paints:.0?} ms, {filters:.0?} ms, {followed:.2?} %, {alone:.2?} %");
    let row =
        |figure, unit, runs: &[f64]| Row::new(figure, "fairlead", services.into(), unit, runs);
    vec![
        row("first_paint_ms", "ms", &paints),
        row("filter_ms", "ms", &filters),
        row("followed_core_pct", "%", &followed),
        row("alone_core_pct", "%", &alone),
    ]
}

/// Processor time a process takes for a while, in hundredths of a core; that of threads that have ended, too.
fn core_pct(pid: u32) -> f64 {
    let (before, begun) = (process::with_children_cpu_us(pid), Instant::now());
    while begun.elapsed() < ROUND {
        std::thread::park_timeout(ROUND.saturating_sub(begun.elapsed()));
    }
    (process::with_children_cpu_us(pid) - before) / 1e4 / begun.elapsed().as_secs_f64()
}
