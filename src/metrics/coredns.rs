//! CoreDNS's, by its names.

use super::{Family, Metric, counter, gauge, histogram};

pub(super) const FAMILY: Family = Family {
    title: "CoreDNS's",
    intro: "With CoreDNS's names, labels and buckets. [What differs](../dns-differences.md#metrics).",
    metrics: METRICS,
};

const SITE: [&str; 3] = ["server", "zone", "view"];

const METRICS: &[Metric] = &[
    gauge("coredns_build_info", &["version", "revision", "goversion"], "Version and commit"),
    gauge(
        "coredns_plugin_enabled",
        &["server", "zone", "view", "name"],
        "1: the server block has the plugin",
    ),
    counter(
        "coredns_dns_requests_total",
        &["server", "zone", "view", "proto", "family", "type"],
        "Questions; family is 1 for IPv4 and 2 for IPv6",
    ),
    counter("coredns_dns_do_requests_total", &SITE, "Questions with the DO bit"),
    counter(
        "coredns_dns_responses_total",
        &["server", "zone", "view", "rcode", "plugin"],
        "Replies, and which plugin made them",
    ),
    histogram("coredns_dns_request_duration_seconds", &SITE, "From a question to its reply"),
    histogram(
        "coredns_dns_request_size_bytes",
        &["server", "zone", "view", "proto"],
        "Length of questions",
    ),
    histogram(
        "coredns_dns_response_size_bytes",
        &["server", "zone", "view", "proto"],
        "Length of replies",
    ),
    gauge(
        "coredns_cache_entries",
        &["server", "zones", "view", "type"],
        "Answers in the cache; type is success or denial",
    ),
    counter(
        "coredns_cache_hits_total",
        &["server", "zones", "view", "type"],
        "Questions the cache answered",
    ),
    counter(
        "coredns_cache_evictions_total",
        &["server", "zones", "view", "type"],
        "Answers that gave way to others",
    ),
    counter("coredns_cache_requests_total", &["server", "zones", "view"], "Questions to the cache"),
    counter(
        "coredns_cache_misses_total",
        &["server", "zones", "view"],
        "Questions the cache could not answer",
    ),
    counter(
        "coredns_cache_prefetch_total",
        &["server", "zones", "view"],
        "Answers asked for again before they end",
    ),
    counter(
        "coredns_cache_served_stale_total",
        &["server", "zones", "view"],
        "Answers given past their end",
    ),
    histogram(
        "coredns_proxy_request_duration_seconds",
        &["proxy_name", "to", "rcode"],
        "How long upstream servers take to answer",
    ),
    counter(
        "coredns_proxy_healthcheck_failures_total",
        &["proxy_name", "to"],
        "Probes of upstream servers without an answer",
    ),
    counter(
        "coredns_forward_healthcheck_broken_total",
        &[],
        "Questions while every upstream server was down",
    ),
    counter(
        "coredns_forward_max_concurrent_rejects_total",
        &[],
        "Questions beyond max_concurrent of forward",
    ),
    histogram(
        "coredns_kubernetes_dns_programming_duration_seconds",
        &["service_kind"],
        "From a pod's change until names tell it",
    ),
    counter("coredns_acl_allowed_requests_total", &["server", "view"], "Questions acl let through"),
    counter("coredns_acl_blocked_requests_total", &SITE, "Questions acl answered with REFUSED"),
    counter("coredns_acl_filtered_requests_total", &SITE, "Questions acl answered with nothing"),
    counter("coredns_acl_dropped_requests_total", &SITE, "Questions acl did not answer"),
    counter("coredns_autopath_success_total", &["server"], "Searches autopath cut short"),
    counter(
        "coredns_dns64_requests_translated_total",
        &["server"],
        "Questions dns64 answered from IPv4 addresses",
    ),
    counter(
        "coredns_template_matches_total",
        &["server", "zone", "view", "class", "type"],
        "Questions template answered",
    ),
    gauge("coredns_hosts_entries", &["hostsfile"], "Addresses in a file of hosts"),
    gauge(
        "coredns_hosts_reload_timestamp_seconds",
        &[],
        "When the newest file of hosts was changed",
    ),
    histogram(
        "coredns_health_request_duration_seconds",
        &[],
        "How long health takes to answer itself, each second",
    ),
    counter("coredns_health_request_failures_total", &[], "Times health did not answer itself"),
    counter("coredns_panics_total", &[], "Bugs that were caught"),
    counter("coredns_reload_failed_total", &[], "Corefiles that were not taken"),
];
