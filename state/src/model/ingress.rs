use std::{collections::BTreeMap, sync::Arc};

use super::{Key, Name};

/// `pathType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathType {
    /// Byte-equal, case-sensitive.
    Exact,
    /// Element-wise on `/`.
    Prefix,
    /// Up to the class; Fairlead reads it as `Prefix`.
    ImplementationSpecific,
}

/// `backend.service.port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceBackendPort {
    /// The Service's port number.
    Number(u16),
    /// The Service's port name.
    Name(Name),
}

/// A backend of an Ingress: a Service of the same namespace, or a resource (refused with a reason).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngressBackend {
    /// A Service and one of its ports.
    Service {
        /// The Service's name; its namespace is the Ingress's.
        name: Name,
        /// Which of its ports.
        port: ServiceBackendPort,
    },
    /// `backend.resource`, which no class supports here: `kind/name`.
    Resource(Name),
}

/// `rules[].http.paths[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressPath {
    /// The path; begins with `/`. Empty means `/` (ImplementationSpecific only).
    pub path: Name,
    /// How it is compared.
    pub path_type: PathType,
    /// Where requests go.
    pub backend: IngressBackend,
}

/// `rules[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressRule {
    /// Host as written; `None` for all hosts. `*.example.com` matches exactly one label.
    pub host: Option<Name>,
    /// Paths in the order of the manifest.
    pub paths: Arc<[IngressPath]>,
}

/// `tls[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressTls {
    /// Hosts the certificate is for.
    pub hosts: Arc<[Name]>,
    /// Secret of the same namespace; `None` means the default certificate.
    pub secret_name: Option<Name>,
}

/// An Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.creationTimestamp` in seconds since the epoch, 0 if absent: the elder of two that
    /// claim
    /// the same host and path wins.
    pub created_seconds: i64,
    /// `spec.ingressClassName`.
    pub class_name: Option<Name>,
    /// All annotations; those in force are decided by the ingress role.
    pub annotations: Arc<BTreeMap<Name, Name>>,
    /// `spec.defaultBackend`.
    pub default_backend: Option<IngressBackend>,
    /// Rules in the order of the manifest.
    pub rules: Arc<[IngressRule]>,
    /// TLS sections in the order of the manifest.
    pub tls: Arc<[IngressTls]>,
}

/// An IngressClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressClass {
    /// Name (namespace empty).
    pub key: Key,
    /// `spec.controller`.
    pub controller: Name,
    /// Annotation `ingressclass.kubernetes.io/is-default-class: "true"`.
    pub is_default: bool,
    /// `spec.parameters` names an object.
    pub has_parameters: bool,
}
