//! `fairlead routes`: hosts, paths, backends, certificates; what acts and what is refused.

use std::collections::BTreeMap;

use anyhow::Context as _;
use fairlead_ingress::{Histogram, RouteRow, explain::Explainer};
use fairlead_state::{Key, model::PathType};
use serde::{Deserialize, Serialize};

use super::part::{Extent, Wanted};
use crate::{
    table::{Cell, Screen, Table, Tone},
    view::View,
};

/// One path of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) host: String,
    /// Empty: what no path matches.
    pub(crate) path: String,
    pub(crate) path_type: String,
    pub(crate) ingress: String,
    /// `NAMESPACE/SERVICE:PORT`; `null`: a backend of a kind that is not served.
    pub(crate) service: Option<String>,
    pub(crate) endpoints: Vec<String>,
    /// The Secret shown for the host; `null` without TLS.
    pub(crate) certificate: Option<String>,
    pub(crate) redirects_to_https: bool,
    pub(crate) annotations: Vec<String>,
    /// `null`: nobody asked for it yet.
    pub(crate) served: Option<Served>,
}

/// What became of the requests of a path since it is served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// By class, `2xx`.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Half of them took no longer, in milliseconds; an estimate, as Prometheus makes it.
    pub(crate) p50_ms: f64,
    /// 99 of 100 took no longer.
    pub(crate) p99_ms: f64,
}

/// By host and path.
type ServedBy = BTreeMap<(String, String), Served>;

/// Something worth knowing of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FindingRow {
    pub(crate) object: String,
    /// `refused`, `differs`, `waiting`, `not ours`.
    pub(crate) severity: String,
    pub(crate) reason: String,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Routes {
    pub(crate) routes: Vec<Row>,
    pub(crate) findings: Vec<FindingRow>,
}

/// All routes, or those of a host and of wildcards that cover it.
///
/// # Errors
/// This agent has no Ingress role.
pub(crate) fn build(view: &View<'_>, host: Option<&str>) -> anyhow::Result<Routes> {
    let routes = explainer(view)?;
    let covers = |pattern: &str| {
        host.is_none_or(|host| {
            let host = host.to_ascii_lowercase();
            let suffix = host.split_once('.').map(|(_, suffix)| format!("*.{suffix}"));
            pattern == host || pattern == "*" || Some(pattern) == suffix.as_deref()
        })
    };
    let rows = routes.rows().into_iter().filter(|row| covers(&row.host));
    let served = served(routes);
    let rows: Vec<Row> = rows.map(|row| self::row(routes, &served, row)).collect();
    let findings = findings(view, routes).into_iter();
    let related = |finding: &FindingRow| {
        host.is_none()
            || rows.iter().any(|row| finding.object.ends_with(&format!(" {}", row.ingress)))
            || host.is_some_and(|host| finding.reason.contains(host))
            || names_host(view, &finding.object, host)
    };
    let findings = findings.filter(related).collect();
    Ok(Routes { routes: rows, findings })
}

/// The wanted part of all routes; findings are not among it.
///
/// # Errors
/// This agent has no Ingress role.
pub(crate) fn some(view: &View<'_>, wanted: &Wanted) -> anyhow::Result<(Vec<Row>, Extent)> {
    let routes = explainer(view)?;
    let fits = |row: &RouteRow| {
        wanted.fits(|word| {
            row.host.contains(word)
                || row.path.to_ascii_lowercase().contains(word)
                || row.ingress.to_string().contains(word)
                || row.service.as_ref().is_some_and(|service| service.to_string().contains(word))
        })
    };
    let (rows, extent) = wanted.take(routes.rows().into_iter(), wanted.has_words().then_some(fits));
    let served = served(routes);
    Ok((rows.into_iter().map(|row| self::row(routes, &served, row)).collect(), extent))
}

fn explainer<'a>(view: &'a View<'_>) -> anyhow::Result<&'a Explainer> {
    view.routes.as_ref().context(
        "this agent has no Ingress role: ask the agent that has it (in a cluster: the \
         fairlead-ingress pod)",
    )
}

fn row(routes: &Explainer, served: &ServedBy, row: RouteRow) -> Row {
    Row {
        served: served.get(&(row.host.clone(), row.path.clone())).cloned(),
        path_type: path_type(row.path_type).to_owned(),
        service: row.service.as_ref().map(ToString::to_string),
        endpoints: row.endpoints.iter().map(ToString::to_string).collect(),
        certificate: row.tls.then(|| certificate(routes, &row.host)),
        redirects_to_https: row.redirects_to_https,
        annotations: routes.annotations(&row.ingress),
        host: row.host,
        path: row.path,
        ingress: row.ingress.to_string(),
    }
}

fn served(routes: &Explainer) -> ServedBy {
    let mut all: BTreeMap<_, (BTreeMap<String, u64>, Histogram)> = BTreeMap::new();
    for route in routes.served_by_route() {
        let place = (route.labels.host.to_string(), route.labels.path.to_string());
        let (answers, durations) = all.entry(place).or_default();
        for (kind, histogram) in &route.requests {
            *answers.entry(kind.class_label()).or_default() += histogram.count();
            durations.add(histogram);
        }
    }
    let told = all.into_iter().map(|(place, (answers, durations))| {
        let ms = |quantile| durations.quantile(quantile).unwrap_or_default() / 1_000.0;
        (place, Served { answers, p50_ms: ms(0.5), p99_ms: ms(0.99) })
    });
    told.collect()
}

impl Served {
    /// `120 2xx, 3 5xx`.
    pub(crate) fn answers(&self) -> String {
        let counts = self.answers.iter().map(|(class, count)| format!("{count} {class}"));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// `p50 2.5 ms, p99 24.9 ms`.
    pub(crate) fn times(&self) -> String {
        format!("p50 {:.1} ms, p99 {:.1} ms", self.p50_ms, self.p99_ms)
    }
}

/// Whether the Ingress of a finding has a rule for the host.
fn names_host(view: &View<'_>, object: &str, host: Option<&str>) -> bool {
    let (Some(host), Some(key)) = (host, object.strip_prefix("Ingress ")) else { return false };
    let Some((namespace, name)) = key.split_once('/') else { return false };
    let ingress = view.snapshot.ingresses().get(&Key::new(namespace, name));
    ingress.is_some_and(|i| i.rules.iter().any(|rule| rule.host.as_deref() == Some(host)))
}

/// What is refused, differs, waits or is another controller's.
pub(crate) fn findings(view: &View<'_>, routes: &Explainer) -> Vec<FindingRow> {
    let own = routes.findings().into_iter().map(|finding| FindingRow {
        object: finding.object.to_string(),
        severity: finding.severity.as_str().to_owned(),
        reason: finding.in_full(),
    });
    let foreign = routes.foreign(&view.snapshot).into_iter().map(|foreign| FindingRow {
        object: format!("Ingress {}", foreign.ingress),
        severity: "not ours".to_owned(),
        reason: foreign.reason,
    });
    own.chain(foreign).collect()
}

fn certificate(routes: &Explainer, host: &str) -> String {
    // A wildcard's certificate is that of any name below it.
    let name = host.replace('*', "any");
    let choice = routes.certificate(&name);
    choice.secret.map_or_else(|| "self-signed".to_owned(), |secret| secret.to_string())
}

pub(super) fn path_type(kind: PathType) -> &'static str {
    match kind {
        PathType::Exact => "Exact",
        PathType::Prefix => "Prefix",
        PathType::ImplementationSpecific => "ImplementationSpecific",
    }
}

/// For people.
pub(crate) fn show(report: &Routes, screen: Screen, wide: bool) -> String {
    let mut head = vec!["HOST", "PATH", "TYPE", "SERVICE", "READY", "CERTIFICATE", "INGRESS"];
    if wide {
        head.extend(["HTTPS ONLY", "ANSWERS", "TIMES", "ENDPOINTS", "ANNOTATIONS"]);
    }
    let mut table = Table::new(&head);
    for row in &report.routes {
        let ready = row.endpoints.len();
        let tone = if ready == 0 { Tone::Bad } else { Tone::Good };
        let certificate = match row.certificate.as_deref() {
            Some("self-signed") => Cell::of("self-signed", Tone::Attention),
            other => Cell::from(other.unwrap_or("-")),
        };
        let mut cells: Vec<Cell> = vec![
            row.host.as_str().into(),
            if row.path.is_empty() { "(default)".into() } else { row.path.as_str().into() },
            row.path_type.as_str().into(),
            row.service.as_deref().unwrap_or("none").into(),
            Cell::of(ready.to_string(), tone),
            certificate,
            row.ingress.as_str().into(),
        ];
        if wide {
            cells.push(if row.redirects_to_https { "yes" } else { "no" }.into());
            let told = |tell: fn(&Served) -> String| row.served.as_ref().map(tell);
            cells.push(told(Served::answers).as_deref().unwrap_or("-").into());
            cells.push(told(Served::times).as_deref().unwrap_or("-").into());
            cells.push(row.endpoints.join(",").into());
            cells.push(row.annotations.join(" ").into());
        }
        table.row(cells);
    }
    let mut text = if table.is_empty() { "no routes\n".to_owned() } else { table.text(screen) };
    if !report.findings.is_empty() {
        text.push('\n');
    }
    for FindingRow { object, severity, reason } in &report.findings {
        let tone = if severity == "refused" { Tone::Bad } else { Tone::Attention };
        text.push_str(&format!("{object} {}: {reason}\n", screen.paint(severity, tone)));
    }
    text
}
