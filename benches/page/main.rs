//! The page in a large cluster: how long people wait for it in a real browser, and what it costs the agent.
//!
//! The real agent in a world of its own, headless Chromium on the same machine (`make bench-page`).
#![allow(unreachable_pub, dead_code, missing_docs, reason = "shared by several programs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "ends at a surprise")]
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "it prints its table")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clocks and samples")]

#[path = "../common/shared.rs"]
mod common;
#[path = "../../tests/it/support"]
mod support {
    pub(crate) mod agent;
    pub(crate) mod browser;
    pub(crate) mod page;
    pub(crate) mod world;
}

use std::time::Duration;

use common::{
    charts::Chart,
    process,
    report::{self, Row},
};
use support::{
    page::{AT, filter_ms, first_paint_ms, large},
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
    Chart::by_services(
        "paint",
        "First paint of the list of Services",
        "first_paint_ms",
        &["fairlead"],
    ),
    Chart::by_services("filter", "From typing to the filtered list", "filter_ms", &["fairlead"]),
    Chart::by_services(
        "core",
        "The agent while a tab is open, nothing happening",
        "followed_core_pct",
        &["fairlead"],
    ),
];

fn main() {
    match report::words().first().map(String::as_str) {
        None => {
            let rows = SCALES.into_iter().flat_map(measure).collect();
            report::finish("page", NOTES, CHARTS, rows);
        }
        Some(report::DRAW) => report::publish("page", NOTES, CHARTS),
        Some(part) => panic!("it is measured as a whole, there is no {part}"),
    }
}

fn measure(services: u32) -> Vec<Row> {
    let world = World::with_pods(1);
    let (agent, browser) = large(&world, services as usize);
    let paints: Vec<f64> = (0..PAINTS).map(|_| first_paint_ms(&browser, "/services")).collect();
    let names = (services - FILTERS..services).map(|n| format!("service-{n}"));
    let filters: Vec<f64> = names.map(|name| filter_ms(&browser, &name)).collect();
    let (mut followed, mut alone) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        browser.open(&format!("{AT}/services"));
        followed.push(process::core_share(agent.pid(), ROUND) * 100.0);
        browser.open("about:blank");
        alone.push(process::core_share(agent.pid(), ROUND) * 100.0);
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
