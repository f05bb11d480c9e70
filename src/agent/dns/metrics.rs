//! DNS counters as Prometheus text: CoreDNS's names, for the dashboards that know them, and our own.

mod coredns;

use std::fmt::Write as _;

use fairlead_dns::{Counts, Crowded, DropReason};

use super::own_health::OwnHealth;
use crate::metrics;

pub(crate) use coredns::CODES;

/// Appends what `health` tells of itself: nothing has failed where it is not served.
pub(super) fn own_health(text: &mut String, own: &OwnHealth) {
    let (took, failures) = own.report();
    coredns::health(text, &took, failures);
}

/// Appends all counters. Writing to a String cannot fail.
pub(super) fn write(text: &mut String, counts: &Counts, failed_reloads: u64, stands_in: bool) {
    coredns::write(text, counts, failed_reloads);
    let plain = [
        ("fairlead_dns_udp_queries_total", counts.udp_queries),
        ("fairlead_dns_tcp_queries_total", counts.tcp_queries),
        ("fairlead_dns_slow_queries_total", counts.slow_queries),
        ("fairlead_dns_forwarded_total", counts.forwarded),
        ("fairlead_dns_panics_total", counts.panics),
    ];
    for (name, value) in plain {
        metrics::single(text, name, value);
    }
    metrics::single(text, "fairlead_dns_names_stale", u8::from(stands_in));
    metrics::head(text, "fairlead_dns_replies_total");
    for (rcode, value) in counts.replies.iter().enumerate().filter(|(_, value)| **value > 0) {
        let _ = writeln!(text, "fairlead_dns_replies_total{{rcode=\"{rcode}\"}} {value}");
    }
    metrics::head(text, "fairlead_dns_dropped_total");
    for (reason, value) in DropReason::ALL.iter().zip(counts.dropped) {
        let reason = reason.as_str();
        let _ = writeln!(text, "fairlead_dns_dropped_total{{reason=\"{reason}\"}} {value}");
    }
    metrics::head(text, "fairlead_dns_crowded_total");
    for (reason, value) in Crowded::ALL.iter().zip(counts.crowded) {
        let reason = reason.as_str();
        let _ = writeln!(text, "fairlead_dns_crowded_total{{reason=\"{reason}\"}} {value}");
    }
}
