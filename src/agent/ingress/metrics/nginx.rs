//! ingress-nginx's metrics. By method and status only requests and their durations are told apart:
//! all of them by all of that are millions of series in a large cluster.

use std::fmt::Write as _;

use fairlead_ingress::{
    DURATION_BOUNDS_US, Histogram, LENGTH_BOUNDS, RequestKind, RouteCounters, SIZE_BOUNDS,
};
use fairlead_state::Key;

use super::Seen;
use crate::agent::pages::escaped;

const PREFIX: &str = "nginx_ingress_controller";
const MICROS: f64 = 1_000_000.0;
const BYTES: f64 = 1.0;

/// What one histogram of a route is taken from, and told by.
struct Told {
    name: &'static str,
    of: fn(&RouteCounters) -> &Histogram,
    bounds: &'static [u64],
    per_unit: f64,
}

const BY_ROUTE: [Told; 6] = [
    Told {
        name: "connect_duration_seconds",
        of: |route| &route.connect,
        bounds: &DURATION_BOUNDS_US,
        per_unit: MICROS,
    },
    Told {
        name: "header_duration_seconds",
        of: |route| &route.header,
        bounds: &DURATION_BOUNDS_US,
        per_unit: MICROS,
    },
    Told {
        name: "response_duration_seconds",
        of: |route| &route.response,
        bounds: &DURATION_BOUNDS_US,
        per_unit: MICROS,
    },
    Told {
        name: "request_size",
        of: |route| &route.request_bytes,
        bounds: &LENGTH_BOUNDS,
        per_unit: BYTES,
    },
    Told {
        name: "response_size",
        of: |route| &route.response_bytes,
        bounds: &LENGTH_BOUNDS,
        per_unit: BYTES,
    },
    Told {
        name: "bytes_sent",
        of: |route| &route.response_bytes,
        bounds: &SIZE_BOUNDS,
        per_unit: BYTES,
    },
];

/// The labels ingress-nginx gives all it tells; `pod`: the one this runs in.
pub(in crate::agent::ingress) fn controller(class: &str, pod: Option<&Key>) -> String {
    let (namespace, name) = pod.map_or(("", ""), |pod| (&*pod.namespace, &*pod.name));
    format!(
        "controller_class=\"{}\",controller_namespace=\"{namespace}\",controller_pod=\"{name}\"",
        escaped(class)
    )
}

/// Appends everything. Writing to a String cannot fail.
pub(super) fn write(text: &mut String, controller: &str, seen: &Seen) {
    let routes: Vec<(String, &RouteCounters)> =
        seen.routes.iter().map(|route| (labels(controller, route), route)).collect();
    requests(text, &routes);
    for told in &BY_ROUTE {
        let name = format!("{PREFIX}_{}", told.name);
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (labels, route) in &routes {
            let canary = canary(route, None);
            let labels = format!("{labels},{canary}");
            let unit = (told.bounds, told.per_unit);
            histogram(text, &name, &labels, (told.of)(route), unit);
        }
    }
    process(text, controller, seen);
    configuration(text, controller, seen);
    certificates(text, controller, seen);
}

fn labels(controller: &str, route: &RouteCounters) -> String {
    let labels = &route.labels;
    format!(
        "{controller},host=\"{}\",ingress=\"{}\",namespace=\"{}\",path=\"{}\",service=\"{}\"",
        escaped(&labels.host),
        escaped(&labels.ingress),
        escaped(&labels.namespace),
        escaped(&labels.path),
        escaped(&labels.service),
    )
}

/// Requests the Service under trial did not get are nobody's trial.
fn canary(route: &RouteCounters, kind: Option<&RequestKind>) -> String {
    let is_canary = kind.is_some_and(|kind| kind.is_canary);
    let name = if is_canary { &*route.labels.canary } else { "" };
    format!("canary=\"{}\"", escaped(name))
}

fn requests(text: &mut String, routes: &[(String, &RouteCounters)]) {
    let kinds: Vec<(String, &Histogram)> = routes
        .iter()
        .flat_map(|(labels, route)| {
            route.requests.iter().map(move |(kind, histogram)| {
                let status = match kind.status {
                    0 => "other".to_owned(),
                    status => status.to_string(),
                };
                let canary = canary(route, Some(kind));
                let method = kind.method;
                let labels = format!("{labels},{canary},method=\"{method}\",status=\"{status}\"");
                (labels, histogram)
            })
        })
        .collect();
    let name = format!("{PREFIX}_requests");
    let _ = writeln!(text, "# TYPE {name} counter");
    for (labels, histogram) in &kinds {
        let _ = writeln!(text, "{name}{{{labels}}} {}", histogram.count());
    }
    let name = format!("{PREFIX}_request_duration_seconds");
    let _ = writeln!(text, "# TYPE {name} histogram");
    for (labels, durations) in &kinds {
        histogram(text, &name, labels, durations, (&DURATION_BOUNDS_US, MICROS));
    }
}

/// One that has counted anything.
fn histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    histogram: &Histogram,
    (bounds, per_unit): (&[u64], f64),
) {
    let count = histogram.count();
    if count == 0 {
        return;
    }
    for (bound, within) in bounds.iter().zip(histogram.cumulated(bounds)) {
        let bound = shown(*bound, per_unit);
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {within}");
    }
    let sum = shown(histogram.sum, per_unit);
    let _ = writeln!(
        text,
        "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n{name}_sum{{{labels}}} {sum}\n\
         {name}_count{{{labels}}} {count}"
    );
}

/// In the unit that is told.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has nothing but floating point numbers")]
fn shown(value: u64, per_unit: f64) -> f64 {
    value as f64 / per_unit
}

/// What nginx's stub_status tells, as far as there is such a thing.
fn process(text: &mut String, controller: &str, seen: &Seen) {
    let counters = &seen.counters;
    let name = format!("{PREFIX}_nginx_process_connections");
    let open = counters.connections_open;
    let _ = writeln!(text, "# TYPE {name} gauge\n{name}{{{controller},state=\"active\"}} {open}");
    let name = format!("{PREFIX}_nginx_process_connections_total");
    let _ = writeln!(text, "# TYPE {name} counter");
    for state in ["accepted", "handled"] {
        let count = counters.connections;
        let _ = writeln!(text, "{name}{{{controller},state=\"{state}\"}} {count}");
    }
    let name = format!("{PREFIX}_nginx_process_requests_total");
    let requests = counters.requests();
    let _ = writeln!(text, "# TYPE {name} counter\n{name}{{{controller}}} {requests}");
}

/// Nothing is ever reloaded; what is in force has a number, and dashboards find controllers by it.
fn configuration(text: &mut String, controller: &str, seen: &Seen) {
    let name = format!("{PREFIX}_config_hash");
    let _ = writeln!(text, "# TYPE {name} gauge\n{name}{{{controller}}} {}", seen.revision);
    let name = format!("{PREFIX}_config_last_reload_successful");
    let is_served = u8::from(seen.revision > 0);
    let _ = writeln!(text, "# TYPE {name} gauge\n{name}{{{controller}}} {is_served}");
}

fn certificates(text: &mut String, controller: &str, seen: &Seen) {
    let name = format!("{PREFIX}_ssl_expire_time_seconds");
    let _ = writeln!(text, "# TYPE {name} gauge");
    for expiry in &seen.expiries {
        let (host, secret) = (escaped(&expiry.host), &expiry.secret);
        let _ = writeln!(
            text,
            "{name}{{{controller},host=\"{host}\",namespace=\"{}\",secret_name=\"{}\"}} {}",
            secret.namespace, secret.name, expiry.expires_seconds
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairlead_ingress::{Counters, SeriesLabels, explain::Expiry};

    use super::*;

    fn histogram_of(bounds: &'static [u64], slot: usize, sum: u64) -> Histogram {
        let mut counts = vec![0; bounds.len() + 1];
        counts[slot] = 2;
        Histogram { bounds, counts, sum }
    }

    fn seen() -> Seen {
        let labels = SeriesLabels {
            host: "a.example".into(),
            path: "/a\"b".into(),
            namespace: "shop".into(),
            ingress: "web".into(),
            service: "front".into(),
            canary: "next".into(),
        };
        let kind = RequestKind { status: 200, method: "GET", is_canary: false };
        let durations = histogram_of(&DURATION_BOUNDS_US, 1, 14_000);
        let requests = BTreeMap::from([
            (kind, durations.clone()),
            (RequestKind { is_canary: true, ..kind }, durations.clone()),
        ]);
        let nothing = Histogram::default();
        let route = RouteCounters {
            labels,
            requests,
            connect: nothing.clone(),
            header: durations,
            response: nothing.clone(),
            request_bytes: nothing,
            response_bytes: histogram_of(&SIZE_BOUNDS, 2, 900),
        };
        let expiry = Expiry {
            host: "a.example".to_owned(),
            secret: Key::new("shop", "cert"),
            expires_seconds: 1_800_000_000,
        };
        let counters = Counters { connections: 5, connections_open: 2, ..Counters::default() };
        Seen { counters, routes: vec![route], expiries: vec![expiry], revision: 7 }
    }

    #[test]
    fn names_labels_and_buckets_are_ingress_nginxs() {
        let controller = controller("fairlead.io/ingress", Some(&Key::new("kube-system", "p")));
        let mut text = String::new();
        write(&mut text, &controller, &seen());
        let own = "controller_class=\"fairlead.io/ingress\",controller_namespace=\"kube-system\",\
                   controller_pod=\"p\"";
        let route = format!(
            "{own},host=\"a.example\",ingress=\"web\",namespace=\"shop\",path=\"/a\\\"b\",\
             service=\"front\""
        );
        let kind = format!("{route},canary=\"\",method=\"GET\",status=\"200\"");
        for line in [
            format!("requests{{{kind}}} 2"),
            format!("requests{{{route},canary=\"next\",method=\"GET\",status=\"200\"}} 2"),
            format!("request_duration_seconds_bucket{{{kind},le=\"0.005\"}} 0"),
            format!("request_duration_seconds_bucket{{{kind},le=\"0.01\"}} 2"),
            format!("request_duration_seconds_bucket{{{kind},le=\"10\"}} 2"),
            format!("request_duration_seconds_bucket{{{kind},le=\"+Inf\"}} 2"),
            format!("request_duration_seconds_sum{{{kind}}} 0.014"),
            format!("request_duration_seconds_count{{{kind}}} 2"),
            format!("header_duration_seconds_count{{{route},canary=\"\"}} 2"),
            format!("bytes_sent_bucket{{{route},canary=\"\",le=\"1000\"}} 2"),
            format!("bytes_sent_bucket{{{route},canary=\"\",le=\"100\"}} 0"),
            format!("bytes_sent_sum{{{route},canary=\"\"}} 900"),
            format!("nginx_process_connections{{{own},state=\"active\"}} 2"),
            format!("nginx_process_connections_total{{{own},state=\"accepted\"}} 5"),
            format!("nginx_process_requests_total{{{own}}} 0"),
            format!("config_hash{{{own}}} 7"),
            format!("config_last_reload_successful{{{own}}} 1"),
            format!(
                "ssl_expire_time_seconds{{{own},host=\"a.example\",namespace=\"shop\",\
                 secret_name=\"cert\"}} 1800000000"
            ),
        ] {
            let line = format!("nginx_ingress_controller_{line}");
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }

    #[test]
    fn each_name_is_declared_once_and_before_its_samples() {
        let mut text = String::new();
        write(&mut text, &controller("c", None), &seen());
        let mut declared = Vec::new();
        for line in text.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(line) => {
                    let name = line.split(' ').next().unwrap().to_owned();
                    assert!(!declared.contains(&name), "{name}");
                    declared.push(name);
                }
                None => assert!(line.starts_with(declared.last().unwrap()), "{line}"),
            }
        }
    }

    #[test]
    fn what_never_happened_is_no_series() {
        let mut text = String::new();
        write(&mut text, &controller("c", None), &seen());
        assert!(!text.contains("connect_duration_seconds_count"), "{text}");
    }
}
