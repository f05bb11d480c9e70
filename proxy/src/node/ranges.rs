//! Service ranges that hold addresses of others.
//!
//! What is in a Service range and no Service's is dropped. Where nodes or pods are in it that would take them off the network:
//! kubeadm's 10.96.0.0/12 reaches to 10.111.255.255, and kube-proxy has no opinion on what is not allotted.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;

/// What a Service range holds that can be no Service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// An address of a node.
    Node(IpAddr),
    /// A range of a node's pods.
    Pods(IpNetwork),
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(ip) => write!(f, "{ip}, a node's address"),
            Self::Pods(range) => write!(f, "{range}, a node's pods"),
        }
    }
}

/// The first of these addresses and ranges of pods that lies in the Service range `range`, or of ranges one that it lies in.
pub fn occupant(
    range: IpNetwork,
    addresses: impl IntoIterator<Item = IpAddr>,
    pods: &[IpNetwork],
) -> Option<Occupant> {
    let address = addresses.into_iter().find(|ip| range.contains(*ip)).map(Occupant::Node);
    let overlaps = |pods: &&IpNetwork| range.contains(pods.ip()) || pods.contains(range.ip());
    address.or_else(|| pods.iter().find(overlaps).copied().map(Occupant::Pods))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_others_by_an_address_or_by_pods_of_its_family() {
        for (range, addresses, pods, found) in [
            ("10.96.0.0/12", "192.168.0.2 2001:db8::2", "10.244.0.0/24", None),
            ("10.96.0.0/12", "192.168.0.2 10.100.0.2", "", Some("10.100.0.2, a node's address")),
            ("10.96.0.0/12", "", "10.100.3.0/24", Some("10.100.3.0/24, a node's pods")),
            ("10.100.3.0/26", "", "10.100.0.0/16", Some("10.100.0.0/16, a node's pods")),
            ("10.96.0.0/12", "10.112.0.1", "10.112.0.0/24", None),
            ("fd00:96::/112", "10.96.0.1 fd00:96::9", "", Some("fd00:96::9, a node's address")),
            ("::/0", "10.100.0.2", "10.244.0.0/24", None),
        ] {
            let addresses = addresses.split_whitespace().map(|ip| ip.parse().unwrap());
            let pods: Vec<IpNetwork> =
                pods.split_whitespace().map(|range| range.parse().unwrap()).collect();
            let occupant = occupant(range.parse().unwrap(), addresses, &pods);
            assert_eq!(occupant.map(|by| by.to_string()).as_deref(), found, "{range}");
        }
    }
}
