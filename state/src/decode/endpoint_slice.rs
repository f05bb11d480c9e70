//! `discovery.k8s.io/v1` EndpointSlice.

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;

use super::{
    Raw, fields,
    metadata::{HEADLESS, Head, IMPORTED_SERVICE, Metadata, SERVICE_NAME, SOURCE_CLUSTER},
    names::Names,
    text::{Text, kept, nullable},
};
use crate::model::{Endpoint, EndpointPort, EndpointSlice, Hints, Import, Key, Kind, Name, Object};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawSlice<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(default)]
    address_type: Text<'a>,
    #[serde(default, deserialize_with = "nullable")]
    ports: Vec<RawPort<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    endpoints: Vec<RawEndpoint<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    protocol: Option<Text<'a>>,
    port: Option<i64>,
    app_protocol: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    addresses: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    conditions: RawConditions,
    hostname: Option<Text<'a>>,
    node_name: Option<Text<'a>>,
    zone: Option<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    hints: RawHints<'a>,
    target_ref: Option<RawTarget<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHints<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    for_zones: Vec<RawHint<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    for_nodes: Vec<RawHint<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawHint<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawTarget<'a> {
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(default)]
    name: Text<'a>,
}

impl<'a> Raw<'a> for RawSlice<'a> {
    const KIND: Kind = Kind::EndpointSlice;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        let annotations = &self.metadata.annotations;
        let trigger = annotations.last_change_trigger_time.as_deref();
        let labels = &self.metadata.labels;
        let service = names.get_some(labels.get(SERVICE_NAME));
        let import = names.get_some(labels.get(IMPORTED_SERVICE)).map(|service| {
            let cluster = names.get_some(labels.get(SOURCE_CLUSTER)).unwrap_or_default();
            Arc::new(Import { service, cluster })
        });
        if service.is_none() && import.is_none() {
            return Ok(None);
        }
        let ipv6 = match &*self.address_type {
            "IPv4" => false,
            "IPv6" => true,
            "FQDN" => return Ok(None),
            other => {
                return Err(format!("addressType {other:?} is not one of IPv4, IPv6, FQDN"));
            }
        };
        fields::object_name(&key.name, format_args!("metadata.name"))?;
        let ports = ports(&self.ports, names)?;
        let ports = names.endpoint_ports(ports);
        let mut problems = Vec::new();
        let endpoints = self.endpoints.iter().enumerate();
        let endpoints =
            endpoints.filter_map(|(i, raw)| endpoint(i, raw, ipv6, names, &mut problems));
        let endpoints = endpoints.collect();
        if let Some(first) = problems.first() {
            tracing::warn!(slice = %key, problems = problems.len(), "left out of a slice: {first}");
        }
        let slice = EndpointSlice {
            service: Key { namespace: key.namespace.clone(), name: service.unwrap_or_default() },
            ipv6,
            endpoints,
            ports,
            headless_label: labels.get(HEADLESS).is_some(),
            trigger_time_ms: trigger.and_then(fields::milliseconds),
            import,
            left_out: left_out(&problems),
            key,
        };
        Ok(Some(Object::EndpointSlice(Arc::new(slice))))
    }
}

fn ports(raw: &[RawPort<'_>], names: &mut Names) -> Result<Vec<EndpointPort>, String> {
    let mut ports = Vec::with_capacity(raw.len());
    for (i, raw) in raw.iter().enumerate() {
        let protocol = raw.protocol.as_deref();
        let protocol = fields::protocol(protocol, format_args!("ports[{i}].protocol"))?;
        // No number means every port, which no Service port can select; nor can it 0, which kube-proxy skips.
        let Some(number) = raw.port.filter(|number| *number != 0) else { continue };
        ports.push(EndpointPort {
            name: names.get(raw.name.as_deref().unwrap_or_default()),
            protocol,
            port: fields::port(number, format_args!("ports[{i}].port"))?,
            app_protocol: names.get_some(raw.app_protocol.as_ref()),
        });
    }
    Ok(ports)
}

/// The first problem, and how many more there are: of a large slice all of them would be many.
fn left_out(problems: &[String]) -> Option<Name> {
    let (first, more) = problems.split_first()?;
    Some(match more.len() {
        0 => Name::from(first.as_str()),
        more => Name::from(format!("{first} (and {more} more)")),
    })
}

/// One without an address that can be read is left out; kube-proxy skips such, too (pkg/proxy/endpointslicecache.go). The others
/// of its slice serve.
fn endpoint(
    i: usize,
    raw: &RawEndpoint<'_>,
    ipv6: bool,
    names: &mut Names,
    problems: &mut Vec<String>,
) -> Option<Endpoint> {
    if raw.addresses.is_empty() {
        problems.push(format!("endpoints[{i}].addresses is empty"));
    }
    let addresses = raw.addresses.iter().enumerate().map(|(j, text)| address(i, j, text, ipv6));
    let addresses: Vec<IpAddr> =
        addresses.filter_map(|ip| ip.map_err(|why| problems.push(why)).ok()).collect();
    if addresses.is_empty() {
        return None;
    }
    let hostname = raw.hostname.as_ref().filter(|name| {
        let label = match &***name {
            "" => Ok(()),
            name => fields::label(name, format_args!("endpoints[{i}].hostname")),
        };
        label.map_err(|why| problems.push(why)).is_ok()
    });
    let pod = raw.target_ref.as_ref().filter(|target| &*target.kind == "Pod");
    Some(Endpoint {
        addresses: addresses.into(),
        hostname: names.get_some(hostname),
        node_name: names.get_some(raw.node_name.as_ref()),
        zone: names.get_some(raw.zone.as_ref()),
        hints: Hints {
            zones: hints(&raw.hints.for_zones, names),
            nodes: hints(&raw.hints.for_nodes, names),
        }
        .into(),
        pod: pod.map(|target| Name::from(&*target.name)),
        // Absent is true of both, as to kube-proxy (pkg/proxy/endpointslicecache.go).
        ready: raw.conditions.ready.unwrap_or(true),
        serving: raw.conditions.serving.unwrap_or(true),
        terminating: raw.conditions.terminating.unwrap_or(false),
    })
}

fn address(i: usize, j: usize, text: &str, ipv6: bool) -> Result<IpAddr, String> {
    let ip = fields::ip(text, format_args!("endpoints[{i}].addresses[{j}]"))?;
    if ip.is_ipv6() != ipv6 {
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        return Err(format!(
            "endpoints[{i}].addresses[{j}] {ip} is not of the slice's addressType {family}"
        ));
    }
    if fields::is_no_host(ip) {
        return Err(format!("endpoints[{i}].addresses[{j}] {ip} is no address of a host"));
    }
    Ok(ip)
}

fn hints(raw: &[RawHint<'_>], names: &mut Names) -> Arc<[Name]> {
    kept(raw.iter().map(|hint| names.get(&hint.name)).collect())
}
