//! Endpoints by the port they serve.

use std::sync::Arc;

use fairlead_ebpf::abi::{BACKEND_LOCAL, Backend};
use fairlead_state::{
    Name,
    model::{EndpointSlice, Protocol, ServicePort},
};

use super::{
    NodeView, address,
    select::{self, Candidate},
};

/// What all slices of a service offer, sorted by [`Target::key`]: a service may have thousands of
/// ports, and as many in each slice.
#[derive(Debug)]
pub(super) struct Targets<'a>(Vec<Target<'a>>);

/// One port of one slice.
#[derive(Clone, Copy, Debug)]
struct Target<'a> {
    slice: &'a EndpointSlice,
    name: &'a Name,
    protocol: Protocol,
    number: u16,
}

impl Target<'_> {
    /// By name, not by number: endpoints behind one targetPort name may differ in their port.
    fn key(&self) -> (bool, Protocol, &str) {
        (self.slice.ipv6, self.protocol, self.name.as_str())
    }
}

impl<'a> Targets<'a> {
    pub(super) fn of(slices: &[&'a Arc<EndpointSlice>]) -> Self {
        let meant = slices.iter().copied().filter(|slice| !slice.headless_label);
        let targets = meant.flat_map(|slice| {
            slice.ports.iter().map(move |port| Target {
                slice,
                name: &port.name,
                protocol: port.protocol,
                number: port.port,
            })
        });
        let mut targets: Vec<_> = targets.collect();
        targets.sort_by(|one, other| one.key().cmp(&other.key()));
        Self(targets)
    }

    /// Endpoints that serve `port` over one family, each address and port once, sorted by them.
    pub(super) fn candidates(
        &self,
        port: &ServicePort,
        is_ipv6: bool,
        node: &NodeView,
    ) -> Vec<Candidate<'a>> {
        let key = (is_ipv6, port.protocol, port.name.as_str());
        let first = self.0.partition_point(|target| target.key() < key);
        let of_port = self.0.iter().skip(first).take_while(|target| target.key() == key);
        let candidates = of_port.flat_map(|Target { slice, number, .. }| {
            slice.endpoints.iter().filter_map(move |endpoint| {
                // discovery.k8s.io/v1 defines no meaning for addresses after the first.
                let first = endpoint.addresses.first()?;
                let is_local = endpoint.node_name.as_ref().is_some_and(|name| *name == node.name);
                let backend = Backend {
                    address: address(*first),
                    port: number.to_be_bytes(),
                    flags: if is_local { BACKEND_LOCAL } else { 0 },
                };
                Some(Candidate { backend, endpoint })
            })
        });
        select::unique(candidates.collect())
    }
}
