//! Services: `fairlead services`.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::super::{
    Facts,
    asked::link,
    frame::{Content, pager, search},
    picture::{Picture, Station},
    rates::Rates,
    words::{class, head, number, pill, rate, ready},
};
use crate::{
    report::{
        bytes::{BothWays, Bytes},
        endpoints::EndpointRow,
        part::Wanted,
        services::{self, FrontendRow, ServiceRow, Which},
    },
    table::Tone,
};

const HEAD: [&str; 8] =
    ["Service", "Type", "Address", "Ports", "Ready", "#Connections", "#Rate", "#Refused"];
/// Where bytes are counted.
const HEAD_OF_BYTES: [&str; 2] = ["#Bytes by socket", "#Bytes by packet"];

/// The list.
pub(in crate::web) fn list<F: Facts>(
    facts: &F,
    rates: &mut Rates,
    text: &str,
    which: Which,
    page: usize,
) -> anyhow::Result<Content> {
    let (rows, extent) =
        facts.look(|view| Ok(services::some(view, &Wanted::page(text, page), which)))?;
    let chosen = match which {
        Which::All => "",
        Which::Down => "down",
        Which::Problematic => "problems",
    };
    let option = |value: &str, name: &str| {
        html! { option value=(value) selected[value == chosen] { (name) } }
    };
    let choice = html! {
        select name="which" aria-label="Which Services" {
            (option("", "all"))
            (option("down", "without a ready endpoint"))
            (option("problems", "not served as they ask"))
        }
    };
    let still = search("/services", text, "name, namespace, address or port", &choice);
    let pages = pager(extent, "/services", &[("q", text), ("which", chosen)]);
    let live = html! {
        (pages)
        @if !rows.is_empty() {
            (table(&rows, rates))
            @if extent.fitting > extent.taken { (pages) }
        }
    };
    Ok(Content::new("Services", still, live))
}

fn table(rows: &[ServiceRow], rates: &mut Rates) -> Markup {
    let has_bytes = rows.iter().any(|row| row.bytes.is_some());
    let mut columns = HEAD.to_vec();
    if has_bytes {
        columns.extend(HEAD_OF_BYTES);
    }
    html! {
        table.list {
            (head(&columns))
            tbody { @for row in rows { (line(row, rates, has_bytes)) } }
        }
    }
}

fn line(row: &ServiceRow, rates: &mut Rates, has_bytes: bool) -> Markup {
    let name = format!("{}/{}", row.namespace, row.name);
    let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
    let now = row.connections.and_then(|count| rates.of(&name, count));
    let refused = row.rejected.unwrap_or_default();
    html! {
        tr {
            td data-label="Service" {
                a href=(link("/service", &[("name", &name)])) {
                    span.dim { (row.namespace) "/" } (row.name)
                }
                @for problem in &row.problems { div.attention { (problem) } }
            }
            td data-label="Type" { (row.kind) }
            td data-label="Address" { @for address in &addresses { span.address { (address) } " " } }
            td data-label="Ports" { (row.ports.join(", ")) }
            td data-label="Ready" {
                @if row.kind == "ExternalName" { span.dim { "–" } }
                @else { (ready(row.ready, row.endpoints_total)) }
            }
            td.number data-label="Connections" { (row.connections.map_or("–".to_owned(), number)) }
            td.number data-label="Rate" { (rate(now)) }
            td.number data-label="Refused" {
                @if refused > 0 { span.attention { (number(refused)) } } @else { span.dim { "0" } }
            }
            @if has_bytes {
                td.number data-label="By socket" { (ways(row.bytes.map(|bytes| bytes.sockets))) }
                td.number data-label="By packet" { (ways(row.bytes.map(|bytes| bytes.packets))) }
            }
        }
    }
}

fn ways(bytes: Option<BothWays>) -> String {
    bytes.map_or("–".to_owned(), |bytes| bytes.to_string())
}

/// One Service.
pub(in crate::web) fn one<F: Facts>(
    facts: &F,
    rates: &mut Rates,
    name: &str,
) -> anyhow::Result<Content> {
    let report = facts.look(|view| services::build(view, Some(name)))?;
    let Some(row) = report.services.first() else { anyhow::bail!("there is no Service {name}") };
    let live = html! {
        (facts_of(row, rates, &report.source))
        (picture(row).draw("From the Service's addresses to its endpoints"))
        @for problem in &row.problems { p.note.attention { (problem) } }
        (frontends(row))
        (endpoints(&row.endpoints))
    };
    let target = row.ports.first().and_then(|port| {
        let (number, protocol) = port.split_once('/')?;
        let number = number.split(':').next()?;
        Some(format!("{protocol} {}.{}:{number}", row.name, row.namespace))
    });
    let still = html! {
        p.lead {
            a href="/services" { "‹ all Services" }
            @if let Some(target) = target {
                " · " a href=(link("/trace", &[("target", &target)])) { "trace " (target) }
            }
        }
    };
    Ok(Content::new(format!("{}/{}", row.namespace, row.name), still, live))
}

fn facts_of(row: &ServiceRow, rates: &mut Rates, source: &str) -> Markup {
    let fact = |name: &str, value: String| {
        html! { @if !value.is_empty() { div { dt { (name) } dd { (value) } } } }
    };
    let health_port = row.health_check_node_port.map(|port| port.to_string());
    let affinity = match row.affinity_seconds {
        0 => String::new(),
        seconds => format!("ClientIP, {seconds} s"),
    };
    html! {
        dl.facts {
            div { dt { "Ready" } dd { (ready(row.ready, row.endpoints_total)) } }
            (fact("Type", row.kind.clone()))
            (fact("Ports", row.ports.join(", ")))
            @if let (Some(connections), Some(rejected)) = (row.connections, row.rejected) {
                @let now = rate(rates.of("connections", connections));
                @let tone = if rejected > 0 { Tone::Attention } else { Tone::Dim };
                div { dt { "Connections" } dd { (number(connections)) " " span.dim { (now) } } }
                div { dt { "Refused" } dd.(class(tone)) { (number(rejected)) } }
            }
            @if let Some(Bytes { sockets, packets }) = row.bytes {
                (fact("Bytes by socket", sockets.to_string()))
                (fact("Bytes by packet", packets.to_string()))
            }
            (fact("Internal policy", row.internal_traffic_policy.clone()))
            (fact("External policy", row.external_traffic_policy.clone()))
            (fact("Affinity", affinity))
            (fact("Distribution", row.traffic_distribution.clone().unwrap_or_default()))
            (fact("Source ranges", row.source_ranges.join(", ")))
            (fact("Health check port", health_port.unwrap_or_default()))
            (fact("From", source.to_owned()))
        }
    }
}

/// How a state of an endpoint looks.
pub(in crate::web) fn state_tone(state: &str) -> Tone {
    match state {
        "ready" => Tone::Good,
        "terminating (still serving)" => Tone::Attention,
        _ => Tone::Bad,
    }
}

/// A pod, or an address without one.
pub(in crate::web) fn pod(row: &EndpointRow) -> Station {
    let node = row.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
    let note = match row.state.as_str() {
        "ready" => format!("{}{node}", row.address),
        state => format!("{state}{node}"),
    };
    let title = row.pod.clone().unwrap_or_else(|| row.address.clone());
    Station { title, note, tone: state_tone(&row.state), link: String::new() }
}

fn picture(row: &ServiceRow) -> Picture {
    let mut picture = Picture::new(&["Clients dial", "Service port", "Endpoints"]);
    for frontend in &row.frontends {
        let tone = if frontend.endpoints == 0 { Tone::Bad } else { Tone::Good };
        let station = Station {
            title: frontend.frontend.clone(),
            note: frontend.leads_to.clone(),
            tone,
            ..Station::default()
        };
        let from = picture.put(0, station);
        let port = picture.put(1, port_station(row, &frontend.port));
        picture.join(from, port, tone);
    }
    for endpoint in &row.endpoints {
        let port = picture.put(1, port_station(row, &endpoint.port));
        let station = pod(endpoint);
        let tone = station.tone;
        let to = picture.put(2, station);
        picture.join(port, to, tone);
    }
    picture
}

fn port_station(row: &ServiceRow, port: &str) -> Station {
    let here = row.endpoints.iter().filter(|endpoint| endpoint.port == port);
    // A pod may have two addresses.
    let pods = |ready: bool| {
        let wanted = here.clone().filter(|endpoint| !ready || endpoint.state == "ready");
        wanted.map(|endpoint| pod(endpoint).title).collect::<BTreeSet<_>>().len()
    };
    let tone = if pods(true) == 0 { Tone::Bad } else { Tone::Good };
    let note = format!("{} of {} ready", pods(true), pods(false));
    Station { title: port.to_owned(), note, tone, link: String::new() }
}

fn frontends(row: &ServiceRow) -> Markup {
    html! {
        @if !row.frontends.is_empty() {
            h2 { "Frontends" }
            table.list {
                (head(&["Frontend", "Port", "Leads to"]))
                tbody {
                    @for FrontendRow { frontend, port, leads_to, endpoints } in &row.frontends {
                        @let tone = if *endpoints == 0 { Tone::Bad } else { Tone::Good };
                        tr {
                            td data-label="Frontend" { code { (frontend) } }
                            td data-label="Port" { (port) }
                            td data-label="Leads to" { span.(class(tone)) { (leads_to) } }
                        }
                    }
                }
            }
        }
    }
}

fn endpoints(rows: &[EndpointRow]) -> Markup {
    let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
    html! {
        h2 { "Endpoints" }
        @if rows.is_empty() { p.note.bad { "none" } }
        @else {
            table.list {
                (head(&["Endpoint", "Port", "State", "Pod", "Node", "Zone"]))
                tbody {
                    @for row in rows {
                        tr {
                            td data-label="Endpoint" { code { (row.address) } }
                            td data-label="Port" { (row.port) }
                            td data-label="State" { (pill(&row.state, state_tone(&row.state))) }
                            td data-label="Pod" { (word(&row.pod)) }
                            td data-label="Node" { (word(&row.node)) }
                            td data-label="Zone" {
                                (word(&row.zone))
                                @if !row.hints.is_empty() {
                                    span.dim { " for " (row.hints.join(", ")) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{services::Services, tests::shown};

    #[test]
    fn bytes_are_shown_where_they_are_counted_and_nothing_of_them_elsewhere() {
        let report = serde_json::from_value::<Services>(shown("fairlead services")).unwrap();
        let mut rows = report.services;
        let pages = |rows: &[ServiceRow]| {
            let mut rates = Rates::default();
            let one = facts_of(&rows[0], &mut rates, "kernel maps").into_string();
            [table(rows, &mut rates).into_string(), one]
        };
        for text in pages(&rows) {
            assert!(text.contains("Bytes by socket"), "{text}");
            assert!(text.contains("4.6 KiB to it, 60.0 KiB from it"), "{text}");
            assert!(text.contains("0 B to it, 0 B from it"), "by packet, {text}");
        }
        rows[0].bytes = None;
        for text in pages(&rows) {
            assert!(!text.contains("Bytes") && !text.contains("to it"), "{text}");
        }
    }
}
