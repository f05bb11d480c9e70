//! The pages kube-proxy serves, in its words: `/healthz` and `/livez` (KEP-3836), `/proxyMode`,
//! `/configz` and `kubeproxy_*` metrics.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use fairlead_proxy::{
    ProxyStatus,
    plan::{NodeView, Rules, without_local_endpoints},
};
use fairlead_state::{Key, Kind, ObjectRef, Snapshot, store::Snapshots};
use hyper::StatusCode;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{http::Page, proxy::is_served};
use crate::{
    kube_proxy::{
        changes::{self, Counted},
        progress::{Progress, Status},
    },
    metrics,
};

/// What the cluster autoscaler puts on a node that is about to go.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What kube-proxy would tell.
#[derive(Debug, Default)]
pub(crate) struct Face {
    progress: Mutex<Progress>,
    healthz: Answers,
    livez: Answers,
}

/// How often a page said yes and no.
#[derive(Debug, Default)]
struct Answers {
    good: AtomicU64,
    bad: AtomicU64,
}

impl Face {
    fn progress<T>(&self, with: impl FnOnce(&mut Progress) -> T) -> T {
        with(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows a started proxy for ever.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut snapshots: Snapshots,
        mut status: watch::Receiver<ProxyStatus>,
    ) {
        self.progress(Progress::restarted);
        let mut seen: Option<Arc<Snapshot>> = None;
        snapshots.mark_changed();
        loop {
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() {
                    return;
                },
                changed = status.changed() => if changed.is_err() {
                    return;
                },
            }
            // The status first: a snapshot that comes in between waits for the next one.
            let now = status_of(&status.borrow_and_update());
            let newest = snapshots.borrow_and_update().clone();
            if let Some(newest) = newest.filter(|newest| !is_same(seen.as_ref(), newest)) {
                // A proxy that is started again has nothing new to count.
                let is_known = seen.is_none() && self.progress(|progress| progress.has_begun());
                let counted = if is_known {
                    Counted::default()
                } else {
                    changes::between(seen.as_deref(), &newest)
                };
                let at = (Timestamp::now(), Instant::now());
                self.progress(|progress| progress.queue(newest.revision(), counted, at));
                seen = Some(newest);
            }
            self.progress(|progress| progress.take(now, Timestamp::now()));
        }
    }

    /// `/healthz`: may balancers send traffic of Services here? Not to a node that is about to go.
    pub(super) fn healthz(&self, is_ready: bool, is_eligible: bool) -> Page {
        let (is_good, body) = self.health(is_ready, Some(is_eligible));
        self.healthz.count(is_good, body)
    }

    /// `/livez`: is what changes written? What becomes of the node is no reason to restart.
    pub(super) fn livez(&self) -> Page {
        let (is_good, body) = self.health(true, None);
        self.livez.count(is_good, body)
    }

    /// Whether changes are written in time.
    pub(super) fn is_written(&self) -> bool {
        self.progress(|progress| progress.is_healthy(Instant::now()))
    }

    /// Whether all is well, and kube-proxy's ProxyHealth. One pass writes both families, which fare alike. As there, whoever
    /// is well was updated now: it once wrote everything again and again.
    fn health(&self, is_ready: bool, is_eligible: Option<bool>) -> (bool, String) {
        let (is_written, at) =
            self.progress(|progress| (progress.is_healthy(Instant::now()), progress.written_at()));
        let is_healthy = is_written && is_ready;
        let is_good = is_healthy && is_eligible != Some(false);
        let now = Timestamp::now();
        let updated = if is_good { now } else { at.unwrap_or(Timestamp::UNIX_EPOCH) };
        let mut body = format!("{{\"lastUpdated\": \"{updated}\",\"currentTime\": \"{now}\"");
        // Writing to a String cannot fail.
        if let Some(is_eligible) = is_eligible {
            let _ = write!(body, ", \"nodeEligible\": {is_eligible}");
        }
        let _ = write!(body, ", \"healthy\": {is_healthy}");
        if let Some(at) = at {
            let family = format!("{{\"lastUpdated\": \"{at}\", \"healthy\": {is_healthy}}}");
            let _ = write!(body, ", \"status\": {{\"IPv4\": {family}, \"IPv6\": {family}}}");
        }
        body.push('}');
        (is_good, body)
    }

    /// `kubeproxy_*`, of the objects in `snapshot` as the node `name` serves them.
    pub(super) fn write_metrics(
        &self,
        text: &mut String,
        snapshot: Option<&Snapshot>,
        (name, rules): (&str, Rules),
    ) {
        for (page, answers) in [("healthz", &self.healthz), ("livez", &self.livez)] {
            let metric = format!("kubeproxy_proxy_{page}_total");
            metrics::head(text, &metric);
            for (code, count) in [(200, &answers.good), (503, &answers.bad)] {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(text, "{metric}{{code=\"{code}\"}} {count}");
            }
        }
        self.progress(|progress| progress.write_metrics(text));
        let Some(snapshot) = snapshot else { return };
        let metric = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
        metrics::head(text, metric);
        let node = NodeView { rules, ..NodeView::new(name, snapshot) };
        let counts = without_local_endpoints(snapshot, &node);
        for (policy, counts) in ["internal", "external"].into_iter().zip(counts) {
            for (family, count) in ["IPv4", "IPv6"].into_iter().zip(counts) {
                let labels = format!("ip_family=\"{family}\",traffic_policy=\"{policy}\"");
                let _ = writeln!(text, "{metric}{{{labels}}} {count}");
            }
        }
    }
}

impl Answers {
    fn count(&self, is_good: bool, body: String) -> Page {
        let (count, status) = if is_good {
            (&self.good, StatusCode::OK)
        } else {
            (&self.bad, StatusCode::SERVICE_UNAVAILABLE)
        };
        count.fetch_add(1, Ordering::Relaxed);
        (status, body)
    }
}

/// KEP-3836: neither deleted nor about to be. Of a node that an API server does not know it was taken away already; files
/// need not name it, nor do refusals tell what has become of it.
pub(super) fn is_eligible(snapshot: Option<&Snapshot>, node: &str, is_of_server: bool) -> bool {
    let Some(snapshot) = snapshot else { return true };
    let key = Key::new("", node);
    match snapshot.nodes().get(&key) {
        Some(node) => !node.deleting && !node.taints.iter().any(|taint| &**taint == TO_BE_DELETED),
        None => {
            !is_of_server || snapshot.refused().contains_key(&ObjectRef { kind: Kind::Node, key })
        }
    }
}

fn is_same(seen: Option<&Arc<Snapshot>>, newest: &Arc<Snapshot>) -> bool {
    seen.is_some_and(|seen| Arc::ptr_eq(seen, newest))
}

fn status_of(status: &ProxyStatus) -> Status {
    Status {
        revision: status.revision,
        is_served: is_served(status),
        passes_total: status.passes_total,
        last_pass: status.last_pass,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;

    fn snapshot(metadata: &str, taints: &str) -> Arc<Snapshot> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.yaml");
        let text = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n1{metadata}}}\nspec: {{taints: [{taints}]}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let loaded =
            fairlead_state::source::directory::load(&[file], None, BTreeSet::new()).unwrap();
        loaded.snapshot
    }

    #[test]
    fn a_node_that_is_about_to_go_gets_no_traffic_and_its_proxy_lives_on() {
        let deleted = ", deletionTimestamp: 2026-01-31T12:00:00Z";
        let taint = "{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}";
        let other = "{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}";
        for (metadata, taints, expected) in
            [("", "", true), ("", other, true), ("", taint, false), (deleted, "", false)]
        {
            let snapshot = snapshot(metadata, taints);
            for is_of_server in [false, true] {
                let is_eligible = is_eligible(Some(&snapshot), "n1", is_of_server);
                assert_eq!(is_eligible, expected, "{metadata}{taints}");
            }
            let face = Face::default();
            let (status, body) = face.healthz(true, expected);
            assert_eq!(status == StatusCode::OK, expected);
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((&body["nodeEligible"], &body["healthy"]), (&expected.into(), &true.into()));
            assert_eq!(body["lastUpdated"] == body["currentTime"], expected, "{body}");
            assert_eq!(face.livez().0, StatusCode::OK);
        }
        assert!(is_eligible(None, "n1", true), "nothing is known");
    }

    /// kube-proxy ends with its Node, and says 503 as long as there is none.
    #[test]
    fn a_node_that_the_api_server_knows_no_more_gets_no_traffic() {
        let others = snapshot("", "");
        assert!(is_eligible(Some(&others), "n2", false), "files need not name it");
        assert!(!is_eligible(Some(&others), "n2", true));
        let refused = snapshot(", labels: 7", "");
        assert!(refused.nodes().is_empty() && !refused.refused().is_empty());
        assert!(is_eligible(Some(&refused), "n1", true), "it is there, and cannot be read");
    }

    #[test]
    fn health_is_told_of_each_family_since_it_was_written() {
        let face = Face::default();
        let read = |page: Page| serde_json::from_str::<serde_json::Value>(&page.1).unwrap();
        assert!(read(face.livez()).get("status").is_none(), "nothing was written yet");
        let at = Timestamp::from_second(1000).unwrap();
        let status =
            Status { revision: 1, is_served: true, passes_total: 1, last_pass: Duration::ZERO };
        face.progress(|progress| progress.take(status, at));
        for (page, is_healthy) in [
            (face.livez(), true),
            (face.healthz(true, false), true),
            (face.healthz(false, true), false),
        ] {
            let body = read(page);
            assert_eq!(body["healthy"], is_healthy, "{body}");
            let family = serde_json::json!({"lastUpdated": at.to_string(), "healthy": is_healthy});
            assert_eq!(body["status"], serde_json::json!({"IPv4": family, "IPv6": family}));
        }
    }

    #[test]
    fn a_change_that_waits_for_a_minute_is_503_on_both_pages() {
        let counted = || Counted { services: 1, ..Counted::default() };
        for (waited_s, status) in [(50, StatusCode::OK), (61, StatusCode::SERVICE_UNAVAILABLE)] {
            let face = Face::default();
            let since = Instant::now().checked_sub(Duration::from_secs(waited_s)).unwrap();
            face.progress(|progress| progress.queue(1, counted(), (Timestamp::now(), since)));
            for (code, body) in [face.healthz(true, true), face.livez()] {
                assert_eq!(code, status, "after {waited_s} s: {body}");
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert_eq!(body["healthy"], status == StatusCode::OK, "{body}");
            }
            assert_eq!(face.is_written(), status == StatusCode::OK, "at health check ports, too");
        }
    }

    #[test]
    fn answers_are_json_with_times_and_are_counted_by_status() {
        let face = Face::default();
        assert_eq!(face.healthz(false, true).0, StatusCode::SERVICE_UNAVAILABLE);
        let (status, body) = face.livez();
        assert_eq!(status, StatusCode::OK);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let time = body["lastUpdated"].as_str().unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.ends_with('Z'), "{time}");
        let fields: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            BTreeSet::from_iter(fields),
            BTreeSet::from(["lastUpdated", "currentTime", "healthy"])
        );
        let mut text = String::new();
        face.write_metrics(&mut text, None, ("n1", Rules::default()));
        for line in [
            "kubeproxy_proxy_healthz_total{code=\"200\"} 0",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
            "kubeproxy_proxy_livez_total{code=\"200\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
