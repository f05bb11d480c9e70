//! Fairlead's own.

use super::{Family, Metric, counter, gauge};

pub(super) const FAMILY: Family = Family {
    title: "Fairlead's own",
    intro: "What the others do not tell. `fairlead traffic` says what each `reason` means.",
    metrics: METRICS,
};

const METRICS: &[Metric] = &[
    gauge("fairlead_role_ready", &["role"], "1 when the role does its work"),
    gauge("fairlead_snapshot_revision", &[], "Revision of what is known of the cluster"),
    gauge(
        "fairlead_snapshot_stale_seconds",
        &[],
        "Time without word of the API server; 0: it is followed",
    ),
    gauge("fairlead_objects_refused", &[], "Objects that cannot be served, whoever's they are"),
    gauge("fairlead_proxy_revision", &[], "Revision the kernel's maps hold"),
    gauge("fairlead_proxy_services", &[], "Services with something to serve"),
    gauge(
        "fairlead_proxy_services_behind",
        &[],
        "Services that are not in the maps as they should be",
    ),
    gauge(
        "fairlead_pod_namespaces_open",
        &[],
        "1: pods' connected UDP sockets end with their endpoint; 0: the agent may not look into pods' network \
         namespaces (the chart's proxy.podNamespaces)",
    ),
    counter(
        "fairlead_udp_sockets_ended_total",
        &[],
        "UDP sockets that were ended since they were connected to an endpoint that is gone",
    ),
    counter(
        "fairlead_udp_sockets_failures_total",
        &[],
        "Network namespaces that could not be looked into for such sockets, where the agent may look into all, and \
         sockets that could not be ended; both are tried again",
    ),
    gauge(
        "fairlead_udp_sockets_waiting",
        &[],
        "UDP sockets that are to be ended and were met nowhere, or not ended: each is looked for again, at last \
         every ten minutes",
    ),
    gauge(
        "fairlead_map_entries",
        &["map"],
        "What is in a map of the kernel, of connections and openings as the last sweep left them. openings \
         fills up and stays so: what begins and what has ended gives way. counters are of Services, refusals of \
         reasons of Services: the last ones are served and not counted where there is no more room",
    ),
    gauge("fairlead_map_entries_max", &["map"], "What a map of the kernel takes"),
    counter(
        "fairlead_service_connections_total",
        &["namespace", "service"],
        "Connections that were given an endpoint",
    ),
    counter(
        "fairlead_service_rejected_total",
        &["namespace", "service", "reason"],
        "Connections that were refused or dropped; series begin with the first one",
    ),
    counter(
        "fairlead_service_socket_bytes_total",
        &["namespace", "service", "direction"],
        "With --count-bytes: data of TCP connections that sockets of this node and its pods have closed, \
         to_service and from_service",
    ),
    counter(
        "fairlead_service_packet_bytes_total",
        &["namespace", "service", "direction"],
        "With --count-bytes: length of IP packets that were translated, to_service and from_service",
    ),
    counter(
        "fairlead_packets_unserved_total",
        &["reason"],
        "Packets and calls that were dropped, refused or left alone",
    ),
    counter("fairlead_dns_udp_queries_total", &[], "Datagrams received"),
    counter("fairlead_dns_tcp_queries_total", &[], "Messages received by TCP"),
    counter(
        "fairlead_dns_slow_queries_total",
        &[],
        "Questions that were not answered by the fast path",
    ),
    counter("fairlead_dns_forwarded_total", &[], "Questions sent to upstream servers"),
    counter("fairlead_dns_replies_total", &["rcode"], "Replies; rcode is a number"),
    counter("fairlead_dns_dropped_total", &["reason"], "Questions without a reply"),
    counter(
        "fairlead_dns_crowded_total",
        &["reason"],
        "Questions without room among those that wait for upstream servers: refused, or answered by what is \
         kept past its time",
    ),
    gauge("fairlead_dns_names_stale", &[], "1: names are those of the last run"),
    counter("fairlead_dns_panics_total", &[], "Bugs that were caught"),
    counter("fairlead_ingress_responses_total", &["code"], "Answers"),
    counter(
        "fairlead_ingress_refused_total",
        &["reason"],
        "Requests and connections that were not routed",
    ),
    gauge("fairlead_ingress_connections_open", &[], "Clients connected now"),
    counter("fairlead_ingress_connections_total", &[], "Clients' connections"),
    counter(
        "fairlead_ingress_connections_moved_total",
        &[],
        "Of those, what went from the thread that accepted it to one with fewer connections",
    ),
    counter(
        "fairlead_ingress_client_timeouts_total",
        &[],
        "Connections closed because the client was too slow, or idle",
    ),
    counter("fairlead_ingress_tls_handshakes_total", &[], "Handshakes with clients completed"),
    counter("fairlead_ingress_tls_failures_total", &[], "Handshakes that failed or were given up"),
    counter("fairlead_ingress_tls_passthroughs_total", &[], "Connections passed on unopened"),
    counter("fairlead_ingress_tunnels_total", &[], "WebSockets opened"),
    counter(
        "fairlead_ingress_streams_total",
        &[],
        "Connections and clients of TCP and UDP services",
    ),
    counter(
        "fairlead_ingress_streams_failed_total",
        &[],
        "Of TCP and UDP services: connections without an endpoint and datagrams lost",
    ),
    counter(
        "fairlead_ingress_streams_displaced_total",
        &[],
        "Clients of UDP services that gave way to others: more than --udp-clients-max, or \
         --udp-clients-per-service-max of one service",
    ),
    counter(
        "fairlead_ingress_answers_uncompressed_total",
        &[],
        "Answers sent as they are although use-gzip is for them: a thread compresses 256 at once",
    ),
    counter(
        "fairlead_ingress_requests_unbuffered_total",
        &[],
        "Requests sent on before all of their body was there although proxy-request-buffering is \
         for them: too large, or the thread holds as much as it may",
    ),
    counter(
        "fairlead_ingress_answers_unbuffered_total",
        &[],
        "Answers that held up their endpoint although proxy-buffering is for them: the thread \
         holds as much as it may",
    ),
    counter(
        "fairlead_ingress_spliced_bytes_total",
        &[],
        "Bytes that went from one connection to the other within the kernel: of long bodies, TCP \
         services and TLS passed on",
    ),
    counter("fairlead_ingress_mirror_copies_total", &[], "Copies of requests a mirror answered"),
    counter(
        "fairlead_ingress_mirror_dropped_total",
        &["reason"],
        "Copies of requests that were not made or not answered",
    ),
    counter("fairlead_ingress_access_log_lines_total", &[], "Lines of the access log"),
    counter(
        "fairlead_ingress_access_log_dropped_total",
        &[],
        "Lines of the access log that were not written",
    ),
    counter("fairlead_ingress_upstream_connects_total", &[], "Connections made to endpoints"),
    counter(
        "fairlead_ingress_upstream_connect_failures_total",
        &[],
        "Connections to endpoints that could not be made",
    ),
    counter(
        "fairlead_ingress_upstream_tls_failures_total",
        &[],
        "Handshakes with endpoints that failed",
    ),
    counter("fairlead_ingress_upstream_reuses_total", &[], "Requests on a connection used before"),
    counter("fairlead_ingress_upstream_retries_total", &[], "Requests sent again"),
    counter(
        "fairlead_ingress_upstream_timeouts_total",
        &[],
        "Requests an endpoint did not answer in time",
    ),
    counter("fairlead_ingress_trace_spans_total", &[], "Requests that were traced"),
    counter(
        "fairlead_ingress_trace_dropped_total",
        &[],
        "Traced requests the collector was not told: the queue was full, or it did not answer",
    ),
];
