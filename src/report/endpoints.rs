//! A Service port's endpoints one by one, and why there is none to send to.

use std::collections::BTreeSet;

use fairlead_state::{
    Snapshot,
    model::{Endpoint, Service, ServicePort, TargetPort},
};
use serde::{Deserialize, Serialize};

use crate::counted::counted;

/// An endpoint as its EndpointSlice has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndpointRow {
    /// Address and port.
    pub(crate) address: String,
    /// The Service's port it serves.
    pub(crate) port: String,
    /// `ready`, `not ready`, `terminating (still serving)`, `terminating`.
    pub(crate) state: String,
    pub(crate) pod: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) zone: Option<String>,
    /// Zones and nodes its hints name.
    pub(crate) hints: Vec<String>,
}

/// All endpoints of a Service, or of one of its ports.
pub(crate) fn rows(
    snapshot: &Snapshot,
    service: &Service,
    only: Option<&ServicePort>,
) -> Vec<EndpointRow> {
    let mut rows = Vec::new();
    for slice in snapshot.slices_of(&service.key) {
        for port in slice.ports.iter() {
            let wanted = |of: &&ServicePort| of.name == port.name && of.protocol == port.protocol;
            let Some(known) = service.ports.iter().find(wanted) else { continue };
            if only.is_some_and(|only| only != known) {
                continue;
            }
            for endpoint in slice.endpoints.iter() {
                let Some(ip) = endpoint.addresses.first() else { continue };
                let hints = endpoint.hints.zones.iter().chain(endpoint.hints.nodes.iter());
                rows.push(EndpointRow {
                    address: std::net::SocketAddr::new(*ip, port.port).to_string(),
                    port: known.to_string(),
                    state: state(endpoint).to_owned(),
                    pod: endpoint.pod.as_deref().map(str::to_owned),
                    node: endpoint.node_name.as_deref().map(str::to_owned),
                    zone: endpoint.zone.as_deref().map(str::to_owned),
                    hints: hints.map(ToString::to_string).collect(),
                });
            }
        }
    }
    rows.sort_by(|a, b| (&a.port, &a.address).cmp(&(&b.port, &b.address)));
    rows.dedup();
    rows
}

fn state(endpoint: &Endpoint) -> &'static str {
    match (endpoint.ready, endpoint.serving, endpoint.terminating) {
        (true, _, _) => "ready",
        (_, true, true) => "terminating (still serving)",
        (_, false, true) => "terminating",
        _ => "not ready",
    }
}

/// Why a Service port has no endpoints at all, and what to do.
pub(crate) fn why_none(snapshot: &Snapshot, service: &Service, port: &ServicePort) -> String {
    let key = &service.key;
    let slices: Vec<_> = snapshot.slices_of(key).collect();
    let total: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
    if slices.is_empty() || total == 0 {
        return format!(
            "no pod matches Service {key}: compare its selector with the pods' labels \
             (kubectl -n {} get pods --show-labels; kubectl -n {} describe service {})",
            key.namespace, key.namespace, key.name
        );
    }
    let fits = |name: &str, protocol| *port.name == *name && port.protocol == protocol;
    let offers = |slice: &&&std::sync::Arc<fairlead_state::model::EndpointSlice>| {
        slice.ports.iter().any(|p| fits(&p.name, p.protocol))
    };
    if !slices.iter().any(|slice| offers(&slice)) {
        let offered: BTreeSet<String> = slices
            .iter()
            .flat_map(|slice| slice.ports.iter())
            .map(|p| format!("{:?} ({}/{})", &*p.name, p.port, p.protocol))
            .collect();
        let target = match &port.target_port {
            Some(TargetPort::Name(name)) => format!(
                "its targetPort {name:?} is the name of no container port of those pods: correct \
                 targetPort, or name the pods' port so"
            ),
            _ => "EndpointSlices and Service must name the port alike".to_owned(),
        };
        let offered = if offered.is_empty() {
            "no port at all".to_owned()
        } else {
            offered.into_iter().collect::<Vec<_>>().join(", ")
        };
        let total = counted(total, "endpoint");
        return format!("{total}, none with port {port}; offered is {offered}: {target}");
    }
    let endpoints = slices.iter().filter(offers).flat_map(|slice| slice.endpoints.iter());
    let (ending, unready): (Vec<_>, Vec<_>) = endpoints.partition(|endpoint| endpoint.terminating);
    let pods: Vec<&str> = unready.iter().filter_map(|e| e.pod.as_deref()).take(3).collect();
    let named = if pods.is_empty() { String::new() } else { format!(" ({})", pods.join(", ")) };
    if unready.is_empty() {
        return format!(
            "{}, all terminating: wait for successors, or see why there are none (kubectl -n {} get \
             pods)",
            counted(ending.len(), "endpoint"),
            key.namespace
        );
    }
    format!(
        "{}, none ready{named}: see why readiness probes fail (kubectl -n {} describe pod ...)",
        counted(unready.len() + ending.len(), "endpoint"),
        key.namespace
    )
}
