//! From a client to a frontend, and from there to endpoints.

use std::net::{IpAddr, SocketAddr};

use fairlead_proxy::explain::{self, Frontend, Verdict, Why};
use fairlead_state::{
    Snapshot,
    model::{Service, ServicePort},
};

use super::{Candidate, Target, Trace};
use crate::{
    report::{
        endpoints::{self, EndpointRow},
        services::policy,
    },
    view::View,
};

/// Who asks, as far as it is known.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) is: explain::Client,
    pub(super) address: Option<IpAddr>,
    pub(super) namespace: Option<String>,
    pub(super) text: String,
}

/// Reads `--from`.
pub(super) fn client(view: &View<'_>, from: Option<&str>) -> anyhow::Result<Client> {
    let node = if view.node_name.is_empty() { "this node" } else { &view.node_name };
    let Some(from) = from else {
        return Ok(Client {
            is: explain::Client::Node,
            address: None,
            namespace: None,
            text: format!("a process of {node}"),
        });
    };
    if let Ok(address) = from.parse::<IpAddr>() {
        return Ok(at_address(view, address, node));
    }
    let (namespace, name) = match from.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, from),
    };
    let Some((namespace, address)) = pod(&view.snapshot, namespace, name) else {
        anyhow::bail!(
            "--from {from}: no such pod is known (an agent knows the pods behind Services): give \
             NAMESPACE/POD, or its address"
        )
    };
    let mut client = at_address(view, address, node);
    client.text = format!("pod {namespace}/{name}, {}", client.text);
    client.namespace = Some(namespace);
    Ok(client)
}

fn at_address(view: &View<'_>, address: IpAddr, node: &str) -> Client {
    let (is, what) = if view.is_node_address(address) {
        (explain::Client::Node, format!("{address}, a process of {node}"))
    } else if is_pod_here(view, address) {
        (explain::Client::Pod(Some(address)), format!("{address}, a pod of {node}"))
    } else {
        let text = format!("{address}, from outside of {node}");
        (explain::Client::Outside(address), text)
    };
    Client { is, address: Some(address), namespace: None, text: what }
}

fn is_pod_here(view: &View<'_>, address: IpAddr) -> bool {
    let node = view.snapshot.nodes().get(&fairlead_state::Key::new("", view.node_name.as_str()));
    let in_range = node.is_some_and(|n| n.pod_cidrs.iter().any(|range| range.contains(address)));
    let here = |name: &Option<fairlead_state::Name>| name.as_deref() == Some(&*view.node_name);
    let slices = view.snapshot.endpoint_slices().values();
    let mut endpoints = slices.flat_map(|slice| slice.endpoints.iter());
    let mut pods = view.snapshot.pods().values();
    in_range
        || endpoints.any(|e| e.addresses.contains(&address) && here(&e.node_name))
        || pods.any(|pod| pod.ips.contains(&address) && here(&pod.node_name))
}

/// A pod's namespace and first address.
fn pod(snapshot: &Snapshot, namespace: Option<&str>, name: &str) -> Option<(String, IpAddr)> {
    let fits = |of: &str| namespace.is_none_or(|namespace| namespace == of);
    let pods = snapshot.pods().values().filter(|p| *p.key.name == *name && fits(&p.key.namespace));
    let known = pods.filter_map(|p| Some((p.key.namespace.to_string(), *p.ips.first()?))).next();
    known.or_else(|| {
        let slices = snapshot.endpoint_slices().values();
        slices.filter(|slice| fits(&slice.key.namespace)).find_map(|slice| {
            let endpoint = slice.endpoints.iter().find(|e| e.pod.as_deref() == Some(name))?;
            Some((slice.key.namespace.to_string(), *endpoint.addresses.first()?))
        })
    })
}

/// Adds what becomes of a connection.
pub(super) fn connection(
    view: &View<'_>,
    client: &Client,
    target: &Target,
    to: SocketAddr,
    trace: &mut Trace,
) -> anyhow::Result<()> {
    let decision = view.decide(client.is, target.protocol, to)?;
    let Some(frontend) = decision.frontend else {
        no_frontend(view, &decision.verdict, to, trace);
        return Ok(());
    };
    let service = view.owner(frontend.counter_id);
    let service = service.and_then(|key| view.snapshot.services().get(key));
    let port = service.and_then(|service| {
        let mut ports = service.ports.iter();
        ports.find(|p| p.port == frontend.service_port && p.protocol == target.protocol)
    });
    match (service, port) {
        (Some(service), Some(port)) => {
            let line = format!("{} is Service {}, port {port}", frontend.text, service.key);
            trace.step("frontend", line);
            policies(&frontend, service, trace);
        }
        (Some(service), None) => {
            trace.step("frontend", format!("{to} is an address of Service {}", service.key));
        }
        _ => trace.step("frontend", format!("{} is in the maps", frontend.text)),
    }
    match decision.verdict {
        Verdict::Backends(backends) => {
            backends_of(view, service.map(|s| &**s), port, &backends, trace);
        }
        Verdict::Reject(why) => {
            let (text, cure) = because(view, client, why, service.map(|s| &**s), port, target);
            trace.end("reject", format!("refused at once: {text}"), cure);
        }
        Verdict::Drop(why) => {
            let (text, cure) = because(view, client, why, service.map(|s| &**s), port, target);
            // A pod's call is let through then: its address shows in its packets only.
            let is_late = matches!(client.is, explain::Client::Pod(_)) && why == Why::SourceDenied;
            let is_silent = decision.by_packets || is_late;
            let seen = if is_silent {
                "dropped in silence: the client waits"
            } else {
                "no route to host (EHOSTUNREACH)"
            };
            trace.end("drop", format!("{seen}: {text}"), cure);
        }
        Verdict::Pass => trace.end("passed on", "left to the network", None),
    }
    Ok(())
}

fn no_frontend(view: &View<'_>, verdict: &Verdict, to: SocketAddr, trace: &mut Trace) {
    if let Verdict::Drop(why) | Verdict::Reject(why) = verdict {
        trace.step("frontend", format!("{to} is an address of the Service CIDR"));
        let cure = "the Service has been deleted or has another address: look its name up again";
        let (verdict, seen) = match verdict {
            Verdict::Drop(_) => ("drop", "dropped in silence: the client waits"),
            _ => ("reject", "refused at once"),
        };
        return trace.end(verdict, format!("{seen}: {}", word(*why)), Some(cure.to_owned()));
    }
    let mut services = view.snapshot.services().values();
    let cure = match services.find(|service| service.cluster_ips.contains(&to.ip())) {
        Some(service) => {
            trace.step("frontend", format!("{to} is Service {}, left to others", service.key));
            format!(
                "Service {} carries a label that leaves it to another proxy \
                 (service.kubernetes.io/service-proxy-name or headless): remove the label",
                service.key
            )
        }
        None => {
            trace.step("frontend", format!("{to} is no address of a Service"));
            "if a Service is meant, check address, port and protocol: `fairlead services` lists all"
                .to_owned()
        }
    };
    let text = format!("{to} is left to the network: it is served by no Service here");
    trace.end("passed on", text, cure);
}

fn policies(frontend: &Frontend, service: &Service, trace: &mut Trace) {
    let mut words = Vec::new();
    if frontend.is_external {
        words.push(format!("externalTrafficPolicy {}", policy(service.external_traffic_policy)));
    } else {
        words.push(format!("internalTrafficPolicy {}", policy(service.internal_traffic_policy)));
    }
    if let Some(distribution) = service.traffic_distribution {
        words.push(format!("trafficDistribution {distribution:?}"));
    }
    if frontend.affinity_seconds > 0 {
        let seconds = frontend.affinity_seconds;
        words.push(format!("a client keeps its endpoint for {seconds} s (ClientIP affinity)"));
    }
    if frontend.maglev_places.is_some() {
        words.push("every node sends a packet's flow to the same endpoint (maglev)".to_owned());
    }
    if frontend.is_limited {
        let ranges = service.extras.load_balancer_source_ranges.iter().map(ToString::to_string);
        words.push(format!("only for {}", ranges.collect::<Vec<_>>().join(", ")));
    }
    trace.step("policy", words.join("; "));
}

fn backends_of(
    view: &View<'_>,
    service: Option<&Service>,
    port: Option<&ServicePort>,
    backends: &[explain::Endpoint],
    trace: &mut Trace,
) {
    let rows = service.map(|service| endpoints::rows(&view.snapshot, service, port));
    let rows: Vec<EndpointRow> = rows.unwrap_or_default();
    let share = 1.0 / f64::from(u32::try_from(backends.len()).unwrap_or(u32::MAX).max(1));
    for backend in backends {
        let address = backend.address.to_string();
        let row = rows.iter().find(|row| row.address == address).cloned().unwrap_or_default();
        trace.candidates.push(Candidate {
            address,
            probability: share,
            is_local: backend.is_local,
            pod: row.pod,
            node: row.node,
            zone: row.zone,
        });
    }
    let unused = rows
        .iter()
        .filter(|row| trace.candidates.iter().all(|candidate| candidate.address != row.address));
    let family = backends.first().map(|backend| backend.address.is_ipv4());
    let unused: Vec<&EndpointRow> = unused
        .filter(|row| row.address.parse::<SocketAddr>().is_ok_and(|a| Some(a.is_ipv4()) == family))
        .collect();
    trace.step("endpoints", format!("{} of {}", backends.len(), backends.len() + unused.len()));
    for row in unused {
        let why =
            if row.state == "ready" { "not chosen for this node or client" } else { &row.state };
        let pod = row.pod.as_deref().unwrap_or("no pod");
        trace.step("endpoints", format!("not {} ({pod}): {why}", row.address));
    }
    let text = match backends {
        [only] => format!("connected to {}", only.address),
        all => format!("connected to one of {} endpoints, each as likely", all.len()),
    };
    trace.end("served", text, None);
}

/// Why nobody serves it, and the cure.
fn because(
    view: &View<'_>,
    client: &Client,
    why: Why,
    service: Option<&Service>,
    port: Option<&ServicePort>,
    target: &Target,
) -> (String, Option<String>) {
    let text = word(why).to_owned();
    let Some(service) = service else { return (text, None) };
    let key = &service.key;
    let cure = match (why, port) {
        (Why::NoEndpoints, Some(port)) => endpoints::why_none(&view.snapshot, service, port),
        (Why::NoLocalEndpoints, Some(_)) => {
            let is_outside = matches!(client.is, explain::Client::Outside(_));
            let field = if is_outside { "externalTrafficPolicy" } else { "internalTrafficPolicy" };
            format!(
                "Service {key} has {field}: Local and its endpoints are on other nodes: ask a node \
                 that has one, run a pod here, or set {field}: Cluster"
            )
        }
        (Why::UnusedPort, _) => {
            let ports: Vec<String> = service.ports.iter().map(ToString::to_string).collect();
            format!(
                "Service {key} has no port {}/{}; it has {}",
                target.port,
                target.protocol,
                ports.join(", ")
            )
        }
        (Why::SourceDenied, _) => {
            let ranges = service.extras.load_balancer_source_ranges.iter().map(ToString::to_string);
            let ranges: Vec<String> = ranges.collect();
            let who = client.address.map_or("the node's address".to_owned(), |ip| ip.to_string());
            format!(
                "{who} is in none of loadBalancerSourceRanges of Service {key} ({}): add it there, \
                 or use the ClusterIP from inside",
                ranges.join(", ")
            )
        }
        _ => return (text, None),
    };
    (text, Some(cure))
}

/// A reason in a few words.
pub(crate) fn word(why: Why) -> &'static str {
    match why {
        Why::NoEndpoints => "the Service has no endpoints for this port",
        Why::NoLocalEndpoints => "the Service has endpoints, but none on this node",
        Why::UnusedPort => "the Service has no such port",
        Why::Unallocated => "no Service has this address",
        Why::SourceDenied => "the client is in none of the Service's source ranges",
    }
}
