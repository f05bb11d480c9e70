//! `metadata`: who an object is, and the few labels and annotations that mean something here.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::text::{Text, nullable};

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

#[derive(Debug, Default, Deserialize)]
pub(super) struct Labels<'a> {
    #[serde(borrow, rename = "kubernetes.io/service-name")]
    pub(super) service_name: Option<Text<'a>>,
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub(super) service_proxy_name: Option<Text<'a>>,
    #[serde(rename = "service.kubernetes.io/headless")]
    pub(super) headless: Option<Text<'a>>,
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub(super) zone: Option<Text<'a>>,
    #[serde(rename = "multicluster.kubernetes.io/service-name")]
    pub(super) imported_service: Option<Text<'a>>,
    #[serde(rename = "multicluster.kubernetes.io/source-cluster")]
    pub(super) source_cluster: Option<Text<'a>>,
}

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
