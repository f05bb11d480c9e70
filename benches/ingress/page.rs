//! What docs/results/ingress.md says above its table, and what is drawn of it.

use crate::charts::Chart;

pub const NOTES: &str = "All on loopback, proxies on core 0, load, upstream and API server on core 1, proxies taking turns in each round. Before anything is measured, each is asked for \
what it will be asked for, plain and over TLS: status, body and the fields that reach the upstream must be right. `scale` is the number of hosts: for each an Ingress \
with a Service and an endpoint of its own, a server block (nginx, one upstream as ingress-nginx has), a back end found by a map (HAProxy), a route (Caddy, which goes \
through them one by one), an entry of a table (`pingora-minimal`: the least proxy on the Pingora crate 0.9, with mimalloc and ring). Load asks 16 hosts spread over them. All proxies have \
one worker, keep connections to upstreams, and set the request fields that ingress-nginx sets; HTTP/2 and TLS are on everywhere, with P-256 certificates, TLS 1.3, \
AES-128-GCM and X25519; everybody sends as many session tickets as it does by itself. nginx, HAProxy and Caddy are Debian's (the first two with OpenSSL 3.0, which is known to be slow at handshakes), with their defaults but for `nginx-64k` (buffers of 64 KiB) and `haproxy-splice`. The agent reads its objects from the tests' list/watch server, and counts metrics in all rows.

`cpu_us_*`: processor time of the proxy per request, of all threads and processes that ever ran in its control group (cpu.stat); `user_us_*` and `system_us_*` are its halves, by the tick. `requests_per_s` is what came of it, bounded by \
the core that load and upstream share where `core_busy_percent`, the proxy's share of its own core, is below 100. `_logged`: with ingress-nginx's line, which nginx and HAProxy write one by one and the agent \
and `pingora-minimal` in blocks; Caddy's is its JSON. `cpu_us_tls_handshake`: a full handshake, one request. `cpu_us_h2`: h2load, 8 connections of 32 streams. \
`idle_kib`, `idle_tls_kib`: memory per connection that has asked once and waits, of 5,000. All memory is the proportional set of all processes (smaps_rollup). `latency_us`: at 8,000 requests a second over 32 \
connections, from when each request was due.

`route_change_ms`, `endpoints_ms`: from the moment the API server sends a changed Ingress or EndpointSlice to the end of the first answer that follows it; `_tls`: with a certificate for \
each host, of a Secret that the agent watches by itself: the list/watch server wakes the watches of what changed, as an API server does. nginx and HAProxy are told as Ingress controllers tell them: the whole file is written, tested (`config_test_ms`), and taken by reload (`reload_ms`: from the signal to the first answer that follows); \
`route_change_ms` is all of that. ingress-nginx takes endpoints without a reload, by Lua that Debian's nginx does not have. `memory_*`: before, during (the most there was) and after these changes, without the process that tests; `memory_growth` is during over before. `change_*`: changes at 10 a second (1,000 to the agent; 200 to nginx and HAProxy, \
which reload at most every 3.3 s as ingress-nginx does, and leave a \
process behind each time for as long as its WebSockets live, at most 240 s) under 5,000 requests a second, 50 WebSockets and 50 gRPC calls; that a connection ends between two requests is no failure.";

const ALL: &[&str] = &["fairlead", "nginx", "haproxy", "caddy", "pingora-minimal"];
const PEERS: &[&str] = &["nginx", "haproxy", "caddy", "pingora-minimal"];
const RELOADING: &[&str] = &["fairlead", "nginx", "haproxy"];

pub const CHARTS: &[Chart] = &[
    Chart::Ratios {
        file: "ratios",
        title: "Cost of a request with 1,000 hosts: peers over Fairlead",
        scale: 1000,
        figures: &[
            "cpu_us_keepalive",
            "cpu_us_keepalive_logged",
            "cpu_us_tls_keepalive",
            "cpu_us_h2",
            "rss_mib",
        ],
        peers: PEERS,
    },
    Chart::Ratios {
        file: "connections",
        title: "Connections, bodies and waits: peers over Fairlead",
        scale: 1,
        figures: &[
            "cpu_us_tls_handshake",
            "idle_kib",
            "idle_tls_kib",
            "cpu_us_body_1mib",
            "cpu_us_tls_body_1mib",
            "latency_us_p50",
            "latency_us_p99",
        ],
        peers: &["nginx", "nginx-64k", "haproxy", "haproxy-splice", "caddy", "pingora-minimal"],
    },
    Chart::Ratios {
        file: "changes",
        title: "Changes among 10,000 hosts: peers over Fairlead",
        scale: 10_000,
        figures: &[
            "route_change_ms_p50",
            "route_change_ms_p99",
            "route_change_tls_ms_p50",
            "route_change_tls_ms_p99",
            "memory_before_mib",
            "memory_during_mib",
            "memory_tls_before_mib",
            "memory_tls_during_mib",
            "change_latency_ms_p99",
            "change_peak_mib",
        ],
        peers: &["nginx", "haproxy"],
    },
    against("hosts", "Cost of a request", "cpu_us_keepalive", ALL),
    against("rss", "Memory", "rss_mib", ALL),
    against(
        "change",
        "From a change to the first answer, median",
        "route_change_ms_p50",
        RELOADING,
    ),
    against(
        "change-tls",
        "From a change to the first answer, a certificate each, median",
        "route_change_tls_ms_p50",
        RELOADING,
    ),
];

const fn against(
    file: &'static str,
    title: &'static str,
    figure: &'static str,
    subjects: &'static [&'static str],
) -> Chart {
    Chart::Against { file, title, figure, objects: "hosts", subjects }
}
