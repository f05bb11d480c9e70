//! What of a Service is reached from outside of the cluster: for `k8s_external`.

use std::{net::IpAddr, sync::Arc};

use fairlead_state::model::Service;

use super::{DNS_SERVICE, Zone};

/// A Service's addresses and ports outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Each once, in order.
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) ports: Box<[OutsidePort]>,
}

/// A port as SRV records name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutsidePort {
    /// Lower case; empty when unnamed.
    pub(crate) name: Box<str>,
    /// `tcp`.
    pub(crate) protocol: &'static str,
    pub(crate) number: u16,
}

impl Outside {
    /// `None` for a Service that nobody outside can reach by address and port.
    pub(super) fn of(service: &Service) -> Option<Self> {
        let balanced = service.extras.load_balancer_ips.iter().map(|balancer| balancer.ip);
        let mut addresses: Vec<_> =
            service.extras.external_ips.iter().copied().chain(balanced).collect();
        addresses.sort();
        addresses.dedup();
        let ports = service.ports.iter().map(|port| OutsidePort {
            name: port.name.to_ascii_lowercase().into(),
            protocol: port.protocol.as_str(),
            number: port.port,
        });
        let outside = Self { addresses: addresses.into(), ports: ports.collect() };
        (!outside.addresses.is_empty() && !outside.ports.is_empty()).then_some(outside)
    }
}

impl Zone {
    /// Of the Service whose wire form of `SERVICE.NAMESPACE` is given.
    pub(crate) fn outside(&self, service: &[u8]) -> Option<&Arc<Outside>> {
        self.outside.get(service)
    }

    /// Of the Service in front of cluster DNS.
    pub(crate) fn dns_outside(&self) -> Option<&Arc<Outside>> {
        self.outside.get(DNS_SERVICE)
    }

    /// Whether a namespace, by its label's text, is there.
    pub(crate) fn has_namespace(&self, name: &[u8]) -> bool {
        self.namespaces.contains_key(name)
    }

    /// Whether an address outside can be denied: none is kept over a restart.
    pub(crate) fn knows_outside(&self) -> bool {
        self.revision().is_some()
    }
}
