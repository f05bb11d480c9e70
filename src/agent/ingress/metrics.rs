//! Ingress's counters as Prometheus text: ingress-nginx's names, for the dashboards that know them,
//! and our own.

mod nginx;

use std::fmt::Write as _;

use fairlead_ingress::{Counters, Expiry, RouteCounters};

use crate::metrics;

pub(super) use nginx::controller;

/// What is told at one time.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) counters: Counters,
    pub(super) routes: Vec<RouteCounters>,
    pub(super) expiries: Vec<Expiry>,
    /// Of the snapshot in force; 0 before the first.
    pub(super) revision: u64,
}

/// Appends everything; `controller`: labels of all that is ingress-nginx's.
pub(super) fn write(text: &mut String, controller: &str, seen: &Seen) {
    nginx::write(text, controller, seen);
    own(text, &seen.counters);
}

fn own(text: &mut String, counters: &Counters) {
    // Writing to a String cannot fail.
    metrics::head(text, "fairlead_ingress_responses_total");
    for (code, count) in &counters.responses {
        let _ = writeln!(text, "fairlead_ingress_responses_total{{code=\"{code}\"}} {count}");
    }
    metrics::head(text, "fairlead_ingress_refused_total");
    for (reason, count) in &counters.refused {
        let _ = writeln!(text, "fairlead_ingress_refused_total{{reason=\"{reason}\"}} {count}");
    }
    metrics::head(text, "fairlead_ingress_mirror_dropped_total");
    for (reason, count) in &counters.uncopied {
        let _ =
            writeln!(text, "fairlead_ingress_mirror_dropped_total{{reason=\"{reason}\"}} {count}");
    }
    metrics::single(text, "fairlead_ingress_connections_open", counters.connections_open);
    for (name, count) in [
        ("connections", counters.connections),
        ("connections_moved", counters.connections_moved),
        ("tls_handshakes", counters.tls_handshakes),
        ("tls_failures", counters.tls_failures),
        ("client_timeouts", counters.client_timeouts),
        ("upstream_connects", counters.upstream_connects),
        ("upstream_connect_failures", counters.upstream_connect_failures),
        ("upstream_tls_failures", counters.upstream_tls_failures),
        ("upstream_reuses", counters.upstream_reuses),
        ("upstream_retries", counters.upstream_retries),
        ("upstream_timeouts", counters.upstream_timeouts),
        ("tunnels", counters.tunnels),
        ("tls_passthroughs", counters.passthroughs),
        ("streams", counters.streams),
        ("streams_failed", counters.streams_failed),
        ("streams_displaced", counters.streams_displaced),
        ("answers_uncompressed", counters.uncompressed),
        ("requests_unbuffered", counters.requests_unbuffered),
        ("answers_unbuffered", counters.answers_unbuffered),
        ("spliced_bytes", counters.spliced_bytes),
        ("mirror_copies", counters.copies),
        ("access_log_lines", counters.log_lines),
        ("access_log_dropped", counters.log_dropped),
        ("trace_spans", counters.trace_spans),
        ("trace_dropped", counters.trace_dropped),
    ] {
        let name = format!("fairlead_ingress_{name}_total");
        metrics::single(text, &name, count);
    }
}
