//! What is written to the API server. Everything else is only read.

mod events;
pub(crate) mod ingress;
pub(crate) mod services;
mod statuses;

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fairlead_state::write::WriteError;

use super::args::Args;

/// Changes are waited for so long before they are written, together.
const SETTLE: Duration = Duration::from_secs(1);
/// A missing right is not asked for again before.
const FORBIDDEN: Duration = Duration::from_secs(600);
/// What the API server refuses is not tried again before; the rest is written meanwhile.
const REFUSED: Duration = Duration::from_secs(60);
/// Of so many things that cannot be written the log names why; a line is read by people.
const COMPLAINTS_MAX: usize = 32;

/// What cannot be written, each said once until all can.
#[derive(Debug, Default)]
struct Complaints(BTreeSet<String>);

/// Unique among pods and over restarts.
fn identity(args: &Args, node_name: &str) -> String {
    let name = args.publish.pod.as_ref().map_or(node_name, |pod| &pod.0.name);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{name}_{:x}", started.as_micros())
}

impl Complaints {
    fn say(&mut self, error: &WriteError) {
        let reason = error.to_string();
        // A missing right is one, though the API server names each namespace.
        let about = match error {
            WriteError::Forbidden { what, .. } => (*what).to_owned(),
            _ => reason.clone(),
        };
        if self.0.len() < COMPLAINTS_MAX && self.0.insert(about) {
            tracing::warn!("{reason}");
        }
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}
