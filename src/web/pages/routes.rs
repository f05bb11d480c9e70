//! Hosts and paths: `fairlead routes`.

use std::collections::BTreeSet;

use fairlead_state::Key;
use maud::{Markup, html};

use super::super::{
    Facts,
    asked::link,
    frame::{Content, pager, search},
    picture::{Picture, Station},
    rates::Rates,
    words::{class, head, number, pill, rate},
};
use super::services::pod;
use crate::{
    report::{
        endpoints::{self, EndpointRow},
        part::Wanted,
        routes::{self, FindingRow, Routes, Row},
    },
    table::Tone,
    view::View,
};

/// The list.
pub(in crate::web) fn list<F: Facts>(
    facts: &F,
    rates: &mut Rates,
    text: &str,
    page: usize,
) -> anyhow::Result<Content> {
    let (rows, extent) = facts.look(|view| routes::some(view, &Wanted::page(text, page)))?;
    let still = search("/routes", text, "host, path, Service or Ingress", &html! {});
    let pages = pager(extent, "/routes", &[("q", text)]);
    let live = html! {
        (answers(facts, rates))
        (pages)
        @if !rows.is_empty() { (table(&rows)) @if extent.fitting > extent.taken { (pages) } }
    };
    Ok(Content::new("Routes", still, live))
}

/// Ingress's answers by status code.
fn answers<F: Facts>(facts: &F, rates: &mut Rates) -> Markup {
    let responses = facts.traffic().responses.unwrap_or_default();
    html! {
        @if !responses.is_empty() {
            p.codes {
                @for (code, count) in responses {
                    @let tone = match code / 100 {
                        5 => Tone::Bad,
                        4 => Tone::Attention,
                        _ => Tone::Good,
                    };
                    @let code = code.to_string();
                    span.code {
                        (pill(&code, tone)) " " (number(count)) " "
                        span.dim { (rate(rates.of(&code, count))) }
                    }
                }
            }
        }
    }
}

fn table(rows: &[Row]) -> Markup {
    html! {
        table.list {
            (head(&["Host", "Path", "Service", "Ready", "Answers", "Certificate", "Ingress"]))
            tbody {
                @for row in rows {
                    tr {
                        @let to = link("/host", &[("name", &row.host)]);
                        td data-label="Host" { a href=(to) { (row.host) } }
                        td data-label="Path" { code { (path(row)) } " " span.dim { (row.path_type) } }
                        td data-label="Service" {
                            @if let Some(service) = &row.service { (service) }
                            @else { span.bad { "none" } }
                        }
                        td data-label="Ready" { (pill(&row.endpoints.len().to_string(), tone(row))) }
                        td data-label="Answers" { (served(row)) }
                        td data-label="Certificate" { (certificate(row)) }
                        td data-label="Ingress" { (row.ingress) }
                    }
                }
            }
        }
    }
}

fn path(row: &Row) -> &str {
    if row.path.is_empty() { "(default)" } else { &row.path }
}

fn tone(row: &Row) -> Tone {
    if row.endpoints.is_empty() { Tone::Bad } else { Tone::Good }
}

/// By class, and how long they took.
fn served(row: &Row) -> Markup {
    html! {
        @if let Some(served) = &row.served {
            (served.answers()) " " span.dim { (served.times()) }
        } @else { span.dim { "–" } }
    }
}

fn certificate(row: &Row) -> Markup {
    html! {
        @match row.certificate.as_deref() {
            None => span.dim { "–" },
            Some("self-signed") => (pill("self-signed", Tone::Attention)),
            Some(secret) => (secret),
        }
    }
}

/// One host: the way from its name to its pods.
pub(in crate::web) fn host<F: Facts>(facts: &F, host: &str) -> anyhow::Result<Content> {
    let (report, pods) = facts.look(|view| {
        let report = routes::build(view, Some(host))?;
        let pods = report.routes.iter().map(|row| behind(view, row)).collect::<Vec<_>>();
        Ok((report, pods))
    })?;
    let Routes { routes, findings } = report;
    let live = html! {
        @if routes.is_empty() { p.note.bad { "404: nothing is served under this host." } }
        @else {
            (picture(host, &routes, &pods).draw("From the host's name to its pods"))
            (table(&routes))
        }
        @for FindingRow { object, severity, reason } in &findings {
            @let tone = if severity == "refused" { Tone::Bad } else { Tone::Attention };
            p.note.(class(tone)) { (object) " " b { (severity) } ": " (reason) }
        }
        @for row in &routes {
            @if !row.annotations.is_empty() {
                p.dim { (row.ingress) ": " code { (row.annotations.join(", ")) } }
            }
        }
    };
    let scheme = if routes.iter().any(|row| row.certificate.is_some()) { "https" } else { "http" };
    let target = format!("{scheme}://{host}/");
    let still = html! {
        p.lead {
            a href="/routes" { "‹ all routes" }
            // A pattern is no name that a client could ask for.
            @if !host.contains('*') {
                " · " a href=(link("/trace", &[("target", &target)])) { "trace " (target) }
            }
        }
    };
    Ok(Content::new(host, still, live))
}

/// The endpoints behind a route, those that are not ready included.
fn behind(view: &View<'_>, row: &Row) -> Vec<EndpointRow> {
    let parsed = row.service.as_deref().and_then(|service| {
        let (key, port) = service.rsplit_once(':')?;
        Some((key.split_once('/')?, port))
    });
    let Some(((namespace, name), port)) = parsed else { return Vec::new() };
    let Some(service) = view.snapshot.services().get(&Key::new(namespace, name)) else {
        return Vec::new();
    };
    let mut ports = service.ports.iter();
    let port = ports.find(|known| *known.name == *port || known.port.to_string() == port);
    port.map(|port| endpoints::rows(&view.snapshot, service, Some(port))).unwrap_or_default()
}

fn picture(host: &str, rows: &[Row], pods: &[Vec<EndpointRow>]) -> Picture {
    let mut picture = Picture::new(&["Host", "Path", "Service", "Pods"]);
    for (row, pods) in rows.iter().zip(pods) {
        let tone = tone(row);
        let note = match row.certificate.as_deref() {
            None => "HTTP".to_owned(),
            Some(secret) => format!("HTTPS, {secret}"),
        };
        let title = if row.host == "*" { host } else { &row.host };
        let at_host =
            picture.put(0, Station { title: title.to_owned(), note, ..Station::default() });
        let path = path(row);
        let note = format!("{} of {}", row.path_type, row.ingress);
        let at_path =
            picture.put(1, Station { title: path.to_owned(), note, tone, ..Station::default() });
        picture.join(at_host, at_path, tone);
        let Some(service) = &row.service else { continue };
        let name = service.rsplit_once(':').map_or(service.as_str(), |(name, _)| name);
        let to = link("/service", &[("name", name)]);
        // Of a pod with two addresses requests take one.
        let all: BTreeSet<String> = pods.iter().map(|endpoint| pod(endpoint).title).collect();
        let note = format!("{} of {} ready", row.endpoints.len(), all.len());
        let at_service = picture.put(2, Station { title: service.clone(), note, tone, link: to });
        picture.join(at_path, at_service, tone);
        for endpoint in pods {
            let station = pod(endpoint);
            let tone = station.tone;
            let at_pod = picture.put(3, station);
            picture.join(at_service, at_pod, tone);
        }
    }
    picture
}
