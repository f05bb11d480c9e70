//! `healthCheckNodePort`: what an outside balancer asks a node before it sends it traffic of a
//! Service with `externalTrafficPolicy: Local`.

use std::collections::BTreeMap;

use fairlead_state::{
    Changes, Dirty, Key, Name, Snapshot,
    model::{Service, ServiceType, TrafficPolicy},
};

use crate::plan::{Targets, is_served};

/// What one port has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// The Service.
    pub service: Key,
    /// Its ready endpoints on this node, of IPv4 and of IPv6; draining ones do not count, or the balancer would
    /// never turn away. A family the Service does not have has those of the other.
    pub local_endpoints: [usize; 2],
}

impl HealthPort {
    /// What whoever asks over this family is told. kube-proxy has a proxy, and a port, for each: a pod of two
    /// families is one endpoint to a balancer, not two.
    pub fn local_endpoints(&self, is_ipv6: bool) -> usize {
        let [of_ipv4, of_ipv6] = self.local_endpoints;
        if is_ipv6 { of_ipv6 } else { of_ipv4 }
    }
}

/// The health check ports of all Services, at the cost of what changed.
#[derive(Debug, Default)]
pub struct HealthPorts {
    proxy_name: Option<Name>,
    revision: u64,
    by_service: BTreeMap<Key, (u16, [usize; 2])>,
}

impl HealthPorts {
    /// Those of a proxy of this name; `None`: of the nameless one.
    pub fn of_proxy(proxy_name: Option<Name>) -> Self {
        Self { proxy_name, ..Self::default() }
    }

    /// Takes note of a newer snapshot, for the node `node_name`.
    pub fn update(&mut self, snapshot: &Snapshot, node_name: &str) {
        match snapshot.changes_since(self.revision) {
            Changes::All => {
                let services = snapshot.services().values();
                let ports = services.filter_map(|service| {
                    Some((service.key.clone(), self.health_port(service, snapshot, node_name)?))
                });
                self.by_service = ports.collect();
            }
            Changes::Some(dirty) => {
                for dirty in dirty {
                    let Dirty::Service(key) = dirty else { continue };
                    let service = snapshot.services().get(&key);
                    let port = service.and_then(|s| self.health_port(s, snapshot, node_name));
                    match port {
                        Some(port) => drop(self.by_service.insert(key, port)),
                        None => drop(self.by_service.remove(&key)),
                    }
                }
            }
        }
        self.revision = snapshot.revision();
    }

    /// By port. Of Services that ask for the same one the first by name has it.
    pub fn by_port(&self) -> BTreeMap<u16, HealthPort> {
        let mut ports = BTreeMap::new();
        for (service, (port, local_endpoints)) in &self.by_service {
            ports.entry(*port).or_insert_with(|| HealthPort {
                service: service.clone(),
                local_endpoints: *local_endpoints,
            });
        }
        ports
    }

    fn health_port(
        &self,
        service: &Service,
        snapshot: &Snapshot,
        node_name: &str,
    ) -> Option<(u16, [usize; 2])> {
        let is_checked = is_served(service, self.proxy_name.as_ref())
            && service.service_type == ServiceType::LoadBalancer
            && service.external_traffic_policy == TrafficPolicy::Local;
        let port = service.extras.health_check_node_port.filter(|_| is_checked)?;
        let targets = Targets::of(snapshot.slices_of(&service.key));
        let has = |is_ipv6| service.cluster_ips.iter().any(|ip| ip.is_ipv6() == is_ipv6);
        let told = |is_ipv6: bool| {
            targets.ready_on(node_name, if has(is_ipv6) { is_ipv6 } else { !is_ipv6 })
        };
        Some((port, [false, true].map(told)))
    }
}
