//! The steps, in order. An error of a step is an expectation that did not hold; the next step still
//! runs.

mod change;
mod ingress;
mod names;
mod restart;
mod services;

use super::{Demo, PROBE, traffic, world::Place};
use crate::load::report::Report;

/// Shows everything.
pub(crate) async fn run_all(demo: &mut Demo) {
    demo.screen.step("Names");
    let result = names::run(demo).await;
    note(demo, result);
    demo.screen.step("Services");
    let result = services::run(demo).await;
    note(demo, result);
    demo.screen.step("Ingress");
    let result = ingress::run(demo).await;
    note(demo, result);
    demo.screen.step("Change under load");
    let result = change::run(demo).await;
    note(demo, result);
    demo.screen.step("Agent killed under load");
    let result = restart::run(demo).await;
    note(demo, result);
}

fn note(demo: &mut Demo, result: anyhow::Result<()>) {
    if let Err(error) = result {
        demo.screen.expect("the step comes to its end", format!("{error:#}"), false);
    }
}

/// The client pod.
fn probe() -> Place {
    Place::Pod(PROBE.into())
}

/// `count` requests from a place.
async fn requests(
    demo: &Demo,
    place: &Place,
    url: &str,
    count: u32,
    more: &[&str],
) -> anyhow::Result<Report> {
    let count = count.to_string();
    let args = ["--url", url, "--rate", "500", "--count", &count];
    traffic::run(&demo.world, place, args.into_iter().chain(more.iter().copied())).await
}

/// One request that should be answered, as an expectation. The report is for further ones.
async fn answered(
    demo: &mut Demo,
    what: &str,
    place: &Place,
    url: &str,
    more: &[&str],
) -> anyhow::Result<Report> {
    let report = requests(demo, place, url, 1, more).await?;
    demo.screen.expect(what, outcome(&report), report.ok == 1);
    Ok(report)
}

/// A report of one request in words.
fn outcome(report: &Report) -> String {
    if let Some(failure) = report.described.first() {
        return format!("{}: {}", failure.kind, failure.detail);
    }
    let took = duration(report.latency_us.max);
    let text = |name: &str| {
        let body = report.sample.as_ref().map(|sample| &sample.body);
        body.and_then(|body| body.get(name)?.as_str()).unwrap_or("?").to_owned()
    };
    format!("{} answers {} in {took}", text("pod"), text("client"))
}

/// Microseconds in words.
fn duration(us: u64) -> String {
    if us < 1000 { format!("{us} µs") } else { format!("{}.{} ms", us / 1000, us % 1000 / 100) }
}

/// Failures of steady traffic in words.
fn failures(report: &Report) -> String {
    let Some(first) = report.described.first() else { return String::new() };
    let kinds: Vec<String> =
        report.failures.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!(" ({}; the first after {} ms: {})", kinds.join(", "), first.at_ms, first.detail)
}
