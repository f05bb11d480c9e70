//! Names that are to be asked for, as soon as there is a place.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_state::Name;
use tokio::time::Instant;

use crate::fair::Shares;

/// Each name with since when it waits, once for each of the namespaces that want it: another one that wants it, too,
/// makes it come no later.
#[derive(Debug, Default)]
pub(super) struct Due {
    lines: BTreeMap<Name, BTreeSet<(Instant, Name)>>,
    /// Namespaces, each since when the first of its line waits.
    order: BTreeSet<(Instant, Name)>,
}

impl Due {
    pub(super) fn insert(&mut self, namespaces: &[Name], since: Instant, name: &Name) {
        for namespace in namespaces {
            self.change(namespace, |line| line.insert((since, name.clone())));
        }
    }

    pub(super) fn remove(&mut self, namespaces: &[Name], since: Instant, name: &Name) {
        for namespace in namespaces {
            self.change(namespace, |line| line.remove(&(since, name.clone())));
        }
    }

    /// Whose turn it is, and which of its names: of the namespaces that hold fewest places the one that waits longest.
    /// `None`: there is no place for any of them.
    pub(super) fn next(&self, shares: &Shares) -> Option<(Name, Name)> {
        let mut fewest: Option<(usize, &Name)> = None;
        // Those that hold any are no more than there are places, so that this does not go through all of them.
        for (_, namespace) in &self.order {
            let held = shares.held(namespace);
            if fewest.is_none_or(|(least, _)| held < least) {
                fewest = Some((held, namespace));
            }
            if held == 0 {
                break;
            }
        }
        let (_, namespace) = fewest.filter(|(held, _)| shares.has(1, *held))?;
        let (_, name) = self.lines.get(namespace)?.first()?;
        Some((namespace.clone(), name.clone()))
    }

    fn change(
        &mut self,
        namespace: &Name,
        by: impl FnOnce(&mut BTreeSet<(Instant, Name)>) -> bool,
    ) {
        let line = self.lines.entry(namespace.clone()).or_default();
        let before = line.first().map(|(since, _)| *since);
        by(line);
        let after = line.first().map(|(since, _)| *since);
        if after.is_none() {
            self.lines.remove(namespace);
        }
        if before != after {
            if let Some(since) = before {
                self.order.remove(&(since, namespace.clone()));
            }
            self.order.extend(after.map(|since| (since, namespace.clone())));
        }
    }
}
