//! ingress-nginx's metrics. By method and status only requests and their durations are told apart:
//! all of them by all of that are millions of series in a large cluster.

use std::fmt::Write as _;

use fairlead_ingress::{
    DURATION_BOUNDS_US, Expiry, Histogram, LENGTH_BOUNDS, RequestKind, RouteCounters, SIZE_BOUNDS,
};
use fairlead_state::Key;

use super::Seen;
use crate::{agent::pages::escaped, metrics};

const PREFIX: &str = "nginx_ingress_controller";

/// Buckets as counted, and how many of what is counted are one of what is told.
type Scale = (&'static [u64], f64);

const SECONDS: Scale = (&DURATION_BOUNDS_US, 1_000_000.0);
const LENGTHS: Scale = (&LENGTH_BOUNDS, 1.0);
const SIZES: Scale = (&SIZE_BOUNDS, 1.0);

/// A name, what of a route it is told of, and how.
type Told = (&'static str, fn(&RouteCounters) -> &Histogram, Scale);

const BY_ROUTE: [Told; 6] = [
    ("connect_duration_seconds", |route| &route.connect, SECONDS),
    ("header_duration_seconds", |route| &route.header, SECONDS),
    ("response_duration_seconds", |route| &route.response, SECONDS),
    ("request_size", |route| &route.request_bytes, LENGTHS),
    ("response_size", |route| &route.response_bytes, LENGTHS),
    ("bytes_sent", |route| &route.response_bytes, SIZES),
];

/// The labels ingress-nginx gives all it tells; `pod`: the one this runs in.
pub(in crate::agent::ingress) fn controller(class: &str, pod: Option<&Key>) -> String {
    let (namespace, name) = pod.map_or(("", ""), |pod| (&*pod.namespace, &*pod.name));
    labelled([
        ("controller_class", class),
        ("controller_namespace", namespace),
        ("controller_pod", name),
    ])
}

/// Appends everything. Writing to a String cannot fail.
pub(super) fn write(text: &mut String, controller: &str, seen: &Seen) {
    let labels = |route: &RouteCounters| {
        let names = &route.labels;
        let own = labelled([
            ("host", &names.host),
            ("ingress", &names.ingress),
            ("namespace", &names.namespace),
            ("path", &names.path),
            ("service", &names.service),
        ]);
        format!("{controller},{own}")
    };
    let routes: Vec<(String, &RouteCounters)> =
        seen.routes.iter().map(|route| (labels(route), route)).collect();
    requests(text, &routes);
    for (name, of, scale) in BY_ROUTE {
        let name = format!("{PREFIX}_{name}");
        metrics::head(text, &name);
        for (labels, route) in &routes {
            histogram(text, &name, &format!("{labels},canary=\"\""), of(route), scale);
        }
    }
    numbers(text, controller, seen);
    certificates(text, controller, seen);
}

/// Names with values, which may hold anything.
fn labelled<const N: usize>(labels: [(&str, &str); N]) -> String {
    labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).join(",")
}

fn of_kind(labels: &str, route: &RouteCounters, kind: &RequestKind) -> String {
    let status = kind.status_label();
    // What the Service under trial did not get is nobody's trial.
    let canary = if kind.is_canary { &*route.labels.canary } else { "" };
    let own = labelled([("canary", canary), ("method", kind.method), ("status", &status)]);
    format!("{labels},{own}")
}

fn requests(text: &mut String, routes: &[(String, &RouteCounters)]) {
    let kinds: Vec<(String, &Histogram)> = routes
        .iter()
        .flat_map(|(labels, route)| {
            let kinds = route.requests.iter();
            kinds.map(move |(kind, histogram)| (of_kind(labels, route, kind), histogram))
        })
        .collect();
    let name = format!("{PREFIX}_requests");
    metrics::head(text, &name);
    for (labels, histogram) in &kinds {
        let _ = writeln!(text, "{name}{{{labels}}} {}", histogram.count());
    }
    let name = format!("{PREFIX}_request_duration_seconds");
    metrics::head(text, &name);
    for (labels, durations) in &kinds {
        histogram(text, &name, labels, durations, SECONDS);
    }
}

/// One that has counted anything.
fn histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    histogram: &Histogram,
    (bounds, per_unit): Scale,
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

/// What nginx's stub_status tells, as far as there is such a thing; and of configuration, which is
/// never reloaded: what is in force has a number, and dashboards find controllers by it.
fn numbers(text: &mut String, controller: &str, seen: &Seen) {
    let Seen { counters, revision, .. } = seen;
    let made = counters.connections;
    let is_served = u64::from(*revision > 0);
    for (name, values) in [
        ("nginx_process_connections", &[(",state=\"active\"", counters.connections_open)][..]),
        (
            "nginx_process_connections_total",
            &[(",state=\"accepted\"", made), (",state=\"handled\"", made)],
        ),
        ("nginx_process_requests_total", &[("", counters.requests())]),
        ("config_hash", &[("", *revision)]),
        ("config_last_reload_successful", &[("", is_served)]),
    ] {
        let name = format!("{PREFIX}_{name}");
        metrics::head(text, &name);
        for (state, value) in values {
            let _ = writeln!(text, "{name}{{{controller}{state}}} {value}");
        }
    }
}

fn certificates(text: &mut String, controller: &str, seen: &Seen) {
    let name = format!("{PREFIX}_ssl_expire_time_seconds");
    metrics::head(text, &name);
    for Expiry { host, secret, expires_seconds } in &seen.expiries {
        let own = labelled([
            ("host", host),
            ("namespace", &secret.namespace),
            ("secret_name", &secret.name),
        ]);
        let _ = writeln!(text, "{name}{{{controller},{own}}} {expires_seconds}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairlead_ingress::{Counters, SeriesLabels};

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
            canary: "shop-next-80".into(),
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
            format!("requests{{{route},canary=\"shop-next-80\",method=\"GET\",status=\"200\"}} 2"),
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
                None if line.starts_with("# HELP ") => {}
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
