//! kube-proxy's, by its names.

use super::{Family, Metric, counter, gauge, histogram};

pub(super) const FAMILY: Family = Family {
    title: "kube-proxy's",
    intro: "With kube-proxy's names, labels and buckets. [What each is here](../kube-proxy.md#its-metrics).",
    metrics: METRICS,
};

const METRICS: &[Metric] = &[
    histogram(
        "kubeproxy_sync_proxy_rules_duration_seconds",
        &["ip_family"],
        "How long passes over the maps take",
    ),
    histogram(
        "kubeproxy_sync_full_proxy_rules_duration_seconds",
        &["ip_family"],
        "How long the first pass took",
    ),
    histogram(
        "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        &["ip_family"],
        "How long all later passes take",
    ),
    gauge(
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        &["ip_family"],
        "When all that was known had last been written",
    ),
    gauge(
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        &["ip_family"],
        "When the last change came",
    ),
    gauge(
        "kubeproxy_sync_proxy_rules_service_changes_pending",
        &[],
        "Services that changed and are not written yet",
    ),
    counter("kubeproxy_sync_proxy_rules_service_changes_total", &[], "Services that changed"),
    gauge(
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        &[],
        "EndpointSlices that changed and are not written yet",
    ),
    counter(
        "kubeproxy_sync_proxy_rules_endpoint_changes_total",
        &[],
        "EndpointSlices that changed",
    ),
    histogram(
        "kubeproxy_network_programming_duration_seconds",
        &["ip_family"],
        "From a pod's change until the kernel has it",
    ),
    gauge(
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        &["ip_family", "traffic_policy"],
        "Service ports with a traffic policy of Local and no endpoint here",
    ),
    counter("kubeproxy_proxy_healthz_total", &["code"], "Answers of /healthz"),
    counter("kubeproxy_proxy_livez_total", &["code"], "Answers of /livez"),
];
