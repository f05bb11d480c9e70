//! Which endpoints of a service this node sends to (KEP-2433, KEP-3015, KEP-1669).

use std::cmp::Reverse;

use fairlead_ebpf::abi::{BACKEND_LOCAL, Backend};
use fairlead_state::model::Endpoint;

use super::NodeView;

/// An endpoint that serves a port.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What it is in the maps.
    pub backend: Backend,
    /// Its conditions and hints.
    pub endpoint: &'a Endpoint,
}

/// What the hints of the ready endpoints allow to prefer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    SameNode,
    SameZone,
    Anywhere,
}

impl Candidate<'_> {
    pub(super) fn is_local(&self) -> bool {
        self.backend.flags & BACKEND_LOCAL != 0
    }

    fn is_draining(&self) -> bool {
        self.endpoint.serving && self.endpoint.terminating
    }

    fn is_for(&self, topology: Topology, node: &NodeView) -> bool {
        match topology {
            Topology::Anywhere => true,
            Topology::SameNode => self.endpoint.hints.nodes.contains(&node.name),
            Topology::SameZone => {
                node.zone.as_ref().is_some_and(|zone| self.endpoint.hints.zones.contains(zone))
            }
        }
    }
}

/// Sorts by address and port and leaves each once. An endpoint that is in two slices for the time it moves between them
/// counts with its readier entry, and as local if either says so. One that terminates may have left its address to
/// another pod, of another node, which is meant then (kube-proxy's pkg/proxy/endpointslicecache.go).
pub fn unique(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    let place = |c: &Candidate<'_>| (c.backend.address, c.backend.port);
    let state = |c: &Candidate<'_>| {
        let Endpoint { ready, serving, terminating, .. } = *c.endpoint;
        (!terminating, ready, serving)
    };
    candidates.sort_by_key(|c| (place(c), Reverse(state(c))));
    candidates.dedup_by(|later, kept| {
        let is_same = place(later) == place(kept);
        if is_same && state(later) == state(kept) {
            kept.backend.flags |= later.backend.flags;
        }
        is_same
    });
    candidates
}

/// Where connections under policy Cluster go: ready endpoints, the near ones if the hints say so;
/// without any ready one those that still serve while they terminate, wherever they are.
pub fn for_cluster(candidates: &[Candidate<'_>], node: &NodeView) -> Vec<Backend> {
    let topology = topology(candidates, node);
    let ready = |c: &&Candidate<'_>| c.endpoint.ready && c.is_for(topology, node);
    let chosen = candidates.iter().filter(ready).collect();
    in_slots(or_draining(chosen, candidates.iter()))
}

/// Where connections under policy Local go; hints do not count there.
pub fn for_node(candidates: &[Candidate<'_>]) -> Vec<Backend> {
    let local = || candidates.iter().filter(|c| c.is_local());
    let chosen = local().filter(|c| c.endpoint.ready).collect();
    in_slots(or_draining(chosen, local()))
}

/// All that serve, wherever they are and whatever policies and hints say: with whom flows of datagrams stay.
pub fn serving(candidates: &[Candidate<'_>]) -> Vec<Backend> {
    let serves = |c: &&Candidate<'_>| c.endpoint.ready || c.endpoint.serving;
    in_slots(candidates.iter().filter(serves).collect())
}

/// A hint counts only if every ready endpoint has one (the controller may be half-way through) and
/// if it leads somewhere.
fn topology(candidates: &[Candidate<'_>], node: &NodeView) -> Topology {
    let ready = || candidates.iter().filter(|c| c.endpoint.ready);
    let leads_on = |topology| ready().any(|c| c.is_for(topology, node));
    if ready().all(|c| !c.endpoint.hints.nodes.is_empty()) && leads_on(Topology::SameNode) {
        return Topology::SameNode;
    }
    if ready().all(|c| !c.endpoint.hints.zones.is_empty()) && leads_on(Topology::SameZone) {
        return Topology::SameZone;
    }
    Topology::Anywhere
}

fn or_draining<'a, 'b>(
    chosen: Vec<&'a Candidate<'b>>,
    all: impl Iterator<Item = &'a Candidate<'b>>,
) -> Vec<&'a Candidate<'b>> {
    if chosen.is_empty() { all.filter(|c| c.is_draining()).collect() } else { chosen }
}

/// Locals first, so that both traffic policies can share a set.
fn in_slots(chosen: Vec<&Candidate<'_>>) -> Vec<Backend> {
    let (local, remote): (Vec<&Candidate<'_>>, _) = chosen.into_iter().partition(|c| c.is_local());
    local.into_iter().chain(remote).map(|c| c.backend).collect()
}

#[cfg(test)]
mod tests;
