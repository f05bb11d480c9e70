//! How the agent fares at a glance: `fairlead status` and `fairlead traffic`.

use std::collections::{BTreeMap, HashMap};

use fairlead_state::Key;
use maud::{Markup, html};

use super::super::{
    Facts,
    asked::link,
    frame::Content,
    rates::Rates,
    words::{class, head, number, pill, rate},
};
use crate::{
    counted::counted,
    report::{
        status::{ProxyRow, RoleRow, Status, span},
        traffic::Traffic,
    },
    table::Tone,
    view::Counted,
};

const WARNINGS_SHOWN_MAX: usize = 20;
const BUSIEST_SHOWN: usize = 8;

/// The page.
pub(in crate::web) fn page<F: Facts>(facts: &F, rates: &mut Rates) -> Content {
    let status = facts.status();
    let traffic = facts.traffic();
    // Nothing known of the cluster is nothing to show here: the roles say what they wait for.
    let busiest = facts.look(|view| Ok(busiest(view.counted(), rates))).unwrap_or_default();
    let live = html! {
        div.cards {
            @for role in &status.roles { (role_card(role)) }
            (snapshot_card(&status))
            @if let Some(proxy) = &status.proxy { (maps_card(proxy)) }
        }
        (tiles(&traffic, rates))
        div.columns {
            @if !busiest.is_empty() { (busiest_table(&busiest)) }
            (warnings(&status))
        }
    };
    Content::new("Overview", html! {}, live)
}

fn role_card(role: &RoleRow) -> Markup {
    let tone = match role.state.as_str() {
        "ready" => Tone::Good,
        "starting" => Tone::Attention,
        _ => Tone::Bad,
    };
    let name = match role.name.as_str() {
        "proxy" => "Services",
        "dns" => "DNS",
        "ingress" => "Ingress",
        other => other,
    };
    html! {
        section.card {
            h2 { (name) (pill(&role.state, tone)) }
            p { (role.why.as_deref().unwrap_or(&role.serves)) }
        }
    }
}

fn snapshot_card(status: &Status) -> Markup {
    let known = status.kinds.iter().filter(|kind| kind.objects > 0);
    let counts: Vec<String> = known.map(|kind| format!("{} {}", kind.objects, kind.kind)).collect();
    html! {
        section.card {
            @match &status.snapshot {
                None => {
                    h2 { "Cluster" (pill("waiting", Tone::Attention)) }
                    @let missing = status.kinds.iter().filter(|kind| !kind.is_synced);
                    @let missing: Vec<&str> = missing.map(|kind| kind.kind.as_str()).collect();
                    p { "waiting for " (missing.join(", ")) }
                }
                Some(snapshot) => {
                    @let (word, tone) = match snapshot.stale_seconds {
                        None => ("followed".to_owned(), Tone::Good),
                        Some(stale) => (format!("out of touch for {}", span(stale)), Tone::Bad),
                    };
                    h2 { "Cluster" (pill(&word, tone)) }
                    p {
                        "revision " (snapshot.revision)
                        @if let Some(ago) = snapshot.changed_seconds_ago {
                            ", changed " (span(ago)) " ago"
                        }
                    }
                    p.dim { (counts.join(", ")) }
                }
            }
            @for kind in &status.kinds {
                @if let Some(error) = &kind.error { p.bad { (kind.kind) ": " (error) } }
            }
        }
    }
}

fn maps_card(proxy: &ProxyRow) -> Markup {
    html! {
        section.card {
            h2 { "Kernel" @if let Some(error) = &proxy.last_error { (pill(error, Tone::Bad)) } }
            (meter("frontends", proxy.frontends, proxy.frontends_max))
            (meter("backends", proxy.backends, proxy.backends_max))
            p.dim {
                "last pass " (format!("{:.1} ms", proxy.last_pass_ms))
                @if let Some(programs) = &proxy.programs { ", " (counted(programs.len(), "program")) }
                @if proxy.behind > 0 { ", " span.attention { (counted(proxy.behind, "Service")) " behind" } }
            }
        }
    }
}

fn meter(name: &str, used: usize, max: usize) -> Markup {
    let count = |n: usize| number(u64::try_from(n).unwrap_or(u64::MAX));
    html! {
        p.meter {
            span { (count(used)) " " (name) span.dim { " of " (count(max)) } }
            meter value=(used) max=(max.max(1)) high=(max / 10 * 9) {}
        }
    }
}

fn tiles(traffic: &Traffic, rates: &mut Rates) -> Markup {
    let mut tiles: Vec<(String, u64, Tone)> = Vec::new();
    if let (Some(connections), Some(rejected)) = (traffic.connections, traffic.rejected) {
        tiles.push(("connections to Services".into(), connections, Tone::Plain));
        tiles.push(("connections refused".into(), rejected, Tone::Attention));
    }
    if let Some(replies) = &traffic.replies {
        let all = replies.iter();
        let good = all.clone().filter(|(code, _)| matches!(code.as_str(), "NOERROR" | "NXDOMAIN"));
        let (good, sum): (u64, u64) =
            (good.map(|(_, n)| n).sum(), all.map(|(_, count)| count).sum());
        tiles.push(("DNS answers".into(), good, Tone::Plain));
        tiles.push(("DNS failures".into(), sum - good, Tone::Attention));
    }
    if let Some(responses) = &traffic.responses {
        let mut classes: BTreeMap<u16, u64> = BTreeMap::from([(2, 0), (5, 0)]);
        for (code, count) in responses {
            *classes.entry(code / 100).or_default() += count;
        }
        for (hundred, count) in classes {
            let tone = if hundred >= 5 { Tone::Attention } else { Tone::Plain };
            tiles.push((format!("HTTP {hundred}xx"), count, tone));
        }
    }
    html! {
        div.tiles {
            @for (name, count, tone) in &tiles {
                @let tone = if *count == 0 { Tone::Dim } else { *tone };
                div.tile {
                    span.big.(class(tone)) { (rate(rates.of(name, *count))) }
                    span { (name) }
                    span.dim { (number(*count)) " so far" }
                }
            }
        }
    }
}

type Busy = (Key, u64, Option<f64>);

/// Services by what comes to them now; at the first look, by what came so far.
fn busiest(counted: Option<HashMap<&Key, Counted>>, rates: &mut Rates) -> Vec<Busy> {
    let counted = counted.into_iter().flatten();
    let counted = counted.map(|(key, counted)| (key, counted.connections));
    let mut all: Vec<Busy> = counted
        .filter(|(_, connections)| *connections > 0)
        .map(|(key, connections)| {
            (key.clone(), connections, rates.of(&format!("busy/{key}"), connections))
        })
        .collect();
    all.sort_by(|a, b| {
        let by_rate = b.2.unwrap_or_default().total_cmp(&a.2.unwrap_or_default());
        by_rate.then(b.1.cmp(&a.1)).then(a.0.cmp(&b.0))
    });
    all.truncate(BUSIEST_SHOWN);
    all
}

fn busiest_table(busiest: &[Busy]) -> Markup {
    html! {
        section {
            h2 { "Busiest Services" }
            table.list {
                (head(&["Service", "#Connections", "#Rate"]))
                tbody {
                    @for (key, count, now) in busiest {
                        tr {
                            @let to = link("/service", &[("name", &key.to_string())]);
                            td data-label="Service" { a href=(to) { (key) } }
                            td.number data-label="Connections" { (number(*count)) }
                            td.number data-label="Rate" { (rate(*now)) }
                        }
                    }
                }
            }
        }
    }
}

fn warnings(status: &Status) -> Markup {
    let shown = status.warnings.iter().take(WARNINGS_SHOWN_MAX);
    let count = status.warnings.len();
    let more = count.saturating_sub(WARNINGS_SHOWN_MAX);
    html! {
        section {
            h2 {
                "Warnings"
                @if count > 0 { (pill(&count.to_string(), Tone::Attention)) }
            }
            @if count == 0 { p.dim { "none" } }
            ul.warnings { @for warning in shown { li { (warning) } } }
            @if more > 0 { p.dim { "and " (more) " more: " code { "fairlead status -o wide" } } }
        }
    }
}
