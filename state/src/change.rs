//! What a source says happened, and what a reader must look at again.

use std::{fmt, sync::Arc};

use crate::model::{Key, Kind, Name, Object, ObjectRef};

/// An object that was not taken, and why. It never blocks another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which object.
    pub object: ObjectRef,
    /// One line a person can act on: the field, its value, the cure.
    pub reason: Arc<str>,
    /// Where it came from: a file and line, or the API server.
    pub origin: Arc<str>,
    /// Of an Ingress, whose it says it is: only its own controller has anything to say of it.
    pub class: Option<SaidClass>,
}

/// What an Ingress says of its class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaidClass {
    /// `spec.ingressClassName`; `None` too where that is no text.
    pub name: Option<Name>,
    /// Annotation `kubernetes.io/ingress.class`; `None` too where that is no text.
    pub annotation: Option<Name>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} refused: {} ({})", self.object, self.reason, self.origin)
    }
}

/// One event of a source. Events in one batch become visible together.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object exists and looks like this.
    Upsert(Object),
    /// The object is gone.
    Delete(ObjectRef),
    /// These are all objects of the kind: the end of an initial list or of a re-list.
    Replace {
        /// The kind that is complete now.
        kind: Kind,
        /// All its good objects.
        objects: Vec<Object>,
        /// Its refused ones; an earlier good version of such an object stays in force.
        refused: Vec<Refusal>,
    },
    /// The object's newest version is unusable; an earlier good one stays in force.
    Refuse(Refusal),
}

/// What changed, at the granularity readers plan by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dirty {
    /// The Service or any of its EndpointSlices.
    Service(Key),
    /// A Node.
    Node(Key),
    /// A Namespace.
    Namespace(Key),
    /// A Pod.
    Pod(Key),
    /// An Ingress.
    Ingress(Key),
    /// An IngressClass.
    IngressClass(Key),
    /// A Secret.
    Secret(Key),
    /// A ConfigMap.
    ConfigMap(Key),
    /// A ServiceCIDR.
    ServiceCidr(Key),
    /// The ServiceImport or any of its EndpointSlices.
    ServiceImport(Key),
}

impl fmt::Display for Dirty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key) = match self {
            Self::Service(key) => (Kind::Service, key),
            Self::Node(key) => (Kind::Node, key),
            Self::Namespace(key) => (Kind::Namespace, key),
            Self::Pod(key) => (Kind::Pod, key),
            Self::Ingress(key) => (Kind::Ingress, key),
            Self::IngressClass(key) => (Kind::IngressClass, key),
            Self::Secret(key) => (Kind::Secret, key),
            Self::ConfigMap(key) => (Kind::ConfigMap, key),
            Self::ServiceCidr(key) => (Kind::ServiceCidr, key),
            Self::ServiceImport(key) => (Kind::ServiceImport, key),
        };
        write!(f, "{kind} {key}")
    }
}
