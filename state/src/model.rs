//! Slim Kubernetes objects: only the fields Fairlead uses, already parsed and checked.
//!
//! Field meaning is Kubernetes' own (`core/v1`, `discovery.k8s.io/v1`, `networking.k8s.io/v1`).

mod addresses;
mod cluster;
mod ingress;
mod rare;
mod service;

use std::{fmt, sync::Arc};

pub use addresses::Addresses;
pub use cluster::{ConfigMap, Namespace, Node, Pod, Secret, ServiceCidr, ServiceImport};
pub use ingress::{
    Ingress, IngressBackend, IngressClass, IngressPath, IngressRule, IngressTls, PathType,
    ServiceBackendPort,
};
pub use rare::{Plain, Rare};
pub use service::{
    Endpoint, EndpointPort, EndpointSlice, Hints, Import, IpMode, LoadBalancerIp, LoadBalancing,
    Protocol, Service, ServiceExtras, ServicePort, ServiceType, SessionAffinity, TargetPort,
    TrafficDistribution, TrafficPolicy,
};

/// A name, namespace or label value; cheap to clone and to share between snapshots. A pointer to text
/// that knows its length: names are most of what objects and tables of them consist of.
pub type Name = arcstr::ArcStr;

/// Labels by key. Few readers want them, so that they are only kept where that is asked for.
pub type Labels = Arc<[(Name, Name)]>;

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Name,
    /// Object name.
    pub name: Name,
}

impl Key {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The kinds of object Fairlead reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `core/v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `core/v1` Node.
    Node,
    /// `core/v1` Namespace.
    Namespace,
    /// `core/v1` Pod, of the own node unless all are asked for.
    Pod,
    /// `networking.k8s.io/v1` Ingress.
    Ingress,
    /// `networking.k8s.io/v1` IngressClass.
    IngressClass,
    /// `core/v1` Secret, only those an Ingress refers to.
    Secret,
    /// `core/v1` ConfigMap, only those referred to.
    ConfigMap,
    /// `networking.k8s.io/v1` ServiceCIDR (KEP-1880; servers before 1.33 have none).
    ServiceCidr,
    /// `multicluster.x-k8s.io/v1alpha1` ServiceImport (KEP-1645).
    ServiceImport,
}

impl Kind {
    /// Every kind, in the order they are listed in messages.
    pub const ALL: [Kind; 11] = [
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Node,
        Kind::Namespace,
        Kind::Pod,
        Kind::Ingress,
        Kind::IngressClass,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::ServiceCidr,
        Kind::ServiceImport,
    ];

    /// The kind's Kubernetes name, as in a manifest's `kind:`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Node => "Node",
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::Ingress => "Ingress",
            Kind::IngressClass => "IngressClass",
            Kind::Secret => "Secret",
            Kind::ConfigMap => "ConfigMap",
            Kind::ServiceCidr => "ServiceCIDR",
            Kind::ServiceImport => "ServiceImport",
        }
    }

    /// The kind's name in the API's paths.
    pub fn resource(self) -> &'static str {
        match self {
            Kind::Service => "services",
            Kind::EndpointSlice => "endpointslices",
            Kind::Node => "nodes",
            Kind::Namespace => "namespaces",
            Kind::Pod => "pods",
            Kind::Ingress => "ingresses",
            Kind::IngressClass => "ingressclasses",
            Kind::Secret => "secrets",
            Kind::ConfigMap => "configmaps",
            Kind::ServiceCidr => "servicecidrs",
            Kind::ServiceImport => "serviceimports",
        }
    }

    /// The `apiVersion` that is read.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::EndpointSlice => "discovery.k8s.io/v1",
            Kind::ServiceImport => "multicluster.x-k8s.io/v1alpha1",
            Kind::Ingress | Kind::IngressClass | Kind::ServiceCidr => "networking.k8s.io/v1",
            _ => "v1",
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Kind::Node | Kind::Namespace | Kind::IngressClass | Kind::ServiceCidr)
    }

    /// Whether a source that has no such kind, or may not read it, is taken to have none of it.
    pub fn is_optional(self) -> bool {
        matches!(self, Kind::ServiceCidr | Kind::ServiceImport)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One object, named: `Service default/hello`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// A decoded object of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// See [`Service`].
    Service(Arc<Service>),
    /// See [`EndpointSlice`].
    EndpointSlice(Arc<EndpointSlice>),
    /// See [`Node`].
    Node(Arc<Node>),
    /// See [`Namespace`].
    Namespace(Arc<Namespace>),
    /// See [`Pod`].
    Pod(Arc<Pod>),
    /// See [`Ingress`].
    Ingress(Arc<Ingress>),
    /// See [`IngressClass`].
    IngressClass(Arc<IngressClass>),
    /// See [`Secret`].
    Secret(Arc<Secret>),
    /// See [`ConfigMap`].
    ConfigMap(Arc<ConfigMap>),
    /// See [`ServiceCidr`].
    ServiceCidr(Arc<ServiceCidr>),
    /// See [`ServiceImport`].
    ServiceImport(Arc<ServiceImport>),
}

impl Object {
    /// The object's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Service(_) => Kind::Service,
            Object::EndpointSlice(_) => Kind::EndpointSlice,
            Object::Node(_) => Kind::Node,
            Object::Namespace(_) => Kind::Namespace,
            Object::Pod(_) => Kind::Pod,
            Object::Ingress(_) => Kind::Ingress,
            Object::IngressClass(_) => Kind::IngressClass,
            Object::Secret(_) => Kind::Secret,
            Object::ConfigMap(_) => Kind::ConfigMap,
            Object::ServiceCidr(_) => Kind::ServiceCidr,
            Object::ServiceImport(_) => Kind::ServiceImport,
        }
    }

    /// The object's namespace and name.
    pub fn key(&self) -> &Key {
        match self {
            Object::Service(o) => &o.key,
            Object::EndpointSlice(o) => &o.key,
            Object::Node(o) => &o.key,
            Object::Namespace(o) => &o.key,
            Object::Pod(o) => &o.key,
            Object::Ingress(o) => &o.key,
            Object::IngressClass(o) => &o.key,
            Object::Secret(o) => &o.key,
            Object::ConfigMap(o) => &o.key,
            Object::ServiceCidr(o) => &o.key,
            Object::ServiceImport(o) => &o.key,
        }
    }

    /// Kind and key together.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef { kind: self.kind(), key: self.key().clone() }
    }
}
