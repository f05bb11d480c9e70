//! DNS counters as Prometheus text: CoreDNS's names, for the dashboards that know them, and our own.

use std::fmt::Write as _;

use fairlead_dns::{Counts, DropReason, QTYPES};

/// Names of response codes as CoreDNS writes them.
const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// Labels all of CoreDNS's server metrics have.
const SERVER: &str = "server=\"dns://:53\",zone=\".\",view=\"\"";

/// Appends all counters. Writing to a String cannot fail.
pub(super) fn write(text: &mut String, counts: &Counts, failed_reloads: u64) {
    write_coredns(text, counts, failed_reloads);
    write_cache(text, counts);
    write_own(text, counts);
}

fn write_coredns(text: &mut String, counts: &Counts, failed_reloads: u64) {
    let _ = writeln!(text, "# TYPE coredns_dns_requests_total counter");
    for one in &counts.ways {
        let proto = if one.way.tcp { "tcp" } else { "udp" };
        let family = if one.way.ipv6 { 2 } else { 1 };
        let names = QTYPES.iter().map(|(_, name)| *name).chain(["other"]);
        for (name, value) in names.zip(one.types).filter(|(_, value)| *value > 0) {
            let _ = writeln!(
                text,
                "coredns_dns_requests_total{{{SERVER},proto=\"{proto}\",family=\"{family}\",\
                 type=\"{name}\"}} {value}"
            );
        }
    }
    let _ = writeln!(text, "# TYPE coredns_dns_responses_total counter");
    for (rcode, value) in counts.replies.iter().enumerate().filter(|(_, value)| **value > 0) {
        let name = RCODES.get(rcode).map_or_else(|| rcode.to_string(), |name| (*name).to_owned());
        let _ = writeln!(
            text,
            "coredns_dns_responses_total{{{SERVER},rcode=\"{name}\",plugin=\"\"}} {value}"
        );
    }
    for (name, value) in
        [("coredns_panics_total", counts.panics), ("coredns_reload_failed_total", failed_reloads)]
    {
        let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
    }
}

fn write_cache(text: &mut String, counts: &Counts) {
    let cache = &counts.cache;
    let labels = "server=\"dns://:53\",zones=\".\",view=\"\"";
    for (name, kind, values) in [
        ("coredns_cache_entries", "gauge", cache.entries),
        ("coredns_cache_hits_total", "counter", cache.hits),
    ] {
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (half, value) in ["success", "denial"].iter().zip(values) {
            let _ = writeln!(text, "{name}{{{labels},type=\"{half}\"}} {value}");
        }
    }
    for (name, value) in [
        ("coredns_cache_requests_total", cache.hits.iter().sum::<u64>() + cache.misses),
        ("coredns_cache_misses_total", cache.misses),
        ("coredns_cache_prefetch_total", cache.prefetches),
        ("coredns_cache_served_stale_total", cache.served_stale),
        ("coredns_cache_evictions_total", cache.evictions),
    ] {
        let _ = writeln!(text, "# TYPE {name} counter\n{name}{{{labels}}} {value}");
    }
}

fn write_own(text: &mut String, counts: &Counts) {
    let plain = [
        ("fairlead_dns_udp_queries_total", counts.udp_queries),
        ("fairlead_dns_tcp_queries_total", counts.tcp_queries),
        ("fairlead_dns_slow_queries_total", counts.slow_queries),
        ("fairlead_dns_forwarded_total", counts.forwarded),
        ("fairlead_dns_panics_total", counts.panics),
    ];
    for (name, value) in plain {
        let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
    }
    let _ = writeln!(text, "# TYPE fairlead_dns_replies_total counter");
    for (rcode, value) in counts.replies.iter().enumerate().filter(|(_, value)| **value > 0) {
        let _ = writeln!(text, "fairlead_dns_replies_total{{rcode=\"{rcode}\"}} {value}");
    }
    let _ = writeln!(text, "# TYPE fairlead_dns_dropped_total counter");
    for (reason, value) in DropReason::ALL.iter().zip(counts.dropped) {
        let reason = reason.as_str();
        let _ = writeln!(text, "fairlead_dns_dropped_total{{reason=\"{reason}\"}} {value}");
    }
}
