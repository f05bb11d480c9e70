//! `multicluster.x-k8s.io/v1alpha1` ServiceImport (KEP-1645).

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;

use super::{
    Raw, fields,
    metadata::{Head, Metadata},
    names::Names,
    text::{Text, kept, nullable},
};
use crate::model::{EndpointPort, Key, Kind, Object, ServiceImport};

#[derive(Debug, Deserialize)]
pub(super) struct RawServiceImport<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawImportSpec<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawImportSpec<'a> {
    #[serde(borrow, default, rename = "type")]
    import_type: Text<'a>,
    #[serde(default, deserialize_with = "nullable")]
    ips: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    ports: Vec<RawImportPort<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawImportPort<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    protocol: Option<Text<'a>>,
    #[serde(default)]
    port: i64,
}

impl<'a> Raw<'a> for RawServiceImport<'a> {
    const KIND: Kind = Kind::ServiceImport;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        fields::label(&key.name, format_args!("metadata.name"))?;
        let headless = match &*self.spec.import_type {
            "Headless" => true,
            "ClusterSetIP" => false,
            other => {
                return Err(format!("spec.type {other:?} is not one of ClusterSetIP, Headless"));
            }
        };
        let ips = self.spec.ips.iter().enumerate();
        let ips = ips.map(|(i, text)| fields::ip(text, format_args!("spec.ips[{i}]")));
        let ips: Vec<IpAddr> = ips.collect::<Result<_, _>>()?;
        let mut ports = Vec::with_capacity(self.spec.ports.len());
        for (i, raw) in self.spec.ports.iter().enumerate() {
            let protocol = raw.protocol.as_deref();
            ports.push(EndpointPort {
                name: names.get(raw.name.as_deref().unwrap_or_default()),
                protocol: fields::protocol(protocol, format_args!("spec.ports[{i}].protocol"))?,
                port: fields::port(raw.port, format_args!("spec.ports[{i}].port"))?,
                app_protocol: None,
            });
        }
        let ports = names.endpoint_ports(ports);
        let import = ServiceImport { key, headless, ips: kept(ips), ports };
        Ok(Some(Object::ServiceImport(Arc::new(import))))
    }
}
