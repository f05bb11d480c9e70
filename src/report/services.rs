//! `fairlead services`: frontends, backends, policies and counters.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use fairlead_proxy::explain::{Client, Verdict};
use fairlead_state::{
    Key,
    model::{
        Service, ServicePort, ServiceType, SessionAffinity, TrafficDistribution, TrafficPolicy,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    bytes::{BothWays, Bytes},
    endpoints::{self, EndpointRow},
    part::{Extent, Wanted},
};
use crate::{
    counted::counted,
    table::{Cell, Screen, Table, Tone},
    view::{Counted, View},
};

/// One address and port that clients dial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FrontendRow {
    /// `tcp 10.96.0.10:53`, `tcp *:30080 (NodePort, IPv4)`.
    pub(crate) frontend: String,
    pub(crate) port: String,
    /// `2 endpoints`, `REJECT (…)`, `DROP (…)`.
    pub(crate) leads_to: String,
    pub(crate) endpoints: usize,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServiceRow {
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<String>,
    /// Ready endpoints, and all, pods counted once.
    pub(crate) ready: usize,
    pub(crate) endpoints_total: usize,
    /// Connections and refusals since the agent's maps were made; `null` without a kernel.
    pub(crate) connections: Option<u64>,
    pub(crate) rejected: Option<u64>,
    /// `null`: not counted.
    pub(crate) bytes: Option<Bytes>,
    pub(crate) internal_traffic_policy: String,
    pub(crate) external_traffic_policy: String,
    /// Seconds; 0: none.
    pub(crate) affinity_seconds: u32,
    pub(crate) traffic_distribution: Option<String>,
    pub(crate) source_ranges: Vec<String>,
    pub(crate) health_check_node_port: Option<u16>,
    /// Filled for a single Service.
    pub(crate) frontends: Vec<FrontendRow>,
    pub(crate) endpoints: Vec<EndpointRow>,
    pub(crate) problems: Vec<String>,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Services {
    /// Where decisions come from.
    pub(crate) source: String,
    pub(crate) services: Vec<ServiceRow>,
}

/// Every Service, or the one named `NAMESPACE/NAME` (or `NAME` in `default`).
///
/// # Errors
/// There is no such Service, or the maps cannot be read.
pub(crate) fn build(view: &View<'_>, only: Option<&str>) -> anyhow::Result<Services> {
    let source = view.source().to_owned();
    let counted = view.counted();
    let row = |service: &Service| row(view, service, counted.as_ref());
    let Some(only) = only else {
        let services = view.snapshot.services().values().map(|service| row(service));
        return Ok(Services { source, services: services.collect() });
    };
    let (namespace, name) = only.split_once('/').unwrap_or(("default", only));
    let key = fairlead_state::Key::new(namespace, name);
    let Some(service) = view.snapshot.services().get(&key) else {
        let others = view.snapshot.services().keys().filter(|other| *other.name == *name);
        let others: Vec<String> = others.map(ToString::to_string).collect();
        let hint = match others.as_slice() {
            [] => "`fairlead services` lists all".to_owned(),
            others => format!("there is {}", others.join(", ")),
        };
        anyhow::bail!("Service {key} does not exist; {hint}");
    };
    let mut row = row(service);
    row.endpoints = endpoints::rows(&view.snapshot, service, None);
    row.frontends = frontends(view, service)?;
    Ok(Services { source, services: vec![row] })
}

/// Which Services of a long list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Which {
    #[default]
    All,
    /// Nobody is there to send to.
    Down,
    /// Something of them is not served as they ask.
    Problematic,
}

/// The wanted part of all Services.
pub(crate) fn some(view: &View<'_>, wanted: &Wanted, which: Which) -> (Vec<ServiceRow>, Extent) {
    let counted = view.counted();
    let fits = |service: &&std::sync::Arc<Service>| {
        wanted.fits(|word| mentions(service, word))
            && match which {
                Which::All => true,
                Which::Down => row(view, service, None).is_down(),
                Which::Problematic => !view.problems(&service.key).is_empty(),
            }
    };
    let fits = (wanted.has_words() || which != Which::All).then_some(fits);
    let (some, extent) = wanted.take(view.snapshot.services().values(), fits);
    (some.into_iter().map(|service| row(view, service, counted.as_ref())).collect(), extent)
}

fn mentions(service: &Service, word: &str) -> bool {
    let Key { namespace, name } = &service.key;
    let is_named = name.contains(word) || namespace.contains(word);
    let is_path = || word.contains('/') && service.key.to_string().contains(word);
    let has_address = || {
        let balancer = service.extras.load_balancer_ips.iter().map(|ip| ip.ip);
        let mut all = service.cluster_ips.iter().copied().chain(balancer);
        word.contains(['.', ':']) && all.any(|ip| ip.to_string().starts_with(word))
    };
    let has_port = || {
        let wanted: Option<u16> = word.parse().ok();
        wanted.is_some()
            && service.ports.iter().any(|p| Some(p.port) == wanted || p.node_port == wanted)
    };
    is_named || is_path() || kind(service).eq_ignore_ascii_case(word) || has_address() || has_port()
}

impl ServiceRow {
    /// Nobody is there to send to, and somebody should be.
    pub(crate) fn is_down(&self) -> bool {
        self.ready == 0 && self.kind != "ExternalName"
    }
}

fn row(view: &View<'_>, service: &Service, counted: Option<&HashMap<&Key, Counted>>) -> ServiceRow {
    let all = endpoints::rows(&view.snapshot, service, None);
    let pods = |ready: bool| {
        let chosen = all.iter().filter(|row| !ready || row.state == "ready");
        let of = |row: &EndpointRow| row.pod.clone().unwrap_or_else(|| row.address.clone());
        chosen.map(of).collect::<std::collections::BTreeSet<_>>().len()
    };
    let counters = counted.map(|counted| counted.get(&service.key).copied().unwrap_or_default());
    let balancer = service.extras.load_balancer_ips.iter().map(|ip| ip.ip);
    let external = service.extras.external_ips.iter().copied();
    ServiceRow {
        namespace: service.key.namespace.to_string(),
        name: service.key.name.to_string(),
        kind: kind(service).to_owned(),
        addresses: service.cluster_ips.iter().copied().chain(balancer).chain(external).collect(),
        ports: service.ports.iter().map(port).collect(),
        ready: pods(true),
        endpoints_total: pods(false),
        connections: counters.map(|counters| counters.connections),
        rejected: counters.map(|counters| counters.rejected),
        bytes: counters.and_then(|counters| counters.bytes).map(Bytes::from),
        internal_traffic_policy: policy(service.internal_traffic_policy).to_owned(),
        external_traffic_policy: policy(service.external_traffic_policy).to_owned(),
        affinity_seconds: match service.extras.session_affinity {
            SessionAffinity::ClientIp { timeout_seconds } => timeout_seconds,
            SessionAffinity::None => 0,
        },
        traffic_distribution: service.traffic_distribution.map(|distribution| {
            match distribution {
                TrafficDistribution::PreferSameNode => "PreferSameNode",
                TrafficDistribution::PreferSameZone => "PreferSameZone",
            }
            .to_owned()
        }),
        source_ranges: service
            .extras
            .load_balancer_source_ranges
            .iter()
            .map(ToString::to_string)
            .collect(),
        health_check_node_port: service.extras.health_check_node_port,
        frontends: Vec::new(),
        endpoints: Vec::new(),
        problems: view.problems(&service.key),
    }
}

fn kind(service: &Service) -> &'static str {
    match service.service_type {
        ServiceType::ClusterIp if service.headless => "headless",
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::ExternalName => "ExternalName",
    }
}

fn port(port: &ServicePort) -> String {
    match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    }
}

pub(super) fn policy(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}

fn frontends(view: &View<'_>, service: &Service) -> anyhow::Result<Vec<FrontendRow>> {
    let mut rows = Vec::new();
    for port in service.ports.iter() {
        let balancer = service.extras.load_balancer_ips.iter().map(|ip| ip.ip);
        let external = service.extras.external_ips.iter().copied();
        let addresses = service.cluster_ips.iter().copied().chain(balancer).chain(external);
        let mut dialled: Vec<SocketAddr> =
            addresses.map(|ip| SocketAddr::new(ip, port.port)).collect();
        if let Some(node_port) = port.node_port {
            // A NodePort is one frontend for all of the node's addresses: loopback is one of them.
            let loopback = |ip: &IpAddr| match ip {
                IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
                IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            let families = service.cluster_ips.iter().map(loopback);
            dialled.extend(families.map(|ip| SocketAddr::new(ip, node_port)));
        }
        for to in dialled {
            let decision = view.decide(Client::Node, port.protocol, to)?;
            let Some(frontend) = decision.frontend else { continue };
            if view.owner(frontend.counter_id) != Some(&service.key) {
                continue;
            }
            let (endpoints, leads_to) = match &decision.verdict {
                Verdict::Backends(all) => (all.len(), counted(all.len(), "endpoint")),
                Verdict::Reject(_) => {
                    let why = endpoints::why_none(&view.snapshot, service, port);
                    (0, format!("REJECT: {why}"))
                }
                Verdict::Drop(why) => (0, format!("DROP: {}", super::trace::word(*why))),
                Verdict::Pass => (0, "not served".to_owned()),
            };
            let port = port.to_string();
            rows.push(FrontendRow { frontend: frontend.text, port, leads_to, endpoints });
        }
    }
    Ok(rows)
}

/// For people.
pub(crate) fn show(report: &Services, screen: Screen, wide: bool) -> String {
    if let [only] = report.services.as_slice()
        && !(only.frontends.is_empty() && only.endpoints.is_empty())
    {
        return show_one(only, &report.source, screen);
    }
    if report.services.is_empty() {
        return "no Services\n".to_owned();
    }
    let mut head =
        vec!["NAMESPACE", "NAME", "TYPE", "ADDRESS", "PORTS", "READY", "CONNECTIONS", "REJECTED"];
    if wide {
        head.extend(["SOCKETS TO/FROM", "PACKETS TO/FROM"]);
        head.extend(["INTERNAL", "EXTERNAL", "AFFINITY", "DISTRIBUTION"]);
    }
    let mut table = Table::new(&head);
    for row in &report.services {
        let ready = format!("{}/{}", row.ready, row.endpoints_total);
        let tone = match (row.ready, row.endpoints_total) {
            _ if row.kind == "ExternalName" => Tone::Dim,
            (0, _) => Tone::Bad,
            (ready, all) if ready < all => Tone::Attention,
            _ => Tone::Good,
        };
        let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
        let rejected =
            if row.rejected.is_some_and(|n| n > 0) { Tone::Attention } else { Tone::Plain };
        let mut cells: Vec<Cell> = vec![
            row.namespace.as_str().into(),
            row.name.as_str().into(),
            row.kind.as_str().into(),
            or_dash(addresses.join(",")).into(),
            or_dash(row.ports.join(",")).into(),
            Cell::of(ready, tone),
            number(row.connections).into(),
            Cell::of(number(row.rejected), rejected),
        ];
        if wide {
            let ways = |of: fn(Bytes) -> BothWays| row.bytes.map(|bytes| of(bytes).short());
            cells.push(or_dash(ways(|bytes| bytes.sockets).unwrap_or_default()).into());
            cells.push(or_dash(ways(|bytes| bytes.packets).unwrap_or_default()).into());
            cells.push(row.internal_traffic_policy.as_str().into());
            cells.push(row.external_traffic_policy.as_str().into());
            cells.push(affinity(row.affinity_seconds).into());
            cells.push(or_dash(row.traffic_distribution.clone().unwrap_or_default()).into());
        }
        table.row(cells);
    }
    let mut text = table.text(screen);
    for row in &report.services {
        for problem in &row.problems {
            let line = format!("Service {}/{}: {problem}", row.namespace, row.name);
            text.push_str(&format!("{}\n", screen.paint(&line, Tone::Attention)));
        }
    }
    text
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn affinity(seconds: u32) -> String {
    if seconds == 0 { "-".to_owned() } else { format!("ClientIP {seconds} s") }
}

fn show_one(row: &ServiceRow, source: &str, screen: Screen) -> String {
    let mut text = format!("Service {}/{}, {}\n", row.namespace, row.name, row.kind);
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<22}{value}\n"));
        }
    };
    fact("internal policy", row.internal_traffic_policy.clone());
    fact("external policy", row.external_traffic_policy.clone());
    fact("affinity", affinity(row.affinity_seconds));
    fact("distribution", row.traffic_distribution.clone().unwrap_or_default());
    fact("source ranges", row.source_ranges.join(", "));
    let health = row.health_check_node_port.map(|port| port.to_string());
    fact("health check port", health.unwrap_or_default());
    if let (Some(connections), Some(rejected)) = (row.connections, row.rejected) {
        fact("connections", format!("{connections}, {rejected} rejected"));
    }
    if let Some(Bytes { sockets, packets }) = row.bytes {
        fact("bytes by socket", sockets.to_string());
        fact("bytes by packet", packets.to_string());
    }
    fact("from", source.to_owned());
    let mut table = Table::new(&["FRONTEND", "PORT", "LEADS TO"]);
    for frontend in &row.frontends {
        let tone = if frontend.endpoints == 0 { Tone::Bad } else { Tone::Good };
        let FrontendRow { frontend, port, leads_to, .. } = frontend;
        table.row([
            frontend.as_str().into(),
            port.as_str().into(),
            Cell::of(leads_to.as_str(), tone),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&format!("\n{}", table.text(screen)));
    }
    text.push_str(&format!("\n{}", show_endpoints(&row.endpoints, screen)));
    for problem in &row.problems {
        text.push_str(&format!("{}\n", screen.paint(problem, Tone::Attention)));
    }
    text
}

fn show_endpoints(endpoints: &[EndpointRow], screen: Screen) -> String {
    if endpoints.is_empty() {
        return "no endpoints\n".to_owned();
    }
    let mut table = Table::new(&["ENDPOINT", "PORT", "STATE", "POD", "NODE", "ZONE", "HINTS"]);
    for row in endpoints {
        let tone = match row.state.as_str() {
            "ready" => Tone::Good,
            "terminating (still serving)" => Tone::Attention,
            _ => Tone::Bad,
        };
        let or_dash = |text: &Option<String>| Cell::from(text.as_deref().unwrap_or("-"));
        let hints = if row.hints.is_empty() { "-".to_owned() } else { row.hints.join(",") };
        table.row([
            row.address.as_str().into(),
            row.port.as_str().into(),
            Cell::of(row.state.as_str(), tone),
            or_dash(&row.pod),
            or_dash(&row.node),
            or_dash(&row.zone),
            hints.into(),
        ]);
    }
    table.text(screen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::shown;

    /// As the reference shows it.
    fn documented() -> Services {
        serde_json::from_value(shown("fairlead services")).unwrap()
    }

    #[test]
    fn bytes_are_told_where_they_are_counted_and_are_no_nothing_elsewhere() {
        let counted = documented();
        let mut uncounted = counted.clone();
        uncounted.services[0].bytes = None;
        let one = show(&counted, Screen::plain(), false);
        assert!(one.contains("  bytes by socket       4.6 KiB to it, 60.0 KiB from it\n"), "{one}");
        let one = show(&uncounted, Screen::plain(), false);
        assert!(!one.contains("bytes"), "{one}");
        for (mut report, expected) in
            [(counted, "4.6 KiB/60.0 KiB  0 B/0 B"), (uncounted, "-                -")]
        {
            let only = &mut report.services[0];
            (only.frontends, only.endpoints) = (vec![], vec![]);
            let all = show(&report, Screen::plain(), true);
            assert!(all.contains("SOCKETS TO/FROM") && all.contains(expected), "{all}");
            assert!(!show(&report, Screen::plain(), false).contains("TO/FROM"), "wide alone");
        }
    }
}
