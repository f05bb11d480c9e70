//! How the proxy fares in kube-proxy's terms: what waits to be written since when, what was written
//! when, and how long that took. Health pages and metrics are made from it.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    changes::{Counted, Trigger},
    histogram::Histogram,
};
use crate::metrics;

/// A change that waits longer makes the proxy unhealthy: twice kube-proxy's sync period.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// More triggers than that wait for nobody's statistics.
const TRIGGERS_MAX: usize = 65_536;
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What is known of the proxy's passes.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The snapshot that was seen last.
    queued_revision: u64,
    /// Since when changes wait.
    waiting_since: Option<Instant>,
    queued_at: Option<Timestamp>,
    /// When all that was known had been written.
    written_at: Option<Timestamp>,
    passes_total: u64,
    services: Changes,
    slices: Changes,
    triggers: Vec<(u64, Trigger)>,
    passes: Histogram,
    full: Histogram,
    partial: Histogram,
    programming: [Histogram; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    pending: u64,
    total: u64,
}

/// A look at the proxy's status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    /// The snapshot that is in the maps.
    pub(crate) revision: u64,
    /// All of it, or as much as there is room for.
    pub(crate) is_served: bool,
    /// Passes that wrote something, of this start of the proxy.
    pub(crate) passes_total: u64,
    /// How long the last one took.
    pub(crate) last_pass: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            queued_revision: 0,
            waiting_since: None,
            queued_at: None,
            written_at: None,
            passes_total: 0,
            services: Changes::default(),
            slices: Changes::default(),
            triggers: Vec::new(),
            passes: Histogram::of_passes(),
            full: Histogram::of_passes(),
            partial: Histogram::of_passes(),
            programming: [(); 2].map(|()| Histogram::of_network_programming()),
        }
    }
}

impl Progress {
    /// A start of the proxy counts its passes anew.
    pub(crate) fn restarted(&mut self) {
        self.passes_total = 0;
    }

    /// Whether any snapshot came so far.
    pub(crate) fn has_begun(&self) -> bool {
        self.queued_revision > 0
    }

    /// A newer snapshot came.
    pub(crate) fn queue(
        &mut self,
        revision: u64,
        counted: Counted,
        (now, instant): (Timestamp, Instant),
    ) {
        self.queued_revision = revision;
        if counted.services + counted.slices == 0 {
            return;
        }
        self.queued_at = Some(now);
        self.waiting_since.get_or_insert(instant);
        for (changes, new) in
            [(&mut self.services, counted.services), (&mut self.slices, counted.slices)]
        {
            changes.pending += new;
            changes.total += new;
        }
        let room = TRIGGERS_MAX.saturating_sub(self.triggers.len());
        // At the first list, what happened before this process began would be measured.
        if self.written_at.is_some() {
            let new = counted.triggers.into_iter().take(room);
            self.triggers.extend(new.map(|trigger| (revision, trigger)));
        }
    }

    /// The proxy told how it stands.
    pub(crate) fn take(&mut self, status: Status, now: Timestamp) {
        if status.passes_total > self.passes_total {
            let seconds = status.last_pass.as_secs_f64();
            let is_first = self.passes_total == 0;
            self.passes_total = status.passes_total;
            self.passes.observe(seconds);
            if is_first { &mut self.full } else { &mut self.partial }.observe(seconds);
        }
        if !status.is_served {
            return;
        }
        let programming = &mut self.programming;
        self.triggers.retain(|(revision, trigger)| {
            let is_written = *revision <= status.revision;
            if is_written {
                let ms = now.as_millisecond() - trigger.at_ms;
                let [v4, v6] = programming;
                // Clocks of two machines: the future is now.
                let seconds = Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64();
                if trigger.is_ipv6 { v6 } else { v4 }.observe(seconds);
            }
            !is_written
        });
        if status.revision >= self.queued_revision {
            if self.waiting_since.take().is_some() || self.written_at.is_none() {
                self.written_at = Some(now);
            }
            self.services.pending = 0;
            self.slices.pending = 0;
        }
    }

    /// Whether changes are written in time; so it is while starting.
    pub(crate) fn is_healthy(&self, now: Instant) -> bool {
        self.waiting_since.is_none_or(|since| now.duration_since(since) < PATIENCE)
    }

    /// When all that was known had been written.
    pub(crate) fn written_at(&self) -> Option<Timestamp> {
        self.written_at
    }

    /// As Prometheus reads it. A pass writes both families, so each says the same.
    pub(crate) fn write_metrics(&self, text: &mut String) {
        let seconds = |at: Option<Timestamp>| at.map_or(0.0, |at| at.as_duration().as_secs_f64());
        // Writing to a String cannot fail.
        for (name, at) in
            [("last_timestamp", self.written_at), ("last_queued_timestamp", self.queued_at)]
        {
            let name = format!("kubeproxy_sync_proxy_rules_{name}_seconds");
            metrics::head(text, &name);
            for family in FAMILIES {
                let _ = writeln!(text, "{name}{{ip_family=\"{family}\"}} {}", seconds(at));
            }
        }
        for (of, changes) in [("service", self.services), ("endpoint", self.slices)] {
            let name = format!("kubeproxy_sync_proxy_rules_{of}_changes");
            let Changes { pending, total } = changes;
            metrics::single(text, &format!("{name}_pending"), pending);
            metrics::single(text, &format!("{name}_total"), total);
        }
        for (name, [v4, v6]) in [
            ("sync_proxy_rules", [&self.passes, &self.passes]),
            ("sync_full_proxy_rules", [&self.full, &self.full]),
            ("sync_partial_proxy_rules", [&self.partial, &self.partial]),
            ("network_programming", self.programming.each_ref()),
        ] {
            let name = format!("kubeproxy_{name}_duration_seconds");
            metrics::head(text, &name);
            v4.write(text, &name, "ip_family=\"IPv4\"");
            v6.write(text, &name, "ip_family=\"IPv6\"");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counted(services: u64, triggers: &[i64]) -> Counted {
        let trigger = |at_ms: &i64| Trigger { at_ms: *at_ms, is_ipv6: false };
        Counted { services, slices: 1, triggers: triggers.iter().map(trigger).collect() }
    }

    fn status(revision: u64, passes_total: u64) -> Status {
        Status { revision, is_served: true, passes_total, last_pass: Duration::from_millis(3) }
    }

    fn metric(progress: &Progress, start: &str) -> String {
        let mut text = String::new();
        progress.write_metrics(&mut text);
        let line = text.lines().find(|line| line.starts_with(start));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
    }

    #[test]
    fn a_change_that_waits_a_minute_is_unhealthy_until_it_is_written() {
        let (now, instant) = (Timestamp::from_second(1000).unwrap(), Instant::now());
        let mut progress = Progress::default();
        assert!(progress.is_healthy(instant), "while starting");
        progress.queue(1, counted(1, &[]), (now, instant));
        progress.queue(2, counted(1, &[]), (now, instant + 59 * SECOND));
        assert!(progress.is_healthy(instant + 59 * SECOND));
        assert!(!progress.is_healthy(instant + 60 * SECOND), "the first change counts");
        progress.take(Status { is_served: false, ..status(2, 1) }, now);
        assert!(!progress.is_healthy(instant + 60 * SECOND), "tried, and failed");
        progress.take(status(1, 1), now);
        assert!(!progress.is_healthy(instant + 60 * SECOND), "not all of it");
        progress.take(status(2, 2), now);
        assert!(progress.is_healthy(instant + 60 * SECOND));
        assert_eq!(progress.written_at(), Some(now));
    }

    #[test]
    fn pending_changes_end_when_written_and_totals_stay() {
        let (now, instant) = (Timestamp::from_second(1000).unwrap(), Instant::now());
        let mut progress = Progress::default();
        progress.queue(1, counted(3, &[]), (now, instant));
        let services = "kubeproxy_sync_proxy_rules_service_changes";
        assert_eq!(metric(&progress, &format!("{services}_pending")), "3");
        progress.take(status(1, 1), now);
        assert_eq!(metric(&progress, &format!("{services}_pending")), "0");
        assert_eq!(metric(&progress, &format!("{services}_total")), "3");
        let last = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}";
        assert_eq!(metric(&progress, last), "1000");
        progress.queue(2, counted(0, &[]), (now, instant));
        progress.take(status(2, 2), now);
        let count = |of: &str| {
            metric(
                &progress,
                &format!("kubeproxy_{of}_duration_seconds_count{{ip_family=\"IPv6\"}}"),
            )
        };
        assert_eq!(count("sync_proxy_rules"), "2");
        assert_eq!(
            (count("sync_full_proxy_rules"), count("sync_partial_proxy_rules")),
            ("1".to_owned(), "1".to_owned())
        );
    }

    #[test]
    fn network_programming_is_measured_from_the_trigger_to_the_write_and_not_for_the_first_list() {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let instant = Instant::now();
        let mut progress = Progress::default();
        let programming = "kubeproxy_network_programming_duration_seconds";
        let first = |of: &str| format!("{programming}_{of}{{ip_family=\"IPv4\"}}");
        progress.queue(1, counted(1, &[5]), (at(1000), instant));
        progress.take(status(1, 1), at(1000));
        assert_eq!(metric(&progress, &first("count")), "0");
        progress.queue(2, counted(0, &[1000]), (at(1400), instant));
        progress.queue(3, counted(0, &[1450, 99_999]), (at(1450), instant));
        progress.take(status(2, 2), at(1500));
        assert_eq!(metric(&progress, &first("count")), "1");
        assert_eq!(metric(&progress, &first("sum")), "0.5");
        progress.take(status(3, 3), at(1950));
        assert_eq!(metric(&progress, &first("count")), "3");
        assert_eq!(metric(&progress, &first("sum")), "1", "a trigger in the future counts as now");
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_unhealthy_and_no_latency_negative() {
        const YEAR_S: i64 = 365 * 86_400;
        let begun = Timestamp::from_second(1_800_000_000).unwrap();
        let instant = Instant::now();
        let programming = "kubeproxy_network_programming_duration_seconds";
        let sum = format!("{programming}_sum{{ip_family=\"IPv4\"}}");
        for (set_by, expected) in [(-YEAR_S, "0"), (YEAR_S, "31536000")] {
            let after = Timestamp::from_second(begun.as_second() + set_by).unwrap();
            let mut progress = Progress::default();
            progress.queue(1, counted(1, &[]), (begun, instant));
            progress.take(status(1, 1), begun);
            progress.queue(2, counted(1, &[begun.as_millisecond()]), (begun, instant));
            assert!(progress.is_healthy(instant + SECOND), "set by {set_by} s while it waits");
            progress.take(status(2, 2), after);
            assert!(progress.is_healthy(instant + 120 * SECOND), "set by {set_by} s");
            assert_eq!(
                (metric(&progress, &sum), progress.written_at()),
                (expected.into(), Some(after))
            );
        }
    }
}
