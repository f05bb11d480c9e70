//! `metadata`: who an object is, and the few labels and annotations that mean something here.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    names::Names,
    text::{Text, kept, nullable},
};
use crate::model;

/// Every annotation by name, for kinds that are steered by them.
pub(super) type AllAnnotations<'a> = BTreeMap<Text<'a>, Text<'a>>;

/// Name, namespace and version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) version: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(deserialize = "'de: 'a, A: Default + Deserialize<'de>"))]
pub(super) struct Metadata<'a, A = Annotations<'a>> {
    #[serde(default)]
    pub(super) name: Text<'a>,
    pub(super) namespace: Option<Text<'a>>,
    pub(super) resource_version: Option<Text<'a>>,
    pub(super) creation_timestamp: Option<Text<'a>>,
    pub(super) deletion_timestamp: Option<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) labels: Labels<'a>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) annotations: A,
}

/// Labels that mean something here.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
pub(super) const IMPORTED_SERVICE: &str = "multicluster.kubernetes.io/service-name";
pub(super) const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";

/// All labels, as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Labels<'a>(#[serde(borrow)] BTreeMap<Text<'a>, Option<Text<'a>>>);

#[derive(Debug, Default, Deserialize)]
pub(super) struct Annotations<'a> {
    #[serde(borrow, rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(super) last_change_trigger_time: Option<Text<'a>>,
    #[serde(rename = "ingressclass.kubernetes.io/is-default-class")]
    pub(super) is_default_class: Option<Text<'a>>,
    #[serde(rename = "fairlead.io/load-balancing")]
    pub(super) load_balancing: Option<Text<'a>>,
}

/// The least that can be read of an object whose other fields are wrong.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Named<'a> {
    #[serde(borrow, default)]
    metadata: NamedMetadata<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedMetadata<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    namespace: Option<Text<'a>>,
    resource_version: Option<Text<'a>>,
}

impl<'a> Labels<'a> {
    /// A label's value; there may be none.
    pub(super) fn get(&self, key: &str) -> Option<&Text<'a>> {
        self.0.get(key)?.as_ref()
    }

    /// All of them, if labels are kept at all.
    pub(super) fn kept(&self, names: &mut Names) -> model::Labels {
        if !names.keeps_labels() {
            return model::Labels::default();
        }
        let labels = self.0.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        kept(labels.map(|(key, value)| (names.get(key), names.get(value))).collect())
    }
}

impl<A> Metadata<'_, A> {
    pub(super) fn head(&self) -> Head<'_> {
        Head {
            name: &self.name,
            namespace: self.namespace.as_deref(),
            version: self.resource_version.as_deref(),
        }
    }
}

impl Named<'_> {
    pub(super) fn head(&self) -> Head<'_> {
        Head {
            name: &self.metadata.name,
            namespace: self.metadata.namespace.as_deref(),
            version: self.metadata.resource_version.as_deref(),
        }
    }
}
