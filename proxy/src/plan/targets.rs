//! Endpoints by the port they serve.

use std::{collections::BTreeSet, sync::Arc};

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
pub(crate) struct Targets<'a>(Vec<Target<'a>>);

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
    pub(crate) fn of(slices: impl IntoIterator<Item = &'a Arc<EndpointSlice>>) -> Self {
        let meant = slices.into_iter().filter(|slice| !slice.headless_label);
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
        candidates(self.0.iter().skip(first).take_while(|target| target.key() == key), &node.name)
    }

    /// How many addresses of one family are ready on the node, whatever port they serve.
    pub(crate) fn ready_on(&self, node_name: &str, is_ipv6: bool) -> usize {
        let ports = self.0.chunk_by(|one, other| one.key() == other.key());
        let of_family = ports.filter(|of_port| of_port.iter().all(|t| t.slice.ipv6 == is_ipv6));
        let all = of_family.flat_map(|of_port| candidates(of_port, node_name));
        let ready = all.filter(|c| c.is_local() && c.endpoint.ready);
        ready.map(|c| c.backend.address).collect::<BTreeSet<_>>().len()
    }
}

/// The endpoints behind targets of one port, each address and port once.
fn candidates<'a: 't, 't>(
    targets: impl IntoIterator<Item = &'t Target<'a>>,
    node_name: &str,
) -> Vec<Candidate<'a>> {
    let candidates = targets.into_iter().flat_map(|Target { slice, number, .. }| {
        slice.endpoints.iter().filter_map(move |endpoint| {
            // discovery.k8s.io/v1 defines no meaning for addresses after the first.
            let first = endpoint.addresses.first()?;
            let is_local = endpoint.node_name.as_deref() == Some(node_name);
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
