//! `status.loadBalancer` of Ingresses: where clients find them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
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
/// An Ingress that others change all the while is left after so many tries, until next time.
const TRIES_MAX: usize = 3;

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

/// What an Ingress's addresses are to be.
#[derive(Clone, Copy, Debug)]
pub enum Placing<'a> {
    /// These.
    Given(&'a BTreeSet<Address>),
    /// None, as long as it has what it was given, which is one of these. Others are somebody else's, who serves it now.
    Taken(&'a [Arc<BTreeSet<Address>>]),
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
    /// Brings the addresses of one Ingress to what they are to be; whether they were others.
    ///
    /// # Errors
    /// It is gone or changes all the while, there is no right to it, or the API server does not answer.
    pub async fn set_addresses(
        &self,
        ingress: &Key,
        placing: Placing<'_>,
    ) -> Result<bool, WriteError> {
        let api = self.namespaced::<Ingress>(&ingress.namespace);
        let mut tries = 1;
        loop {
            let found = READ.at(api.get(&ingress.name)).await?;
            match self.correct(ingress, &found, placing).await {
                // Whoever was faster may have written addresses of its own.
                Err(WriteError::Conflict { .. }) if tries < TRIES_MAX => tries += 1,
                done => return done,
            }
        }
    }

    /// The same of all these. What is gone is passed over, and what the API server refuses of one keeps no other
    /// from its own.
    ///
    /// # Errors
    /// There is no right to them, or the API server does not answer.
    pub async fn set_all_addresses(
        &self,
        placings: &BTreeMap<Key, Placing<'_>>,
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
                let Some(placing) = placings.get(&key) else { continue };
                let corrected_one = match self.correct(&key, found, *placing).await {
                    // The list is a while old.
                    Err(WriteError::Conflict { .. }) => self.set_addresses(&key, *placing).await,
                    done => done,
                };
                match corrected_one {
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
        placing: Placing<'_>,
    ) -> Result<bool, WriteError> {
        let has = of_ingress(found);
        let (wanted, seen) = match placing {
            Placing::Given(wanted) if has == *wanted => return Ok(false),
            Placing::Given(wanted) => (Some(wanted), None),
            Placing::Taken(given) if given.iter().all(|given| has != **given) => return Ok(false),
            // With the version that was read the API server takes nothing that was written since (409).
            Placing::Taken(_) => (None, found.metadata.resource_version.as_ref()),
        };
        let entries = wanted.into_iter().flatten().map(|address| match address {
            Address::Ip(ip) => json!({"ip": ip.to_string()}),
            Address::Host(host) => json!({"hostname": host}),
        });
        let entries: Vec<_> = entries.collect();
        let metadata = seen.map_or_else(|| json!({}), |seen| json!({"resourceVersion": seen}));
        let status = json!({"loadBalancer": {"ingress": entries}});
        let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
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
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use kube::{Client, client::Body};
    use serde_json::Value;
    use tower::{BoxError, service_fn};

    use super::*;

    /// Of an Ingress that has these addresses, one after the other each time it is read; the last version is the
    /// one that a write may be of.
    fn writer(versions: &[&str], written: &Arc<Mutex<Vec<Value>>>) -> Writer {
        let left = versions.iter().enumerate().map(|(i, ip)| {
            json!({
                "metadata": {"namespace": "shop", "name": "web", "resourceVersion": i.to_string()},
                "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
            })
        });
        let left: Vec<Value> = left.collect();
        let newest = left.len() - 1;
        let (left, written) = (Arc::new(Mutex::new(left.into_iter())), written.clone());
        let serve = move |request: Request<Body>| {
            let (left, written) = (left.clone(), written.clone());
            async move {
                let is_patch = request.method() == "PATCH";
                let is_list = request.uri().path() == "/apis/networking.k8s.io/v1/ingresses";
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let (code, body) = if is_patch {
                    let patch: Value = serde_json::from_slice(&body).expect("JSON");
                    let seen = patch["metadata"]["resourceVersion"].as_str();
                    if seen.is_some_and(|seen| seen != newest.to_string()) {
                        (409, json!({"kind": "Status", "code": 409, "status": "Failure"}))
                    } else {
                        written.lock().expect("nobody panics").push(patch);
                        (200, json!({"metadata": {"name": "web"}}))
                    }
                } else {
                    let next = left.lock().expect("nobody panics").next().expect("no more reads");
                    (200, if is_list { json!({"metadata": {}, "items": [next]}) } else { next })
                };
                let response = Response::builder().status(code);
                response.body(Body::from(body.to_string().into_bytes())).map_err(BoxError::from)
            }
        };
        Writer::new(Client::new(service_fn(serve), "default"))
    }

    /// Whoever takes an Ingress over writes its own addresses, perhaps while ours are being taken away.
    #[tokio::test]
    async fn bug_addresses_of_another_controller_were_taken_away() {
        let ip = |text: &str| BTreeSet::from([Address::Ip(text.parse().expect("an address"))]);
        // An end amid a change leaves two that it may have.
        let ours = ["192.0.2.1", "192.0.2.2"].map(|text| Arc::new(ip(text)));
        let key = Key::new("shop", "web");
        for (versions, is_taken) in [
            (&["192.0.2.1"][..], true),
            (&["192.0.2.2"], true),
            (&["203.0.113.1"], false),
            (&["192.0.2.1", "203.0.113.1"], false),
            // Something else of it was changed.
            (&["192.0.2.1", "192.0.2.1"], true),
        ] {
            for all in [false, true] {
                let written = Arc::default();
                let writer = writer(versions, &written);
                let placing = Placing::Taken(&ours);
                let taken = if all {
                    let placings = BTreeMap::from([(key.clone(), placing)]);
                    let corrected = writer.set_all_addresses(&placings).await.expect("an answer");
                    assert!(corrected.refused.is_empty(), "{versions:?}: {:?}", corrected.refused);
                    corrected.changed == 1
                } else {
                    writer.set_addresses(&key, placing).await.expect("an answer")
                };
                assert_eq!(taken, is_taken, "{versions:?}");
                let newest = (versions.len() - 1).to_string();
                let patch = json!({
                    "metadata": {"resourceVersion": newest},
                    "status": {"loadBalancer": {"ingress": []}},
                });
                let expected = if is_taken { vec![patch] } else { Vec::new() };
                assert_eq!(*written.lock().expect("nobody panics"), expected, "{versions:?}");
            }
        }
    }

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
