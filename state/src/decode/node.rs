//! `core/v1` Node, Namespace and Pod; `networking.k8s.io/v1` ServiceCIDR.

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;

use super::{
    Raw, fields,
    metadata::{Head, Metadata, ZONE},
    names::Names,
    text::{Text, kept, nullable},
};
use crate::model::{Key, Kind, Namespace, Node, Object, Pod, ServiceCidr};

#[derive(Debug, Deserialize)]
pub(super) struct RawNode<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawNodeSpec<'a>,
    #[serde(default, deserialize_with = "nullable")]
    status: RawNodeStatus<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawNodeSpec<'a> {
    #[serde(borrow, rename = "podCIDR")]
    pod_cidr: Option<Text<'a>>,
    #[serde(default, rename = "podCIDRs", deserialize_with = "nullable")]
    pod_cidrs: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    taints: Vec<RawTaint<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawTaint<'a> {
    #[serde(borrow, default)]
    key: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawNodeStatus<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    addresses: Vec<RawAddress<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawAddress<'a> {
    #[serde(borrow, default, rename = "type")]
    address_type: Text<'a>,
    #[serde(default)]
    address: Text<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawNamespace<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawServiceCidr<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawServiceCidrSpec<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawServiceCidrSpec<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    cidrs: Vec<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawPod<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawPodSpec<'a>,
    #[serde(default, deserialize_with = "nullable")]
    status: RawPodStatus<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPodSpec<'a> {
    #[serde(borrow)]
    node_name: Option<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    host_network: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPodStatus<'a> {
    #[serde(borrow)]
    phase: Option<Text<'a>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<Text<'a>>,
    #[serde(default, rename = "podIPs", deserialize_with = "nullable")]
    pod_ips: Vec<RawPodIp<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawPodIp<'a> {
    #[serde(borrow, default)]
    ip: Text<'a>,
}

impl<'a> Raw<'a> for RawNode<'a> {
    const KIND: Kind = Kind::Node;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        fields::object_name(&key.name, format_args!("metadata.name"))?;
        // The first of a family is the one the node is known by; what is no address is passed over (both as kube-proxy's
        // GetNodeHostIPs): a Node that is refused for it would be without zone and taints.
        let addresses = ["InternalIP", "ExternalIP"].into_iter().flat_map(|wanted| {
            let all = self.status.addresses.iter();
            let all = all.filter(move |raw| &*raw.address_type == wanted);
            all.filter_map(|raw| fields::ip(&raw.address, format_args!("")).ok())
        });
        let addresses: Vec<_> = addresses.collect();
        let mut pod_cidrs = Vec::new();
        let first = self.spec.pod_cidr.iter().filter(|_| self.spec.pod_cidrs.is_empty());
        for raw in first.chain(&self.spec.pod_cidrs).filter(|raw| !raw.is_empty()) {
            pod_cidrs.push(fields::network(raw, format_args!("spec.podCIDRs"))?);
        }
        let taints = self.spec.taints.iter().map(|taint| names.get(&taint.key)).collect();
        let node = Node {
            key,
            addresses: kept(addresses),
            zone: names.get_some(self.metadata.labels.get(ZONE)),
            pod_cidrs: kept(pod_cidrs),
            deleting: self.metadata.deletion_timestamp.is_some(),
            taints: kept(taints),
        };
        Ok(Some(Object::Node(Arc::new(node))))
    }
}

impl<'a> Raw<'a> for RawNamespace<'a> {
    const KIND: Kind = Kind::Namespace;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        fields::label(&key.name, format_args!("metadata.name"))?;
        let labels = self.metadata.labels.kept(names);
        Ok(Some(Object::Namespace(Arc::new(Namespace { key, labels }))))
    }
}

impl<'a> Raw<'a> for RawServiceCidr<'a> {
    const KIND: Kind = Kind::ServiceCidr;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, _: &mut Names) -> Result<Option<Object>, String> {
        fields::object_name(&key.name, format_args!("metadata.name"))?;
        let texts = self.spec.cidrs.iter().enumerate();
        let ranges: Vec<_> = texts
            .map(|(i, text)| fields::network(text, format_args!("spec.cidrs[{i}]")))
            .collect::<Result<_, _>>()?;
        if ranges.is_empty() {
            return Err("spec.cidrs is empty: name one range, or one of each family".into());
        }
        Ok(Some(Object::ServiceCidr(Arc::new(ServiceCidr { key, ranges: kept(ranges) }))))
    }
}

impl<'a> Raw<'a> for RawPod<'a> {
    const KIND: Kind = Kind::Pod;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        fields::object_name(&key.name, format_args!("metadata.name"))?;
        let pod = Pod {
            ips: kept(pod_ips(&self.status)?),
            node_name: names.get_some(self.spec.node_name.as_ref()),
            host_network: self.spec.host_network,
            key,
        };
        Ok(Some(Object::Pod(Arc::new(pod))))
    }
}

/// A finished pod's addresses are free for the next pod, though its status still shows them.
fn pod_ips(status: &RawPodStatus<'_>) -> Result<Vec<IpAddr>, String> {
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Ok(Vec::new());
    }
    let listed = status.pod_ips.iter().map(|raw| &raw.ip);
    let first = status.pod_ip.iter().filter(|_| status.pod_ips.is_empty());
    let texts = first.chain(listed).filter(|text| !text.is_empty());
    texts.map(|text| fields::ip(text, format_args!("status.podIPs"))).collect()
}
