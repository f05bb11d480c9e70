//! Service ranges that hold addresses of others.
//!
//! What is in a Service range and no Service's is dropped. Where nodes or pods are in it that would take them off the network:
//! kubeadm's 10.96.0.0/12 reaches to 10.111.255.255, and kube-proxy has no opinion on what is not allotted. Of other nodes'
//! addresses an agent knows the API server's alone, without which its own node is lost.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use fairlead_state::{Key, Snapshot};
use ipnetwork::IpNetwork;

/// The Service in front of the API server, which keeps its endpoints itself.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// What a Service range holds that can be no Service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// An address of a node.
    Node(IpAddr),
    /// A range of a node's pods.
    Pods(IpNetwork),
    /// An address of the API server, on whichever node.
    ApiServer(IpAddr),
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(ip) => write!(f, "{ip}, a node's address"),
            Self::Pods(range) => write!(f, "{range}, a node's pods"),
            Self::ApiServer(ip) => write!(f, "the API server's address {ip}"),
        }
    }
}

/// The first of a node's addresses and ranges of pods, and of the API server's addresses, that lies in the Service range
/// `range`, or of ranges one that it lies in.
pub fn occupant(
    range: IpNetwork,
    addresses: impl IntoIterator<Item = IpAddr>,
    pods: &[IpNetwork],
    api_servers: &BTreeSet<IpAddr>,
) -> Option<Occupant> {
    let address = addresses.into_iter().find(|ip| range.contains(*ip)).map(Occupant::Node);
    let overlaps = |pods: &&IpNetwork| range.contains(pods.ip()) || pods.contains(range.ip());
    let api_server = || api_servers.iter().find(|ip| range.contains(**ip)).copied();
    address
        .or_else(|| pods.iter().find(overlaps).copied().map(Occupant::Pods))
        .or_else(|| api_server().map(Occupant::ApiServer))
}

/// Where the API server is: whatever its own Service leads to, ready or not.
pub fn api_servers(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let (namespace, name) = API_SERVER;
    let service = Key::new(namespace, name);
    let endpoints = snapshot.slices_of(&service).flat_map(|slice| slice.endpoints.iter());
    endpoints.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fairlead_state::{
        Change, Object, Store,
        model::{Endpoint, EndpointSlice, Rare},
    };

    use super::*;

    #[test]
    fn a_range_is_others_by_an_address_by_pods_or_by_the_api_server_of_its_family() {
        for (range, addresses, pods, api_servers, found) in [
            ("10.96.0.0/12", "192.168.0.2 2001:db8::2", "10.244.0.0/24", "192.168.0.1", None),
            (
                "10.96.0.0/12",
                "192.168.0.2 10.100.0.2",
                "",
                "",
                Some("10.100.0.2, a node's address"),
            ),
            ("10.96.0.0/12", "", "10.100.3.0/24", "", Some("10.100.3.0/24, a node's pods")),
            ("10.100.3.0/26", "", "10.100.0.0/16", "", Some("10.100.0.0/16, a node's pods")),
            ("10.96.0.0/12", "10.112.0.1", "10.112.0.0/24", "10.112.0.2", None),
            ("fd00:96::/112", "10.96.0.1 fd00:96::9", "", "", Some("fd00:96::9, a node's address")),
            ("::/0", "10.100.0.2", "10.244.0.0/24", "10.100.0.2", None),
            (
                "10.96.0.0/12",
                "192.168.0.3",
                "10.244.0.0/24",
                "192.168.0.1 10.100.0.2",
                Some("the API server's address 10.100.0.2"),
            ),
            // On the API server's own node.
            ("10.96.0.0/12", "10.100.0.2", "", "10.100.0.2", Some("10.100.0.2, a node's address")),
        ] {
            let parsed = |list: &'static str| {
                list.split_whitespace().map(|ip| -> IpAddr { ip.parse().unwrap() })
            };
            let pods: Vec<IpNetwork> =
                pods.split_whitespace().map(|range| range.parse().unwrap()).collect();
            let api_servers = parsed(api_servers).collect();
            let occupant = occupant(range.parse().unwrap(), parsed(addresses), &pods, &api_servers);
            assert_eq!(occupant.map(|by| by.to_string()).as_deref(), found, "{range}");
        }
    }

    #[test]
    fn the_api_server_is_where_its_own_service_leads_ready_or_not() {
        let slice = |namespace: &str, service: &str, name: &str, address: &str, ready: bool| {
            let address: IpAddr = address.parse().unwrap();
            let endpoint = Endpoint {
                addresses: [address].into(),
                hostname: None,
                node_name: None,
                zone: None,
                hints: Rare::default(),
                pod: None,
                ready,
                serving: ready,
                terminating: false,
            };
            Change::Upsert(Object::EndpointSlice(Arc::new(EndpointSlice {
                key: Key::new(namespace, name),
                service: Key::new(namespace, service),
                ipv6: address.is_ipv6(),
                ports: Arc::default(),
                endpoints: [endpoint].into(),
                headless_label: false,
                trigger_time_ms: None,
                import: None,
                left_out: None,
            })))
        };
        let (mut store, snapshots) = Store::new([]);
        store.apply([
            slice("default", "kubernetes", "kubernetes", "10.100.0.2", true),
            slice("default", "kubernetes", "kubernetes-2", "fd00:96::2", false),
            slice("default", "web", "web-1", "10.100.0.3", true),
            slice("shop", "kubernetes", "kubernetes-1", "10.100.0.4", true),
        ]);
        let snapshot = snapshots.borrow().clone().unwrap();
        let found: Vec<String> = api_servers(&snapshot).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.100.0.2", "fd00:96::2"]);
    }
}
