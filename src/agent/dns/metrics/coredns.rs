//! CoreDNS's metrics: names, labels and buckets of v1.15.

mod plugins;

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
};

use fairlead_dns::{
    CacheReport, Counts, DURATION_BOUNDS, HistogramReport, Labels, PROGRAMMING_BOUNDS, Plugin,
    QTYPES, RCODES, SIZE_BOUNDS, SiteCounts, Way,
};

use super::super::own_health;
use crate::{agent::pages::escaped, metrics, version};

/// Response codes as CoreDNS writes them; the last counts all above, too.
pub(crate) const CODES: [&str; RCODES] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE", "RCODE11", "RCODE12", "RCODE13", "RCODE14", "RCODE15",
    "BADVERS",
];

/// Appends all counters. Writing to a String cannot fail.
pub(super) fn write(text: &mut String, counts: &Counts, failed_reloads: u64) {
    let asked: Vec<&SiteCounts> = counts
        .sites
        .iter()
        .filter(|site| site.requests.as_flattened().iter().sum::<u64>() > 0)
        .collect();
    build(text);
    plugins::enabled(text, &counts.enabled);
    requests(text, &asked);
    responses(text, &asked);
    sizes_and_times(text, &asked);
    samples(text, "coredns_autopath_success_total", by_server(&asked, |site| site.walks));
    let translated = by_server(&asked, |site| site.translated);
    samples(text, "coredns_dns64_requests_translated_total", translated);
    plugins::acl(text, counts);
    plugins::templates(text, &asked);
    plugins::hosts(text, &counts.hosts);
    caches(text, &counts.caches);
    forwards(text, counts);
    let kinds = [
        ("cluster_ip", &counts.programming.cluster_ip),
        ("headless_with_selector", &counts.programming.headless),
    ];
    let name = "coredns_kubernetes_dns_programming_duration_seconds";
    let rows = kinds.map(|(kind, report)| (format!("service_kind=\"{kind}\""), report));
    histograms(text, name, &PROGRAMMING_BOUNDS, NANOSECONDS_PER_SECOND, rows);
    for (name, value) in
        [("coredns_panics_total", counts.panics), ("coredns_reload_failed_total", failed_reloads)]
    {
        samples(text, name, [(String::new(), value)]);
    }
}

/// What `health` has heard of itself.
pub(super) fn health(text: &mut String, took: &HistogramReport, failures: u64) {
    let name = "coredns_health_request_duration_seconds";
    let rows = [(String::new(), took)];
    histograms(text, name, &own_health::BOUNDS, NANOSECONDS_PER_SECOND, rows);
    samples(text, "coredns_health_request_failures_total", [(String::new(), failures)]);
}

fn build(text: &mut String) {
    let (version, revision) = (version::RELEASE, escaped(version::COMMIT));
    let labels = format!("version=\"{version}\",revision=\"{revision}\",goversion=\"\"");
    samples(text, "coredns_build_info", [(labels, 1)]);
}

/// Sums of what is told by server alone.
fn by_server(sites: &[&SiteCounts], of: fn(&SiteCounts) -> u64) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for site in sites.iter().filter(|site| of(site) > 0) {
        *sums.entry(format!("server=\"{}\"", site.labels.server)).or_default() += of(site);
    }
    sums
}

fn type_names() -> impl Iterator<Item = &'static str> {
    QTYPES.iter().map(|(_, name)| *name).chain(["other"])
}

fn requests(text: &mut String, sites: &[&SiteCounts]) {
    let rows = sites.iter().flat_map(|site| {
        Way::ALL.iter().zip(site.requests).flat_map(move |(way, types)| {
            type_names().zip(types).map(move |(name, value)| {
                let family = if way.ipv6 { 2 } else { 1 };
                let (labels, proto) = (labels(&site.labels), proto(way.tcp));
                let row = format!("{labels},proto=\"{proto}\",family=\"{family}\",type=\"{name}\"");
                (row, value)
            })
        })
    });
    samples(text, "coredns_dns_requests_total", rows.filter(|(_, value)| *value > 0));
    let rows = sites.iter().map(|site| (labels(&site.labels), site.dnssec_ok));
    samples(text, "coredns_dns_do_requests_total", rows.filter(|(_, value)| *value > 0));
}

fn responses(text: &mut String, sites: &[&SiteCounts]) {
    let rows = sites.iter().flat_map(|site| {
        Plugin::ALL.iter().zip(site.replies).flat_map(move |(plugin, codes)| {
            CODES.iter().zip(codes).map(move |(code, value)| {
                let (labels, plugin) = (labels(&site.labels), plugin.as_str());
                (format!("{labels},rcode=\"{code}\",plugin=\"{plugin}\""), value)
            })
        })
    });
    samples(text, "coredns_dns_responses_total", rows.filter(|(_, value)| *value > 0));
}

fn sizes_and_times(text: &mut String, sites: &[&SiteCounts]) {
    let name = "coredns_dns_request_duration_seconds";
    let rows = sites.iter().map(|site| (labels(&site.labels), &site.durations));
    histograms(text, name, &DURATION_BOUNDS, NANOSECONDS_PER_SECOND, rows);
    for (name, of) in [
        ("coredns_dns_request_size_bytes", (|site| &site.request_bytes) as Sizes),
        ("coredns_dns_response_size_bytes", |site| &site.response_bytes),
    ] {
        let rows = sites.iter().flat_map(|site| {
            let by_proto = [false, true].into_iter().zip(of(site));
            by_proto.map(|(tcp, report)| {
                (format!("{},proto=\"{}\"", labels(&site.labels), proto(tcp)), report)
            })
        });
        histograms(text, name, &SIZE_BOUNDS, 1, rows);
    }
}

type Sizes = fn(&SiteCounts) -> &[HistogramReport; 2];

fn caches(text: &mut String, caches: &[CacheReport]) {
    let labels = |cache: &CacheReport| {
        let CacheReport { server, zones, view, .. } = cache;
        let (zones, view) = (escaped(zones), escaped(view));
        format!("server=\"{server}\",zones=\"{zones}\",view=\"{view}\"")
    };
    let by_half = |of: fn(&CacheReport) -> [u64; 2]| {
        caches.iter().flat_map(move |cache| {
            let halves = ["success", "denial"].into_iter().zip(of(cache));
            halves.map(move |(half, value)| (format!("{},type=\"{half}\"", labels(cache)), value))
        })
    };
    let whole =
        |of: fn(&CacheReport) -> u64| caches.iter().map(move |cache| (labels(cache), of(cache)));
    samples(text, "coredns_cache_entries", by_half(|cache| cache.entries));
    samples(text, "coredns_cache_hits_total", by_half(|cache| cache.hits));
    samples(text, "coredns_cache_evictions_total", by_half(|cache| cache.evictions));
    let requests = whole(|cache| cache.hits.iter().sum::<u64>() + cache.misses);
    samples(text, "coredns_cache_requests_total", requests);
    samples(text, "coredns_cache_misses_total", whole(|cache| cache.misses));
    samples(text, "coredns_cache_prefetch_total", whole(|cache| cache.prefetches));
    samples(text, "coredns_cache_served_stale_total", whole(|cache| cache.served_stale));
}

fn forwards(text: &mut String, counts: &Counts) {
    let all = &counts.forwards;
    let sum = |of: fn(&fairlead_dns::ForwardReport) -> u64| all.iter().map(of).sum::<u64>();
    let rejects = [(String::new(), sum(|forward| forward.rejects))];
    samples(text, "coredns_forward_max_concurrent_rejects_total", rejects);
    let broken = [(String::new(), sum(|forward| forward.broken))];
    samples(text, "coredns_forward_healthcheck_broken_total", broken);
    let labels = |to: &dyn Display| format!("proxy_name=\"forward\",to=\"{to}\"");
    let rows = all.iter().flat_map(|forward| {
        forward.durations.iter().map(move |(code, report)| {
            let code = CODES.get(usize::from(*code)).unwrap_or(&"BADVERS");
            (format!("{},rcode=\"{code}\"", labels(&forward.to)), report)
        })
    });
    let name = "coredns_proxy_request_duration_seconds";
    histograms(text, name, &DURATION_BOUNDS, NANOSECONDS_PER_SECOND, rows);
    let rows = all.iter().flat_map(|forward| {
        forward.failed_probes.iter().map(|(server, count)| (labels(server), *count))
    });
    samples(text, "coredns_proxy_healthcheck_failures_total", rows);
}

/// Labels all of CoreDNS's server metrics have.
fn labels(labels: &Labels) -> String {
    let Labels { server, zone, view } = labels;
    let (zone, view) = (escaped(zone), escaped(view));
    format!("server=\"{server}\",zone=\"{zone}\",view=\"{view}\"")
}

fn proto(tcp: bool) -> &'static str {
    if tcp { "tcp" } else { "udp" }
}

fn samples(text: &mut String, name: &str, rows: impl IntoIterator<Item = (String, u64)>) {
    metrics::head(text, name);
    for (labels, value) in rows {
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

const NANOSECONDS_PER_SECOND: u32 = 1_000_000_000;

/// Histograms that have counted anything.
fn histograms<'r>(
    text: &mut String,
    name: &str,
    bounds: &[u64],
    per_unit: u32,
    rows: impl IntoIterator<Item = (String, &'r HistogramReport)>,
) {
    metrics::head(text, name);
    for (labels, report) in rows.into_iter().filter(|(_, report)| !report.counts.is_empty()) {
        let before = if labels.is_empty() { String::new() } else { format!("{labels},") };
        let mut below = 0;
        for (bound, count) in bounds.iter().zip(&report.counts) {
            below += count;
            let bound = shown(*bound, per_unit);
            let _ = writeln!(text, "{name}_bucket{{{before}le=\"{bound}\"}} {below}");
        }
        let all = report.counts.iter().sum::<u64>();
        let sum = shown(report.sum, per_unit);
        let _ = writeln!(
            text,
            "{name}_bucket{{{before}le=\"+Inf\"}} {all}\n{name}_sum{{{labels}}} {sum}\n\
             {name}_count{{{labels}}} {all}"
        );
    }
}

/// In the unit that is told.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has nothing but floating point numbers")]
fn shown(value: u64, per_unit: u32) -> f64 {
    value as f64 / f64::from(per_unit)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        time::{Duration, UNIX_EPOCH},
    };

    use fairlead_dns::{EnabledReport, ForwardReport, HostsReport, ProgrammingReport};

    use super::*;

    fn histogram(bounds: &[u64], place: usize, sum: u64) -> HistogramReport {
        let mut counts = vec![0; bounds.len() + 1];
        counts[place] = 2;
        HistogramReport { counts, sum }
    }

    fn counts() -> Counts {
        let labels = Labels { server: "dns://:53".into(), zone: ".".into(), view: "a\"b".into() };
        let mut site = SiteCounts { labels, dnssec_ok: 1, ..SiteCounts::default() };
        site.requests[1][0] = 3;
        site.requests[2][QTYPES.len()] = 1;
        site.replies[Plugin::Kubernetes as usize][3] = 4;
        site.replies[Plugin::Acl as usize][5] = 1;
        (site.dropped, site.translated, site.templates[1]) = (8, 9, 10);
        let plugins = ["acl", "cache"].map(str::to_owned).into();
        let enabled = EnabledReport { labels: site.labels.clone(), plugins };
        let hosts = HostsReport {
            file: "/etc/hosts".into(),
            entries: 12,
            modified: Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        };
        site.durations = histogram(&DURATION_BOUNDS, 0, 500_000);
        site.request_bytes[0] = histogram(&SIZE_BOUNDS, 1, 80);
        let silent = SiteCounts { labels: Labels::default(), ..SiteCounts::default() };
        let cache = CacheReport {
            server: "dns://:53".into(),
            zones: "example.org.".into(),
            entries: [7, 8],
            hits: [5, 6],
            misses: 9,
            ..CacheReport::default()
        };
        let forward = ForwardReport {
            to: "10.0.0.1:53".into(),
            rejects: 2,
            durations: vec![(
                3,
                histogram(&DURATION_BOUNDS, DURATION_BOUNDS.len(), 20_000_000_000),
            )],
            failed_probes: vec![("10.0.0.1:53".parse().unwrap(), 3)],
            ..ForwardReport::default()
        };
        Counts {
            sites: vec![site, silent],
            caches: vec![cache],
            forwards: vec![forward],
            enabled: vec![enabled],
            hosts: vec![hosts, HostsReport::default()],
            programming: ProgrammingReport {
                headless: histogram(&PROGRAMMING_BOUNDS, 1, 3_000_000),
                ..ProgrammingReport::default()
            },
            ..Counts::default()
        }
    }

    #[test]
    fn health_tells_of_itself_as_coredns_s_does() {
        let mut text = String::new();
        health(&mut text, &histogram(&own_health::BOUNDS, 1, 3_000_000), 4);
        assert_eq!(
            text,
            "# HELP coredns_health_request_duration_seconds How long health takes to answer itself, each second\n\
             # TYPE coredns_health_request_duration_seconds histogram\n\
             coredns_health_request_duration_seconds_bucket{le=\"0.00025\"} 0\n\
             coredns_health_request_duration_seconds_bucket{le=\"0.0025\"} 2\n\
             coredns_health_request_duration_seconds_bucket{le=\"0.025\"} 2\n\
             coredns_health_request_duration_seconds_bucket{le=\"0.25\"} 2\n\
             coredns_health_request_duration_seconds_bucket{le=\"2.5\"} 2\n\
             coredns_health_request_duration_seconds_bucket{le=\"+Inf\"} 2\n\
             coredns_health_request_duration_seconds_sum{} 0.003\n\
             coredns_health_request_duration_seconds_count{} 2\n\
             # HELP coredns_health_request_failures_total Times health did not answer itself\n\
             # TYPE coredns_health_request_failures_total counter\n\
             coredns_health_request_failures_total 4\n"
        );
    }

    #[test]
    fn names_labels_and_buckets_are_coredns() {
        let mut text = String::new();
        write(&mut text, &counts(), 1);
        let lines: BTreeSet<&str> = text.lines().collect();
        let site = "server=\"dns://:53\",zone=\".\",view=\"a\\\"b\"";
        let cache = "server=\"dns://:53\",zones=\"example.org.\",view=\"\"";
        let proxy = "proxy_name=\"forward\",to=\"10.0.0.1:53\"";
        for line in [
            format!("coredns_dns_requests_total{{{site},proto=\"udp\",family=\"2\",type=\"A\"}} 3"),
            format!("coredns_dns_requests_total{{{site},proto=\"tcp\",family=\"1\",type=\"other\"}} 1"),
            format!("coredns_dns_do_requests_total{{{site}}} 1"),
            format!("coredns_dns_responses_total{{{site},rcode=\"NXDOMAIN\",plugin=\"kubernetes\"}} 4"),
            format!("coredns_dns_request_duration_seconds_bucket{{{site},le=\"0.00025\"}} 2"),
            format!("coredns_dns_request_duration_seconds_bucket{{{site},le=\"8.192\"}} 2"),
            format!("coredns_dns_request_duration_seconds_sum{{{site}}} 0.0005"),
            format!("coredns_dns_request_size_bytes_bucket{{{site},proto=\"udp\",le=\"0\"}} 0"),
            format!("coredns_dns_request_size_bytes_bucket{{{site},proto=\"udp\",le=\"64000\"}} 2"),
            format!("coredns_dns_request_size_bytes_count{{{site},proto=\"udp\"}} 2"),
            format!("coredns_cache_entries{{{cache},type=\"denial\"}} 8"),
            format!("coredns_cache_hits_total{{{cache},type=\"success\"}} 5"),
            format!("coredns_cache_requests_total{{{cache}}} 20"),
            "coredns_forward_max_concurrent_rejects_total 2".to_owned(),
            format!("coredns_proxy_request_duration_seconds_bucket{{{proxy},rcode=\"NXDOMAIN\",le=\"8.192\"}} 0"),
            format!("coredns_proxy_request_duration_seconds_bucket{{{proxy},rcode=\"NXDOMAIN\",le=\"+Inf\"}} 2"),
            format!("coredns_proxy_healthcheck_failures_total{{{proxy}}} 3"),
            "coredns_kubernetes_dns_programming_duration_seconds_bucket{service_kind=\"headless_with_selector\",le=\"0.002\"} 2".to_owned(),
            "coredns_reload_failed_total 1".to_owned(),
            format!("coredns_plugin_enabled{{{site},name=\"cache\"}} 1"),
            "coredns_acl_allowed_requests_total{server=\"dns://:53\",view=\"a\\\"b\"} 3".to_owned(),
            format!("coredns_acl_blocked_requests_total{{{site}}} 1"),
            format!("coredns_acl_filtered_requests_total{{{site}}} 0"),
            format!("coredns_acl_dropped_requests_total{{{site}}} 8"),
            "coredns_dns64_requests_translated_total{server=\"dns://:53\"} 9".to_owned(),
            format!("coredns_template_matches_total{{{site},class=\"IN\",type=\"AAAA\"}} 10"),
            "coredns_hosts_entries{hostsfile=\"/etc/hosts\"} 12".to_owned(),
            "coredns_hosts_reload_timestamp_seconds 1800000000".to_owned(),
        ] {
            assert!(lines.contains(line.as_str()), "{line}\n{text}");
        }
        assert!(text.starts_with(
            "# HELP coredns_build_info Version and commit\n# TYPE coredns_build_info gauge\n"
        ));
        // Nobody asked there: no series.
        assert!(!text.contains("zone=\"\""), "{text}");
        let kinds: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let names: BTreeSet<_> = kinds.iter().collect();
        assert_eq!(kinds.len(), names.len(), "each metric's samples stand together");
    }
}
