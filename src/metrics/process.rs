//! The process's, by the names that Prometheus's client libraries give them.

use super::{Family, Metric, counter, gauge};

pub(super) const FAMILY: Family = Family {
    title: "The process's",
    intro: "With the names that Prometheus's client libraries give them, whichever roles run.",
    metrics: METRICS,
};

const METRICS: &[Metric] = &[
    counter(
        "process_cpu_seconds_total",
        &[],
        "Time on CPUs, in the program and in the kernel for it",
    ),
    gauge("process_resident_memory_bytes", &[], "Memory in use"),
    gauge("process_start_time_seconds", &[], "When it was started, since 1970"),
    gauge("process_open_fds", &[], "Files and sockets that are open"),
    gauge("process_max_fds", &[], "How many may be"),
];
