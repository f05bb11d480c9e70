//! What of a Service is reached from outside of the cluster: for `k8s_external`.

use std::{net::IpAddr, sync::Arc};

use fairlead_state::model::Service;

use super::{DNS_SERVICE, Zone};
use crate::wire::name::WireName;

/// A Service's addresses, or name, and ports outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Each once, in order.
    pub(crate) addresses: Box<[IpAddr]>,
    /// The balancer's name, where there is no address: beside an alias there is nothing (RFC 1034 §3.6.2).
    pub(crate) alias: Option<WireName>,
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
        let name = service.extras.load_balancer_name.as_deref();
        // One that is an address is as good as one.
        addresses.extend(name.and_then(|name| name.parse::<IpAddr>().ok()));
        addresses.sort();
        addresses.dedup();
        let ports = service.ports.iter().map(|port| OutsidePort {
            name: port.name.to_ascii_lowercase().into(),
            protocol: port.protocol.as_str(),
            number: port.port,
        });
        let alias = name.filter(|_| addresses.is_empty());
        let alias = alias.and_then(|name| WireName::from_text(name).ok());
        let outside = Self { addresses: addresses.into(), alias, ports: ports.collect() };
        let is_somewhere = !outside.addresses.is_empty() || outside.alias.is_some();
        (is_somewhere && !outside.ports.is_empty()).then_some(outside)
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
