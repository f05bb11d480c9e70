use std::time::Duration;

use http::Method;

use super::*;

fn labels(path: &str) -> SeriesLabels {
    SeriesLabels { path: path.into(), ..SeriesLabels::rest() }
}

fn sample(status: u16, took_ms: u64) -> Sample {
    Sample {
        status,
        method: method_slot(&Method::GET),
        is_canary: false,
        took: Duration::from_millis(took_ms),
        asked: None,
        received_bytes: 90,
        sent_bytes: 150,
    }
}

fn count_of(counters: &[RouteCounters], path: &str) -> u64 {
    let of = counters.iter().filter(|route| &*route.labels.path == path);
    of.flat_map(|route| route.requests.values()).map(Histogram::count).sum()
}

#[test]
fn threads_are_summed_and_kinds_told_apart() {
    let register = Register::new(2);
    let series = register.series(labels("/a"));
    series.count(0, &sample(200, 1));
    series.count(1, &sample(200, 7));
    series.count(1, &Sample { method: method_slot(&Method::POST), ..sample(502, 70) });
    let read = register.read();
    let [route] = &read[..] else { panic!("{read:?}") };
    let kinds: Vec<_> =
        route.requests.iter().map(|(k, h)| (k.status, k.method, h.count())).collect();
    assert_eq!(kinds, [(200, "GET", 2), (502, "POST", 1)]);
    let ok = route.requests.values().next().unwrap();
    assert_eq!(ok.cumulated(&DURATION_BOUNDS_US).take(3).collect::<Vec<_>>(), [1, 2, 2]);
    assert_eq!(ok.sum, 8_000);
    assert_eq!(route.header.count(), 0, "no endpoint answered");
    // Of one look-up both of ingress-nginx's histograms are made.
    let sent = &route.response_bytes;
    assert_eq!(sent.cumulated(&LENGTH_BOUNDS).last(), Some(0));
    assert_eq!(sent.cumulated(&SIZE_BOUNDS).take(3).collect::<Vec<_>>(), [0, 0, 3]);
    assert_eq!((sent.count(), sent.sum), (3, 450));
}

#[test]
fn series_go_with_the_last_that_holds_them_and_a_rebuilt_route_keeps_its_own() {
    let register = Register::new(1);
    let old = register.series(labels("/a"));
    old.count(0, &sample(200, 1));
    let rebuilt = register.series(labels("/a"));
    drop(old);
    assert_eq!(count_of(&register.read(), "/a"), 1);
    drop(rebuilt);
    assert_eq!(register.read(), []);
    let anew = register.series(labels("/a"));
    anew.count(0, &sample(200, 1));
    assert_eq!(count_of(&register.read(), "/a"), 1);
}

#[test]
fn routes_beyond_the_limit_are_counted_together_until_others_go() {
    let register = Register::new(1);
    let mut held: Vec<_> =
        (0..SERIES_ROUTES_MAX).map(|i| register.series(labels(&format!("/{i}")))).collect();
    for path in ["/x", "/y"] {
        register.series(labels(path)).count(0, &sample(200, 1));
    }
    assert_eq!(count_of(&register.read(), REST), 2);
    held.pop();
    let own = register.series(labels("/x"));
    own.count(0, &sample(200, 1));
    assert_eq!(count_of(&register.read(), "/x"), 1);
}

/// They were `status="other"`: whoever asks by sixteen methods and statuses hid all failures after them.
#[test]
fn bug_kinds_beyond_the_limit_are_one_a_class_and_failures_stay_failures() {
    let register = Register::new(1);
    let series = register.series(labels("/"));
    for status in (400..450).chain([502, 504, 200, 0, 999]) {
        series.count(0, &sample(status, 1));
    }
    let read = register.read();
    assert_eq!(count_of(&read, "/"), 55);
    let kinds = read[0].requests.iter();
    let rest = kinds.filter(|(kind, _)| kind.method == REST);
    let rest: Vec<_> = rest.map(|(kind, h)| (kind.status_label(), h.count())).collect();
    let expected = [("other", 1), ("2xx", 1), ("4xx", 34), ("5xx", 2), ("9xx", 1)];
    assert_eq!(rest, expected.map(|(label, count)| (label.to_owned(), count)));
    assert_eq!(read[0].requests.len(), 16 + 5);
}

#[test]
fn a_status_is_told_as_far_as_it_is_known() {
    for (status, label, class) in
        [(404, "404", "4xx"), (5, "5xx", "5xx"), (503, "503", "5xx"), (0, "other", "other")]
    {
        let kind = RequestKind { status, method: "GET", is_canary: false };
        assert_eq!((&*kind.status_label(), &*kind.class_label()), (label, class));
    }
}

#[test]
fn methods_nobody_registered_are_one() {
    let register = Register::new(1);
    let series = register.series(labels("/"));
    for name in ["BREW", "PURGE", "get"] {
        let method = method_slot(&Method::from_bytes(name.as_bytes()).unwrap());
        series.count(0, &Sample { method, ..sample(200, 1) });
    }
    let read = register.read();
    let kinds: Vec<_> = read[0].requests.iter().map(|(k, h)| (k.method, h.count())).collect();
    assert_eq!(kinds, [(REST, 3)]);
}

#[test]
fn quantiles_are_prometheuss_estimates() {
    let counts = vec![90, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let some = Histogram { bounds: &DURATION_BOUNDS_US, counts, sum: 0 };
    for (quantile, us) in [(0.45, 2_500.0), (0.9, 5_000.0), (0.99, 25_000.0), (1.0, 10_000_000.0)] {
        assert_eq!(some.quantile(quantile), Some(us), "{quantile}");
    }
    assert_eq!(Histogram::default().quantile(0.5), None);
}
