//! The cluster at one revision: immutable, shared, cheap to derive the next one from.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Instant};

use imbl::{OrdMap, Vector};

use crate::{
    change::{Dirty, Refusal},
    line::some_of,
    model::{
        ConfigMap, EndpointSlice, Ingress, IngressClass, Key, Kind, Namespace, Node, Object,
        ObjectRef, Pod, Secret, Service, ServiceCidr, ServiceImport,
    },
};

/// How many changes a snapshot remembers; a reader further behind plans everything anew.
pub const CHANGE_LOG_ENTRIES_MAX: usize = 8192;

/// What a reader that last saw some revision has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Too far behind, or never planned: everything.
    All,
    /// Exactly these.
    Some(BTreeSet<Dirty>),
}

/// Of how many objects a line of a log tells the names.
const NAMED_MAX: usize = 3;

/// For logs: `Service shop/web, Ingress shop/web and 40 more`, `everything`, `nothing`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dirty = match self {
            Self::All => return f.write_str("everything"),
            Self::Some(dirty) if dirty.is_empty() => return f.write_str("nothing"),
            Self::Some(dirty) => dirty,
        };
        f.write_str(&some_of(dirty, NAMED_MAX))
    }
}

/// EndpointSlices by what they are of, in the order of their names. A map's smallest node would be larger
/// than most Services' slices.
pub(crate) type SlicesByOwner = OrdMap<Key, Arc<[Arc<EndpointSlice>]>>;

/// All objects at one revision. Clones share structure.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) received_at: Option<Instant>,
    pub(crate) services: OrdMap<Key, Arc<Service>>,
    pub(crate) slices: OrdMap<Key, Arc<EndpointSlice>>,
    pub(crate) slices_by_service: SlicesByOwner,
    pub(crate) slices_by_import: SlicesByOwner,
    pub(crate) nodes: OrdMap<Key, Arc<Node>>,
    pub(crate) namespaces: OrdMap<Key, Arc<Namespace>>,
    pub(crate) pods: OrdMap<Key, Arc<Pod>>,
    pub(crate) ingresses: OrdMap<Key, Arc<Ingress>>,
    pub(crate) ingress_classes: OrdMap<Key, Arc<IngressClass>>,
    pub(crate) secrets: OrdMap<Key, Arc<Secret>>,
    pub(crate) config_maps: OrdMap<Key, Arc<ConfigMap>>,
    pub(crate) service_cidrs: OrdMap<Key, Arc<ServiceCidr>>,
    pub(crate) service_imports: OrdMap<Key, Arc<ServiceImport>>,
    pub(crate) refused: OrdMap<ObjectRef, Refusal>,
    pub(crate) refused_revision: u64,
    pub(crate) log: Vector<(u64, Dirty)>,
    /// Changes up to and including this revision have left the log.
    pub(crate) log_starts_after: u64,
}

impl Snapshot {
    /// Grows by one with every batch that changed something. Not Kubernetes' resourceVersion.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// When the newest change in it was received from its source; what is built from the snapshot
    /// is late by so much.
    pub fn received_at(&self) -> Option<Instant> {
        self.received_at
    }

    /// What changed after `revision`, which the caller has already handled (0: nothing handled).
    pub fn changes_since(&self, revision: u64) -> Changes {
        if revision == 0 || revision < self.log_starts_after || revision > self.revision {
            return Changes::All;
        }
        let newer = self.log.iter().rev().take_while(|(at, _)| *at > revision);
        Changes::Some(newer.map(|(_, dirty)| dirty.clone()).collect())
    }

    /// Services by key.
    pub fn services(&self) -> &OrdMap<Key, Arc<Service>> {
        &self.services
    }

    /// EndpointSlices by their own key.
    pub fn endpoint_slices(&self) -> &OrdMap<Key, Arc<EndpointSlice>> {
        &self.slices
    }

    /// EndpointSlices of one Service, in the order of their names. The Service itself may not
    /// exist (yet).
    pub fn slices_of(&self, service: &Key) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices_by_service.get(service).into_iter().flat_map(|slices| slices.iter())
    }

    /// EndpointSlices of one ServiceImport, in the order of their names. The import itself may not
    /// exist (yet).
    pub fn slices_of_import(&self, import: &Key) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices_by_import.get(import).into_iter().flat_map(|slices| slices.iter())
    }

    /// Nodes by key.
    pub fn nodes(&self) -> &OrdMap<Key, Arc<Node>> {
        &self.nodes
    }

    /// Namespaces by key.
    pub fn namespaces(&self) -> &OrdMap<Key, Arc<Namespace>> {
        &self.namespaces
    }

    /// Pods of the own node by key.
    pub fn pods(&self) -> &OrdMap<Key, Arc<Pod>> {
        &self.pods
    }

    /// Ingresses by key.
    pub fn ingresses(&self) -> &OrdMap<Key, Arc<Ingress>> {
        &self.ingresses
    }

    /// IngressClasses by key.
    pub fn ingress_classes(&self) -> &OrdMap<Key, Arc<IngressClass>> {
        &self.ingress_classes
    }

    /// Referenced Secrets by key.
    pub fn secrets(&self) -> &OrdMap<Key, Arc<Secret>> {
        &self.secrets
    }

    /// Referenced ConfigMaps by key.
    pub fn config_maps(&self) -> &OrdMap<Key, Arc<ConfigMap>> {
        &self.config_maps
    }

    /// ServiceCIDRs by key.
    pub fn service_cidrs(&self) -> &OrdMap<Key, Arc<ServiceCidr>> {
        &self.service_cidrs
    }

    /// ServiceImports by key.
    pub fn service_imports(&self) -> &OrdMap<Key, Arc<ServiceImport>> {
        &self.service_imports
    }

    /// Objects whose newest version was not taken.
    pub fn refused(&self) -> &OrdMap<ObjectRef, Refusal> {
        &self.refused
    }

    /// The revision that changed [`Snapshot::refused`] last.
    pub fn refused_revision(&self) -> u64 {
        self.refused_revision
    }

    /// The object that is held, if `object` is equal to it, else `object`. Who collects a list of
    /// everything so holds what is known once.
    pub fn known(&self, object: Object) -> Object {
        match object {
            Object::Service(new) => Object::Service(held(&self.services, &new.key, &new)),
            Object::EndpointSlice(new) => Object::EndpointSlice(held(&self.slices, &new.key, &new)),
            Object::Node(new) => Object::Node(held(&self.nodes, &new.key, &new)),
            Object::Namespace(new) => Object::Namespace(held(&self.namespaces, &new.key, &new)),
            Object::Pod(new) => Object::Pod(held(&self.pods, &new.key, &new)),
            Object::Ingress(new) => Object::Ingress(held(&self.ingresses, &new.key, &new)),
            Object::IngressClass(new) => {
                Object::IngressClass(held(&self.ingress_classes, &new.key, &new))
            }
            Object::Secret(new) => Object::Secret(held(&self.secrets, &new.key, &new)),
            Object::ConfigMap(new) => Object::ConfigMap(held(&self.config_maps, &new.key, &new)),
            Object::ServiceCidr(new) => {
                Object::ServiceCidr(held(&self.service_cidrs, &new.key, &new))
            }
            Object::ServiceImport(new) => {
                Object::ServiceImport(held(&self.service_imports, &new.key, &new))
            }
        }
    }

    pub(crate) fn keys(&self, kind: Kind) -> Box<dyn Iterator<Item = &Key> + '_> {
        match kind {
            Kind::Service => Box::new(self.services.keys()),
            Kind::EndpointSlice => Box::new(self.slices.keys()),
            Kind::Node => Box::new(self.nodes.keys()),
            Kind::Namespace => Box::new(self.namespaces.keys()),
            Kind::Pod => Box::new(self.pods.keys()),
            Kind::Ingress => Box::new(self.ingresses.keys()),
            Kind::IngressClass => Box::new(self.ingress_classes.keys()),
            Kind::Secret => Box::new(self.secrets.keys()),
            Kind::ConfigMap => Box::new(self.config_maps.keys()),
            Kind::ServiceCidr => Box::new(self.service_cidrs.keys()),
            Kind::ServiceImport => Box::new(self.service_imports.keys()),
        }
    }
}

fn held<T: PartialEq>(objects: &OrdMap<Key, Arc<T>>, key: &Key, new: &Arc<T>) -> Arc<T> {
    objects.get(key).filter(|held| *held == new).unwrap_or(new).clone()
}
