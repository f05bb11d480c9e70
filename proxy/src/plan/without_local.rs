//! Ports that a traffic policy of Local leaves without an endpoint on this node, as kube-proxy counts them
//! (`sync_proxy_rules_no_local_endpoints_total`).

use std::collections::BTreeSet;

use fairlead_ebpf::{
    abi::{FRONTEND_DROPS, FRONTEND_LOCAL},
    packet::is_mapped,
};
use fairlead_state::{
    Snapshot,
    model::{Service, TrafficPolicy},
};

use super::{NodeView, PlannedFrontend, plan_service};

/// Service ports whose clients are dropped though others elsewhere are served: `[internal, external][IPv4, IPv6]`.
pub fn without_local_endpoints(snapshot: &Snapshot, node: &NodeView) -> [[u64; 2]; 2] {
    let mut counts = [[0; 2]; 2];
    for service in snapshot.services().values().filter(|service| may_be_without(service)) {
        let slices: Vec<_> = snapshot.slices_of(&service.key).collect();
        let plan = plan_service(service, &slices, node);
        for (counts, is_without) in counts.iter_mut().zip([is_dropped, is_dropped_from_outside]) {
            let without = plan.frontends.iter().filter(|frontend| is_without(frontend));
            // A port has a frontend for each of its addresses.
            let ports: BTreeSet<_> = without.map(|f| (f.port, is_mapped(&f.key.address))).collect();
            for (count, is_ipv4) in counts.iter_mut().zip([true, false]) {
                *count += ports.iter().filter(|(_, of_ipv4)| *of_ipv4 == is_ipv4).count() as u64;
            }
        }
    }
    counts
}

fn may_be_without(service: &Service) -> bool {
    [service.internal_traffic_policy, service.external_traffic_policy]
        .contains(&TrafficPolicy::Local)
}

fn is_dropped(frontend: &PlannedFrontend) -> bool {
    frontend.flags & FRONTEND_DROPS != 0
}

fn is_dropped_from_outside(frontend: &PlannedFrontend) -> bool {
    frontend.flags & FRONTEND_LOCAL != 0 && frontend.local.is_none() && frontend.set.is_some()
}
