//! `status.loadBalancer` of Ingresses: where clients find them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use k8s_openapi::api::{
    core::v1::Service,
    networking::v1::{Ingress, IngressLoadBalancerIngress},
};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::{Attempt, FIELD_MANAGER, WriteError, Writer};
use crate::model::Key;

/// Ingresses a page of a list has.
const PAGE: u32 = 500;

const READ: Attempt = Attempt { what: "reading an Ingress", right: "get on ingresses" };
const LIST: Attempt = Attempt { what: "reading Ingresses", right: "list on ingresses" };
const WRITE: Attempt =
    Attempt { what: "writing an Ingress's status", right: "patch on ingresses/status" };
const SERVICE: Attempt = Attempt { what: "reading --publish-service", right: "get on services" };

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// A name, as some load balancers have instead.
    Host(String),
}

/// What became of the addresses of many Ingresses.
#[derive(Debug, Default)]
pub struct Corrected {
    /// How many had others.
    pub changed: usize,
    /// Those that have others still, and why.
    pub refused: BTreeMap<Key, WriteError>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(ip) => ip.fmt(f),
            Address::Host(host) => f.write_str(host),
        }
    }
}

impl Writer {
    /// Gives one Ingress these addresses; whether it had others.
    ///
    /// # Errors
    /// It is gone, there is no right to it, or the API server does not answer.
    pub async fn set_addresses(
        &self,
        ingress: &Key,
        wanted: &BTreeSet<Address>,
    ) -> Result<bool, WriteError> {
        let api = self.namespaced::<Ingress>(&ingress.namespace);
        let found = READ.at(api.get(&ingress.name)).await?;
        self.correct(ingress, &found, wanted).await
    }

    /// Gives all of `ours` these addresses, where they have others. What is gone is passed over, and what
    /// the API server refuses of one keeps no other from its own.
    ///
    /// # Errors
    /// There is no right to them, or the API server does not answer.
    pub async fn set_all_addresses(
        &self,
        ours: &BTreeSet<Key>,
        wanted: &BTreeSet<Address>,
    ) -> Result<Corrected, WriteError> {
        let api = kube::Api::<Ingress>::all(self.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        let mut corrected = Corrected::default();
        loop {
            let page = LIST.at(api.list(&params)).await?;
            for found in &page.items {
                let metadata = &found.metadata;
                let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else {
                    continue;
                };
                let key = Key::new(namespace.as_str(), name.as_str());
                if !ours.contains(&key) {
                    continue;
                }
                match self.correct(&key, found, wanted).await {
                    Ok(changed) => corrected.changed += usize::from(changed),
                    Err(WriteError::Gone { .. }) => {}
                    Err(error) if error.is_of_all() => return Err(error),
                    Err(error) => _ = corrected.refused.insert(key, error),
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(corrected),
            }
        }
    }

    /// Where a Service is found from outside; empty if it is not (yet).
    ///
    /// # Errors
    /// It is gone, there is no right to it, or the API server does not answer.
    pub async fn service_addresses(&self, service: &Key) -> Result<BTreeSet<Address>, WriteError> {
        let api = self.namespaced::<Service>(&service.namespace);
        Ok(of_service(&SERVICE.at(api.get(&service.name)).await?))
    }

    async fn correct(
        &self,
        key: &Key,
        found: &Ingress,
        wanted: &BTreeSet<Address>,
    ) -> Result<bool, WriteError> {
        if of_ingress(found) == *wanted {
            return Ok(false);
        }
        let entries = wanted.iter().map(|address| match address {
            Address::Ip(ip) => json!({"ip": ip.to_string()}),
            Address::Host(host) => json!({"hostname": host}),
        });
        let entries: Vec<_> = entries.collect();
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": entries}}}));
        let params = PatchParams::apply(FIELD_MANAGER);
        let params = PatchParams { field_validation: None, ..params };
        let api = self.namespaced::<Ingress>(&key.namespace);
        WRITE.at(api.patch_status(&key.name, &params, &patch)).await?;
        Ok(true)
    }
}

fn of_ingress(ingress: &Ingress) -> BTreeSet<Address> {
    let status = ingress.status.as_ref();
    let entries = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let entry = |entry: &IngressLoadBalancerIngress| {
        address(entry.ip.as_deref(), entry.hostname.as_deref())
    };
    entries.into_iter().flatten().filter_map(entry).collect()
}

/// As ingress-nginx reads `--publish-service`: a load balancer's addresses and the external ones, else
/// the cluster's own.
pub fn of_service(service: &Service) -> BTreeSet<Address> {
    let Some(spec) = &service.spec else { return BTreeSet::new() };
    let status = service.status.as_ref();
    let given = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let given = given.into_iter().flatten();
    let given = given.filter_map(|entry| address(entry.ip.as_deref(), entry.hostname.as_deref()));
    let external = ips(spec.external_ips.as_deref());
    let cluster = || ips(spec.cluster_ips.as_deref());
    match spec.type_.as_deref() {
        Some("ExternalName") => address(None, spec.external_name.as_deref()).into_iter().collect(),
        Some("LoadBalancer") => given.chain(external).collect(),
        _ if spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) => external.collect(),
        _ => cluster().collect(),
    }
}

fn ips(texts: Option<&[String]>) -> impl Iterator<Item = Address> {
    texts.unwrap_or_default().iter().filter_map(|text| address(Some(text), None))
}

fn address(ip: Option<&str>, host: Option<&str>) -> Option<Address> {
    let ip = ip.and_then(|text| text.parse().ok()).map(Address::Ip);
    ip.or_else(|| host.filter(|host| !host.is_empty()).map(|host| Address::Host(host.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_where_its_type_says() {
        let given =
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]}});
        for (spec, status, expected) in [
            (
                json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.9"]}),
                given.clone(),
                "192.0.2.1 192.0.2.9 lb.example",
            ),
            (json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"]}), json!({}), ""),
            (json!({"type": "NodePort", "clusterIPs": ["10.96.0.1"]}), given.clone(), "10.96.0.1"),
            (
                json!({"type": "NodePort", "clusterIPs": ["10.96.0.1"], "externalIPs": ["192.0.2.9"]}),
                json!({}),
                "192.0.2.9",
            ),
            (
                json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.1", "fd00::1"]}),
                json!({}),
                "10.96.0.1 fd00::1",
            ),
            (json!({"type": "ClusterIP", "clusterIPs": ["None"]}), json!({}), ""),
            (
                json!({"type": "ExternalName", "externalName": "lb.example"}),
                json!({}),
                "lb.example",
            ),
        ] {
            let service = json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
            let service = serde_json::from_value(service).expect("a Service");
            let found = of_service(&service).iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(found.join(" "), expected, "{spec}");
        }
    }
}
