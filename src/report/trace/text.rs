//! A trace for people.

use super::{Candidate, Trace};
use crate::table::{Screen, Table, Tone};

const PART_WIDTH: usize = 13;

/// Steps in their order, then what becomes of it.
pub(crate) fn show(trace: &Trace, screen: Screen, _wide: bool) -> String {
    let mut text = format!("{} -> {}\n", trace.from, trace.target);
    for step in &trace.steps {
        let mut part = step.part.as_str();
        for line in &step.lines {
            let shown = screen.paint(&format!("{part:<PART_WIDTH$}"), Tone::Dim);
            text.push_str(&format!("{shown}{line}\n"));
            part = "";
        }
    }
    if !trace.candidates.is_empty() {
        let table = candidates(&trace.candidates).text(screen);
        for line in table.lines() {
            text.push_str(&format!("{:PART_WIDTH$}{line}\n", ""));
        }
    }
    let outcome = &trace.outcome;
    let tone = match (outcome.is_served, outcome.verdict.as_str()) {
        (true, _) => Tone::Good,
        (_, "passed on") => Tone::Attention,
        _ => Tone::Bad,
    };
    let part = screen.paint(&format!("{:<PART_WIDTH$}", "outcome"), Tone::Dim);
    text.push_str(&format!("{part}{}\n", screen.paint(&outcome.text, tone)));
    if let Some(cure) = &outcome.cure {
        text.push_str(&format!("{:PART_WIDTH$}{cure}\n", ""));
    }
    let part = screen.paint(&format!("{:<PART_WIDTH$}", "by"), Tone::Dim);
    text.push_str(&format!("{part}{}\n", trace.source));
    text
}

fn candidates(candidates: &[Candidate]) -> Table {
    let mut table = Table::new(&["ENDPOINT", "CHANCE", "POD", "NODE", "ZONE"]);
    for candidate in candidates {
        let Candidate { address, probability, is_local, pod, node, zone } = candidate;
        let node = node.clone().unwrap_or_else(|| "-".to_owned());
        let node = if *is_local { format!("{node} (this one)") } else { node };
        table.row([
            address.as_str().into(),
            format!("{:.1} %", probability * 100.0).into(),
            pod.as_deref().unwrap_or("-").into(),
            node.into(),
            zone.as_deref().unwrap_or("-").into(),
        ]);
    }
    table
}
