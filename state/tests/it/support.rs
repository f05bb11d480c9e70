//! A started source, and objects in few words.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_state::{Kind, Running, Snapshot, Source, SourceHealth, start};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest wait for something that must happen.
const LIMIT: Duration = Duration::from_secs(20);

/// A running source and every snapshot it was seen to publish.
pub(crate) struct Followed {
    running: Running,
    history: Vec<Vec<String>>,
    _stop: DropGuard,
}

impl Followed {
    pub(crate) fn start(source: impl Source, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let cancel = CancellationToken::new();
        let running = start(source, kinds, cancel.clone());
        Self { running, history: Vec::new(), _stop: cancel.drop_guard() }
    }

    /// Waits until a snapshot is as wished.
    pub(crate) async fn until(&mut self, what: &str, wished: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let published = self.running.snapshots.borrow_and_update().is_some();
            if published {
                self.history.push(self.services());
                if wished(self) {
                    return;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.running.snapshots.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => panic!("{what}: the source ended"),
                Err(_) => panic!("{what}: not seen; last: {:?}", self.history.last()),
            }
        }
    }

    pub(crate) async fn until_health(
        &mut self,
        what: &str,
        wished: impl FnMut(&SourceHealth) -> bool,
    ) {
        let seen = timeout(LIMIT, self.running.health.wait_for(wished)).await;
        seen.unwrap_or_else(|_| panic!("{what}: not seen")).unwrap();
    }

    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        self.running.snapshots.borrow().clone().unwrap()
    }

    pub(crate) fn health(&self) -> SourceHealth {
        self.running.health.borrow().clone()
    }

    /// `default/a:80`, sorted.
    pub(crate) fn services(&self) -> Vec<String> {
        let snapshot = self.newest();
        let services = snapshot.services().values();
        services.map(|service| format!("{}:{}", service.key, service.ports[0].port)).collect()
    }

    /// The services of every snapshot seen while waiting.
    pub(crate) fn history(&self) -> &[Vec<String>] {
        &self.history
    }
}

/// What `--manifests` promises.
pub(crate) fn within() -> Duration {
    Duration::from_millis(100)
}

pub(crate) fn service(name: &str, port: u32) -> String {
    let mut text = String::from("apiVersion: v1\nkind: Service\nmetadata:\n");
    writeln!(text, "  name: {name}\nspec:\n  clusterIP: 10.96.0.1\n  ports:").unwrap();
    writeln!(text, "  - port: {port}").unwrap();
    text
}

pub(crate) fn secret(name: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{a: b}}\n")
}

pub(crate) fn ingress(name: &str, secret: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n  \
         tls: [{{secretName: {secret}}}]\n  \
         defaultBackend: {{service: {{name: a, port: {{number: 80}}}}}}\n"
    )
}
