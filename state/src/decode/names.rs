//! What recurs in many objects is kept once: names of nodes, zones, ports and namespaces, and lists of
//! ports.

use std::{borrow::Borrow, collections::HashSet, hash::Hash, sync::Arc};

use super::text::{Text, kept};
use crate::model::{EndpointPort, Name, ServicePort};

/// Below so many entries a pool is not worth sweeping.
const SWEEP_ENTRIES_MIN: usize = 4096;

/// Pools of what recurs.
#[derive(Debug, Default)]
pub struct Names {
    /// Labels that mean nothing here are kept, too.
    labels: bool,
    strings: Pool<Name>,
    service_ports: Pool<Arc<[ServicePort]>>,
    endpoint_ports: Pool<Arc<[EndpointPort]>>,
}

#[derive(Debug)]
struct Pool<S> {
    known: HashSet<S>,
    sweep_at: usize,
}

impl Names {
    pub(super) fn new(labels: bool) -> Self {
        Self { labels, ..Self::default() }
    }

    pub(super) fn keeps_labels(&self) -> bool {
        self.labels
    }

    /// The shared string equal to `text`.
    pub fn get(&mut self, text: &str) -> Name {
        // Of a static string there is no count.
        let is_held = |name: &Name| Name::strong_count(name).is_none_or(|count| count > 1);
        self.strings.get(text, Name::from, is_held)
    }

    pub(super) fn get_some(&mut self, text: Option<&Text<'_>>) -> Option<Name> {
        text.filter(|text| !text.is_empty()).map(|text| self.get(text))
    }

    pub(super) fn service_ports(&mut self, ports: Vec<ServicePort>) -> Arc<[ServicePort]> {
        // No two Services have the same port of nodes.
        if ports.is_empty() || ports.iter().any(|port| port.node_port.is_some()) {
            return kept(ports);
        }
        self.service_ports.get(ports.as_slice(), Arc::from, is_held)
    }

    pub(super) fn endpoint_ports(&mut self, ports: Vec<EndpointPort>) -> Arc<[EndpointPort]> {
        if ports.is_empty() {
            return kept(ports);
        }
        self.endpoint_ports.get(ports.as_slice(), Arc::from, is_held)
    }

    /// How many strings are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.strings.known.len()
    }
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: 0 }
    }
}

impl<S: Clone + Eq + Hash> Pool<S> {
    fn get<'v, V>(
        &mut self,
        value: &'v V,
        make: impl FnOnce(&'v V) -> S,
        is_held: impl Fn(&S) -> bool,
    ) -> S
    where
        S: Borrow<V>,
        V: Eq + Hash + ?Sized,
    {
        if let Some(known) = self.known.get(value) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            // What only the pool holds belongs to objects long gone.
            self.known.retain(is_held);
            self.sweep_at = (self.known.len() * 2).max(SWEEP_ENTRIES_MIN);
        }
        let new = make(value);
        self.known.insert(new.clone());
        new
    }
}

fn is_held<T>(list: &Arc<[T]>) -> bool {
    Arc::strong_count(list) > 1
}
