//! How the proxy fares in kube-proxy's terms: what waits to be written since when, what was written
//! when, and how long that took. Health pages and metrics are made from it.

use std::{
    collections::VecDeque,
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
/// Snapshots with changes that wait one by one; what comes beyond waits with the last of them.
const WAITING_MAX: usize = 1024;
/// More triggers than that wait for nobody's statistics.
const TRIGGERS_MAX: usize = 65_536;
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What is known of the proxy's passes.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Any snapshot was seen.
    has_begun: bool,
    /// What is not written yet, the oldest first.
    waiting: VecDeque<Waiting>,
    queued_at: Option<Timestamp>,
    written_at: Option<Timestamp>,
    passes_total: u64,
    services_total: u64,
    slices_total: u64,
    triggers: Vec<(u64, Trigger)>,
    passes: Histogram,
    full: Histogram,
    partial: Histogram,
    programming: [Histogram; 2],
}

/// Changes of a snapshot.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    revision: u64,
    since: Instant,
    services: u64,
    slices: u64,
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
            has_begun: false,
            waiting: VecDeque::new(),
            queued_at: None,
            written_at: None,
            passes_total: 0,
            services_total: 0,
            slices_total: 0,
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
        self.has_begun
    }

    /// A newer snapshot came.
    pub(crate) fn queue(
        &mut self,
        revision: u64,
        counted: Counted,
        (now, instant): (Timestamp, Instant),
    ) {
        self.has_begun = true;
        let Counted { services, slices, .. } = counted;
        if services + slices == 0 {
            return;
        }
        self.queued_at = Some(now);
        self.services_total += services;
        self.slices_total += slices;
        let is_full = self.waiting.len() >= WAITING_MAX;
        match self.waiting.back_mut().filter(|_| is_full) {
            Some(last) => {
                last.revision = revision;
                last.services += services;
                last.slices += slices;
            }
            None => self.waiting.push_back(Waiting { revision, since: instant, services, slices }),
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
        let waited = self.waiting.len();
        // A newer snapshot may be there at the end of each pass: kube-proxy's Updated() forgives what came amid one, too.
        self.waiting.retain(|waiting| waiting.revision > status.revision);
        if self.waiting.len() < waited || self.written_at.is_none() {
            self.written_at = Some(now);
        }
    }

    /// Whether changes are written in time; so it is while starting.
    pub(crate) fn is_healthy(&self, now: Instant) -> bool {
        let oldest = self.waiting.front();
        oldest.is_none_or(|waiting| now.duration_since(waiting.since) < PATIENCE)
    }

    /// When changes were written last.
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
        let pending = |of: fn(&Waiting) -> u64| self.waiting.iter().map(of).sum::<u64>();
        for (of, pending, total) in [
            ("service", pending(|waiting| waiting.services), self.services_total),
            ("endpoint", pending(|waiting| waiting.slices), self.slices_total),
        ] {
            let name = format!("kubeproxy_sync_proxy_rules_{of}_changes");
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
        assert!(progress.is_healthy(instant + 118 * SECOND), "the second one waits since then");
        assert!(!progress.is_healthy(instant + 119 * SECOND));
        progress.take(status(2, 2), now);
        assert!(progress.is_healthy(instant + 119 * SECOND));
        assert_eq!(progress.written_at(), Some(now));
    }

    /// Endpoints that changed for a minute without a pause took the node out of its balancer.
    #[test]
    fn changes_that_never_pause_are_healthy_as_long_as_each_is_written() {
        let at = |second: u64| Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        let instant = Instant::now();
        let mut progress = Progress::default();
        progress.queue(1, counted(1, &[]), (at(1), instant));
        for second in 1..=90 {
            let now = instant + u32::try_from(second).unwrap() * SECOND;
            progress.queue(second + 1, counted(1, &[]), (at(second), now));
            progress.take(status(second, second), at(second));
            assert!(progress.is_healthy(now), "after {second} s");
            assert_eq!(progress.written_at(), Some(at(second)));
            let pending = metric(&progress, "kubeproxy_sync_proxy_rules_service_changes_pending");
            assert_eq!(pending, "1", "the newest one");
        }
    }

    #[test]
    fn a_proxy_that_is_stuck_remembers_so_many_changes_and_since_when() {
        let (now, instant) = (Timestamp::from_second(1000).unwrap(), Instant::now());
        let mut progress = Progress::default();
        let most = u64::try_from(WAITING_MAX).unwrap();
        for revision in 1..=2 * most {
            progress.queue(revision, counted(1, &[]), (now, instant));
        }
        assert_eq!(progress.waiting.len(), WAITING_MAX);
        progress.take(status(2 * most - 1, 1), now);
        let pending = "kubeproxy_sync_proxy_rules_service_changes_pending";
        assert_eq!(metric(&progress, pending), (most + 1).to_string(), "those at the end");
        assert!(!progress.is_healthy(instant + 60 * SECOND));
        progress.take(status(2 * most, 2), now);
        assert_eq!(metric(&progress, pending), "0");
        assert!(progress.is_healthy(instant + 60 * SECOND));
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
