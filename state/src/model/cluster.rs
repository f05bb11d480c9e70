use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use super::{EndpointPort, Key, Labels, Name};

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name (namespace empty).
    pub key: Key,
    /// `status.addresses` of type InternalIP, then those of type ExternalIP, each in their order.
    pub addresses: Arc<[IpAddr]>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Name>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Arc<[ipnetwork::IpNetwork]>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Keys of `spec.taints[]`.
    pub taints: Arc<[Name]>,
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Name (namespace empty).
    pub key: Key,
    /// `metadata.labels`, where labels are kept.
    pub labels: Labels,
}

/// A ServiceCIDR: where ClusterIPs are taken from. One that is being deleted still counts, as its
/// addresses stay allotted until it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// Name (namespace empty).
    pub key: Key,
    /// `spec.cidrs`: one or two, of different families.
    pub ranges: Arc<[ipnetwork::IpNetwork]>,
}

/// A Service of the cluster set, as this cluster imports it: `multicluster.x-k8s.io/v1alpha1` (KEP-1645).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceImport {
    /// Namespace and name.
    pub key: Key,
    /// `spec.type: Headless`.
    pub headless: bool,
    /// `spec.ips`.
    pub ips: Arc<[IpAddr]>,
    /// `spec.ports`.
    pub ports: Arc<[EndpointPort]>,
}

/// A Pod: of the own node, or of any where all are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: Key,
    /// `status.podIPs`.
    pub ips: Arc<[IpAddr]>,
    /// `spec.nodeName`.
    pub node_name: Option<Name>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
}

/// A Secret that something refers to.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Namespace and name.
    pub key: Key,
    /// `type`, for instance `kubernetes.io/tls`.
    pub secret_type: Name,
    /// Decoded `data` (and `stringData` from manifests).
    pub data: BTreeMap<Name, Arc<[u8]>>,
}

impl fmt::Debug for Secret {
    /// Names the entries, never their content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("key", &self.key)
            .field("secret_type", &self.secret_type)
            .field("data", &self.data.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// A ConfigMap that something refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    /// Namespace and name.
    pub key: Key,
    /// `data`.
    pub data: BTreeMap<Name, Name>,
}
