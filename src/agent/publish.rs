//! What is written to the API server. Everything else is only read.

mod events;
pub(crate) mod ingress;
pub(crate) mod services;
mod statuses;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlead_state::write::WriteError;
use tokio::time::Instant;

use super::args::Args;

/// Changes are waited for so long before they are written, together.
const SETTLE: Duration = Duration::from_secs(1);
/// A missing right is not asked for again before.
const FORBIDDEN: Duration = Duration::from_secs(600);

/// A kind of write, and what keeps it from happening.
#[derive(Debug, Default)]
struct Fault {
    said: Option<String>,
    until: Option<Instant>,
}

/// Unique among pods and over restarts.
fn identity(args: &Args, node_name: &str) -> String {
    let name = args.publish.pod.as_ref().map_or(node_name, |pod| &pod.0.name);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{name}_{:x}", started.as_micros())
}

impl Fault {
    /// Whether it is too early to try again.
    fn holds(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Says what is new, once.
    fn note(&mut self, result: Result<(), WriteError>) {
        let Err(error) = result else {
            *self = Self::default();
            return;
        };
        self.until = error.is_forbidden().then(|| Instant::now() + FORBIDDEN);
        let reason = error.to_string();
        if self.said.as_ref() != Some(&reason) {
            tracing::warn!("{reason}");
            self.said = Some(reason);
        }
    }
}
