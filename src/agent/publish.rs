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

/// Whether the nodes' addresses are missing, and for how many looks.
#[derive(Debug, Default)]
struct Nowhere(u32);

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

impl Nowhere {
    /// Says so once while it lasts; returns whether it did. At the first look a pod that has only just
    /// begun to serve is not ready yet, as its kubelet sees it.
    fn look(&mut self, is_nowhere: bool) -> bool {
        self.0 = if is_nowhere { self.0.saturating_add(1) } else { 0 };
        let says = self.0 == 2;
        if says {
            tracing::warn!(
                "Ingress: no ready pod of this set has a node's address, so no Ingress is given one: see \
                 whether its pods are ready, or give --publish-address or --publish-service"
            );
        }
        says
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_addresses_are_told_once_while_they_are_missing_for_more_than_a_moment() {
        let mut nowhere = Nowhere::default();
        let looks = [true, false, true, true, true, true, false, true, true];
        let said = looks.map(|is_nowhere| nowhere.look(is_nowhere));
        assert_eq!(said, [false, false, false, true, false, false, false, false, true]);
    }
}
