//! `core/v1` Service. The rules are the API server's own (pkg/apis/core/validation); manifests have
//! no API server to check them or to fill in defaults.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::{
    Raw, fields,
    metadata::{HEADLESS, Head, Metadata, SERVICE_PROXY_NAME},
    names::Names,
    text::{IntOrText, Text, kept, nullable},
};
use crate::model::{
    IpMode, Key, Kind, LoadBalancerIp, LoadBalancing, Name, Object, Protocol, Service,
    ServiceExtras, ServicePort, ServiceType, SessionAffinity, TargetPort, TrafficDistribution,
    TrafficPolicy,
};

/// `sessionAffinityConfig.clientIP.timeoutSeconds` when it is not given.
const AFFINITY_TIMEOUT_SECONDS: u32 = 10_800;
/// The longest affinity the API allows: one day.
const AFFINITY_TIMEOUT_SECONDS_MAX: u32 = 86_400;
/// No client comes from these.
const NOBODY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

#[derive(Debug, Deserialize)]
pub(super) struct RawService<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawSpec<'a>,
    #[serde(default, deserialize_with = "nullable")]
    status: RawStatus<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec<'a> {
    #[serde(borrow, rename = "type")]
    service_type: Option<Text<'a>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<Text<'a>>,
    #[serde(default, rename = "clusterIPs", deserialize_with = "nullable")]
    cluster_ips: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    ports: Vec<RawPort<'a>>,
    external_name: Option<Text<'a>>,
    #[serde(default, rename = "externalIPs", deserialize_with = "nullable")]
    external_ips: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    load_balancer_source_ranges: Vec<Text<'a>>,
    session_affinity: Option<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    session_affinity_config: RawAffinity,
    internal_traffic_policy: Option<Text<'a>>,
    external_traffic_policy: Option<Text<'a>>,
    health_check_node_port: Option<i64>,
    #[serde(default, deserialize_with = "nullable")]
    publish_not_ready_addresses: bool,
    traffic_distribution: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    protocol: Option<Text<'a>>,
    #[serde(default)]
    port: i64,
    node_port: Option<i64>,
    target_port: Option<IntOrText<'a>>,
    app_protocol: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawAffinity {
    #[serde(default, rename = "clientIP", deserialize_with = "nullable")]
    client_ip: RawClientIp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawClientIp {
    timeout_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStatus<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    load_balancer: RawBalancer<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawBalancer<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    ingress: Vec<RawBalancerIp<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBalancerIp<'a> {
    #[serde(borrow)]
    ip: Option<Text<'a>>,
    hostname: Option<Text<'a>>,
    ip_mode: Option<Text<'a>>,
}

impl<'a> Raw<'a> for RawService<'a> {
    const KIND: Kind = Kind::Service;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        let RawService { metadata, spec, status } = self;
        fields::label(&key.name, format_args!("metadata.name"))?;
        fields::label(&key.namespace, format_args!("metadata.namespace"))?;
        let service_type = service_type(spec.service_type.as_deref())?;
        let (cluster_ips, headless) = cluster_ips(&spec, service_type)?;
        let created = metadata.creation_timestamp.as_deref();
        let mut unusable = Vec::new();
        let extras = ServiceExtras {
            external_name: external_name(spec.external_name.as_deref(), service_type)?,
            external_ips: kept(external_ips(&spec.external_ips, &mut unusable)),
            load_balancer_ips: kept(load_balancer_ips(&status, &mut unusable)),
            load_balancer_name: names.get_some(load_balancer_name(&status)),
            load_balancer_source_ranges: kept(source_ranges(
                &spec.load_balancer_source_ranges,
                &mut unusable,
            )),
            session_affinity: affinity(&spec)?,
            health_check_node_port: some_port(
                spec.health_check_node_port,
                format_args!("spec.healthCheckNodePort"),
            )?,
            load_balancing: balancing(metadata.annotations.load_balancing.as_deref(), names),
            // Present is what counts, as to a selector that asks for its absence.
            proxy_name: metadata.labels.get(SERVICE_PROXY_NAME).map(|text| names.get(text)),
            labels: metadata.labels.kept(names),
            unusable_ips: kept(unusable),
        };
        let ports = ports(&spec.ports, service_type, headless, names)?;
        let service = Service {
            created_seconds: fields::seconds(created, format_args!("metadata.creationTimestamp"))?,
            cluster_ips: cluster_ips.into(),
            ports: names.service_ports(ports),
            extras: extras.into(),
            service_type,
            headless,
            internal_traffic_policy: policy(
                spec.internal_traffic_policy.as_deref(),
                "spec.internalTrafficPolicy",
            )?,
            external_traffic_policy: policy(
                spec.external_traffic_policy.as_deref(),
                "spec.externalTrafficPolicy",
            )?,
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
            traffic_distribution: distribution(spec.traffic_distribution.as_deref()),
            headless_label: metadata.labels.get(HEADLESS).is_some(),
            key,
        };
        Ok(Some(Object::Service(Arc::new(service))))
    }
}

fn service_type(text: Option<&str>) -> Result<ServiceType, String> {
    match text {
        None | Some("" | "ClusterIP") => Ok(ServiceType::ClusterIp),
        Some("NodePort") => Ok(ServiceType::NodePort),
        Some("LoadBalancer") => Ok(ServiceType::LoadBalancer),
        Some("ExternalName") => Ok(ServiceType::ExternalName),
        Some(other) => Err(format!(
            "spec.type {other:?} is not one of ClusterIP, NodePort, LoadBalancer, ExternalName"
        )),
    }
}

/// The addresses and whether the Service is headless. `clusterIPs` repeats `clusterIP` at its head.
fn cluster_ips(
    spec: &RawSpec<'_>,
    service_type: ServiceType,
) -> Result<(Vec<IpAddr>, bool), String> {
    let first = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
    let listed: Vec<&str> = spec.cluster_ips.iter().map(|text| &**text).collect();
    if service_type == ServiceType::ExternalName {
        // A leftover address of an earlier type means nothing (kube-proxy ignores it too).
        return Ok((Vec::new(), false));
    }
    let texts = match (first, listed.as_slice()) {
        (None, []) => {
            return Err("spec.clusterIP is missing: write an address of the Service range, or \
                        None for a headless Service (only an API server allocates one)"
                .to_owned());
        }
        (Some(first), []) => vec![first],
        (Some(first), [listed, ..]) if first != *listed => {
            return Err(format!(
                "spec.clusterIP {first:?} differs from spec.clusterIPs[0] {listed:?}"
            ));
        }
        (_, _) => listed,
    };
    if texts == ["None"] {
        if service_type != ServiceType::ClusterIp {
            return Err("spec.clusterIP None (headless) goes with type ClusterIP only".to_owned());
        }
        return Ok((Vec::new(), true));
    }
    let field = if spec.cluster_ips.is_empty() { "spec.clusterIP" } else { "spec.clusterIPs" };
    let ips = texts
        .into_iter()
        .map(|text| fields::service_ip(text, format_args!("{field}")))
        .collect::<Result<Vec<_>, _>>()?;
    fields::dual_stack(&ips, field)?;
    Ok((ips, false))
}

fn ports(
    raw: &[RawPort<'_>],
    service_type: ServiceType,
    headless: bool,
    names: &mut Names,
) -> Result<Vec<ServicePort>, String> {
    if raw.is_empty() && !headless && service_type != ServiceType::ExternalName {
        return Err("spec.ports is empty: a Service with an address needs a port".to_owned());
    }
    let mut frontends = BTreeSet::new();
    let mut port_names = BTreeSet::new();
    let mut node_ports = BTreeSet::new();
    let mut ports = Vec::with_capacity(raw.len());
    for (i, raw_port) in raw.iter().enumerate() {
        let port = port(i, raw_port, service_type, names)?;
        if raw.len() > 1 && port.name.is_empty() {
            return Err(format!(
                "spec.ports[{i}].name is missing: with several ports each has one"
            ));
        }
        if !port_names.insert(port.name.clone()) {
            return Err(format!("spec.ports[{i}].name {:?} is there twice", port.name));
        }
        if !frontends.insert((port.port, port.protocol)) {
            return Err(format!("spec.ports[{i}] repeats {} port {}", port.protocol, port.port));
        }
        if let Some(node_port) = port.node_port
            && !node_ports.insert((node_port, port.protocol))
        {
            return Err(format!(
                "spec.ports[{i}].nodePort {node_port} is there twice for {}",
                port.protocol
            ));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn port(
    i: usize,
    raw: &RawPort<'_>,
    service_type: ServiceType,
    names: &mut Names,
) -> Result<ServicePort, String> {
    let name = raw.name.as_deref().unwrap_or_default();
    if !name.is_empty() {
        fields::label(name, format_args!("spec.ports[{i}].name"))?;
    }
    Ok(ServicePort {
        name: names.get(name),
        protocol: protocol(i, raw)?,
        port: fields::port(raw.port, format_args!("spec.ports[{i}].port"))?,
        node_port: node_port(i, raw, service_type)?,
        target_port: match &raw.target_port {
            None | Some(IntOrText::Int(0)) => None,
            Some(IntOrText::Int(number)) => Some(TargetPort::Number(fields::port(
                *number,
                format_args!("spec.ports[{i}].targetPort"),
            )?)),
            Some(IntOrText::Text(text)) => Some(TargetPort::Name(names.get(text))),
        },
        app_protocol: names.get_some(raw.app_protocol.as_ref()),
    })
}

fn protocol(i: usize, raw: &RawPort<'_>) -> Result<Protocol, String> {
    fields::protocol(raw.protocol.as_deref(), format_args!("spec.ports[{i}].protocol"))
}

fn node_port(
    i: usize,
    raw: &RawPort<'_>,
    service_type: ServiceType,
) -> Result<Option<u16>, String> {
    let field = format_args!("spec.ports[{i}].nodePort");
    match service_type {
        ServiceType::ClusterIp | ServiceType::ExternalName => Ok(None),
        ServiceType::LoadBalancer => some_port(raw.node_port, field),
        ServiceType::NodePort => match some_port(raw.node_port, field)? {
            Some(port) => Ok(Some(port)),
            None => Err(format!(
                "{field} is missing: write one, usually of 30000-32767 (only an API server \
                 allocates one)"
            )),
        },
    }
}

/// A port for which 0 means none.
fn some_port(number: Option<i64>, field: std::fmt::Arguments<'_>) -> Result<Option<u16>, String> {
    match number {
        None | Some(0) => Ok(None),
        Some(number) => fields::port(number, field).map(Some),
    }
}

fn external_name(text: Option<&str>, service_type: ServiceType) -> Result<Option<Name>, String> {
    if service_type != ServiceType::ExternalName {
        return Ok(None);
    }
    let name = text.unwrap_or_default().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.is_empty() {
        return Err("spec.externalName is missing: type ExternalName is an alias for it".to_owned());
    }
    fields::dns_name(name, format_args!("spec.externalName"))?;
    Ok(Some(name.into()))
}

/// What is wrong with an address beside the ClusterIPs takes it alone off the network, not the Service:
/// `minikube tunnel` writes 127.0.0.1 as a load balancer's.
fn external_ips(raw: &[Text<'_>], unusable: &mut Vec<Name>) -> Vec<IpAddr> {
    let ips = raw.iter().enumerate();
    let ips = ips.map(|(i, text)| fields::service_ip(text, format_args!("spec.externalIPs[{i}]")));
    ips.filter_map(|ip| ip.map_err(|why| unusable.push(why.into())).ok()).collect()
}

fn load_balancer_ips(status: &RawStatus<'_>, unusable: &mut Vec<Name>) -> Vec<LoadBalancerIp> {
    let ips = status.load_balancer.ingress.iter().enumerate().filter_map(|(i, raw)| {
        // For one with a host name only see `load_balancer_name`.
        let text = raw.ip.as_deref().filter(|text| !text.is_empty())?;
        Some(load_balancer_ip(i, text, raw.ip_mode.as_deref()))
    });
    ips.filter_map(|ip| ip.map_err(|why| unusable.push(why.into())).ok()).collect()
}

fn load_balancer_ip(i: usize, text: &str, mode: Option<&str>) -> Result<LoadBalancerIp, String> {
    let field = format_args!("status.loadBalancer.ingress[{i}]");
    let mode = match mode {
        None | Some("" | "VIP") => IpMode::Vip,
        Some("Proxy") => IpMode::Proxy,
        Some(other) => return Err(format!("{field}.ipMode {other:?} is not one of VIP, Proxy")),
    };
    let ip = fields::service_ip(text, format_args!("{field}.ip"))?;
    Ok(LoadBalancerIp { ip, mode })
}

/// Only for DNS outside of the cluster, which judges whether it is a name.
fn load_balancer_name<'r, 'a>(status: &'r RawStatus<'a>) -> Option<&'r Text<'a>> {
    let is_without_ip = |raw: &&RawBalancerIp<'_>| raw.ip.as_deref().is_none_or(str::is_empty);
    let entries = status.load_balancer.ingress.iter().filter(is_without_ip);
    entries.filter_map(|raw| raw.hostname.as_ref()).find(|name| !name.is_empty())
}

/// One that cannot be read lets nobody in, and takes neither the others nor the Service away.
fn source_ranges(raw: &[Text<'_>], unusable: &mut Vec<Name>) -> Vec<IpNetwork> {
    let mut ranges = Vec::new();
    let known = unusable.len();
    for (i, text) in raw.iter().enumerate() {
        let field = format_args!("spec.loadBalancerSourceRanges[{i}]");
        match fields::network(text, field) {
            Ok(range) => ranges.push(range),
            Err(why) => unusable.push(format!("{why}; it lets nobody in").into()),
        }
    }
    if unusable.len() > known {
        // A family without any range would be open to everybody.
        for nobody in NOBODY.map(IpNetwork::from) {
            if !ranges.iter().any(|range| range.is_ipv6() == nobody.is_ipv6()) {
                ranges.push(nobody);
            }
        }
    }
    ranges
}

fn affinity(spec: &RawSpec<'_>) -> Result<SessionAffinity, String> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(SessionAffinity::None),
        Some("ClientIP") => {}
        Some(other) => {
            return Err(format!("spec.sessionAffinity {other:?} is not one of None, ClientIP"));
        }
    }
    let Some(seconds) = spec.session_affinity_config.client_ip.timeout_seconds else {
        return Ok(SessionAffinity::ClientIp { timeout_seconds: AFFINITY_TIMEOUT_SECONDS });
    };
    match u32::try_from(seconds) {
        Ok(timeout_seconds @ 1..=AFFINITY_TIMEOUT_SECONDS_MAX) => {
            Ok(SessionAffinity::ClientIp { timeout_seconds })
        }
        _ => Err(format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds {seconds} is not in 1-86400"
        )),
    }
}

fn policy(text: Option<&str>, field: &str) -> Result<TrafficPolicy, String> {
    match text {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(format!("{field} {other:?} is not one of Cluster, Local")),
    }
}

/// A wrong value takes no Service off the network: whoever plans it says what is wrong.
fn balancing(text: Option<&str>, names: &mut Names) -> LoadBalancing {
    match text {
        None => LoadBalancing::Default,
        Some("random") => LoadBalancing::Random,
        Some("maglev") => LoadBalancing::Maglev,
        Some(other) => LoadBalancing::Other(names.get(other)),
    }
}

/// A value that is not known means the default, says the API.
fn distribution(text: Option<&str>) -> Option<TrafficDistribution> {
    match text {
        Some("PreferSameNode") => Some(TrafficDistribution::PreferSameNode),
        Some("PreferSameZone" | "PreferClose") => Some(TrafficDistribution::PreferSameZone),
        _ => None,
    }
}
