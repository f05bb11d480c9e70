//! ingress-nginx's, by its names.

use super::{Family, Metric, counter, gauge, histogram};

pub(super) const FAMILY: Family = Family {
    title: "ingress-nginx's",
    intro: "With ingress-nginx's names, labels and buckets. All have `controller_class`, `controller_namespace` and \
            `controller_pod`; `path` is as in the rule, `canary` is NAMESPACE-SERVICE-PORT, of requests that the Service under \
            trial got. [How many series there are, and what is not there](../monitoring.md#ingress-nginxs).",
    metrics: METRICS,
};

const BY_ROUTE: [&str; 6] = ["host", "path", "namespace", "ingress", "service", "canary"];
const BY_KIND: [&str; 8] =
    ["host", "path", "namespace", "ingress", "service", "canary", "method", "status"];

const METRICS: &[Metric] = &[
    counter("nginx_ingress_controller_requests", &BY_KIND, "Requests"),
    histogram(
        "nginx_ingress_controller_request_duration_seconds",
        &BY_KIND,
        "From the first byte of a request to the last byte of its answer",
    ),
    histogram(
        "nginx_ingress_controller_connect_duration_seconds",
        &BY_ROUTE,
        "How long connecting to an endpoint takes; 0 for a connection used before. Without method and \
         status",
    ),
    histogram(
        "nginx_ingress_controller_header_duration_seconds",
        &BY_ROUTE,
        "Until an endpoint's answer begins, without the time of whoever is asked first (auth-url, \
         passwords). Without method and status",
    ),
    histogram(
        "nginx_ingress_controller_response_duration_seconds",
        &BY_ROUTE,
        "Until an endpoint's answer ends, without the time of whoever is asked first (auth-url, \
         passwords). Without method and status",
    ),
    histogram(
        "nginx_ingress_controller_request_size",
        &BY_ROUTE,
        "Length of requests. Without method and status",
    ),
    histogram(
        "nginx_ingress_controller_response_size",
        &BY_ROUTE,
        "Length of answers. Without method and status",
    ),
    histogram(
        "nginx_ingress_controller_bytes_sent",
        &BY_ROUTE,
        "Length of answers, by powers of ten. Without method and status",
    ),
    gauge(
        "nginx_ingress_controller_ssl_expire_time_seconds",
        &["host", "namespace", "secret_name"],
        "When a certificate ends; host _ is the default certificate's. Without identifier",
    ),
    gauge(
        "nginx_ingress_controller_nginx_process_connections",
        &["state"],
        "Clients connected now; state is active only",
    ),
    counter(
        "nginx_ingress_controller_nginx_process_connections_total",
        &["state"],
        "Clients' connections; each accepted one is handled",
    ),
    counter("nginx_ingress_controller_nginx_process_requests_total", &[], "Requests of clients"),
    gauge(
        "nginx_ingress_controller_config_hash",
        &[],
        "Revision of what is in force: grows with each change",
    ),
    gauge(
        "nginx_ingress_controller_config_last_reload_successful",
        &[],
        "1 once anything is in force; nothing is ever reloaded",
    ),
];
