//! Which devices are uplinks, which lead to pods, and which addresses are the node's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fairlead_ebpf::abi::BARE_DEVICES_MAX;
use ipnetwork::IpNetwork;

use super::{
    IPVS_DEVICE, Told,
    netlink::{Device, Framing, Kind, Node},
};
use crate::attach::{Attached, Devices, Role};

#[cfg(test)]
mod tests;

/// What the programs are to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Every address others can dial.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Those of them the Node object has, and others it has.
    pub(super) own: Vec<IpAddr>,
    /// Devices with programs, by index.
    pub(super) devices: BTreeMap<u32, Attached>,
    /// Those of them whose packets have no Ethernet header.
    pub(super) bare: BTreeSet<u32>,
    /// Devices that were asked for, or would be uplinks, and why they cannot be.
    pub(super) unusable: BTreeMap<String, &'static str>,
    /// Towards other nodes, where the kernel does not say which address a route has.
    pub(super) source_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub(super) source_v6: Option<IpAddr>,
}

pub(super) fn view(node: &Node, devices: &Devices, told: &Told) -> View {
    let own = &told.addresses;
    let is_ipvs = |index: &u32| node.devices.get(index).is_some_and(|d| d.name == IPVS_DEVICE);
    let addresses = node.addresses.iter().filter(|(index, _)| !is_ipvs(index));
    let mut view = View {
        addresses: addresses.map(|(_, ip)| *ip).collect(),
        own: own.clone(),
        source_v4: source(node, own, IpAddr::is_ipv4),
        source_v6: source(node, own, IpAddr::is_ipv6),
        ..View::default()
    };
    for (index, device) in &node.devices {
        let role = if is_wanted(node, devices, told, *index, device) {
            Role::Uplink
        } else if device.is_up && device.kind == Kind::Pod && device.framing == Framing::Ethernet {
            Role::Pod
        } else {
            continue;
        };
        let name = device.name.clone();
        if let Some(problem) = problem(device, view.bare.len()) {
            view.unusable.insert(name, problem);
            continue;
        }
        view.devices.insert(*index, Attached { name, role });
        if device.framing == Framing::Bare {
            view.bare.insert(*index);
        }
    }
    if let Devices::List(names) = devices {
        let found: BTreeSet<&String> = node.devices.values().map(|device| &device.name).collect();
        let missing = names.iter().filter(|name| !found.contains(name));
        view.unusable.extend(missing.map(|name| (name.clone(), "there is no such device")));
    }
    view
}

impl View {
    /// Names of the devices of one kind.
    pub(super) fn named(&self, role: Role) -> impl Iterator<Item = &str> {
        let devices = self.devices.values();
        devices.filter(move |device| device.role == role).map(|device| device.name.as_str())
    }

    /// At most so many of the node's addresses, and how many are left out. Those of the Node object
    /// and those that source translation uses come first.
    pub(super) fn addresses_within(&self, max: usize) -> (BTreeSet<IpAddr>, usize) {
        let first = self.own.iter().chain(&self.source_v4).chain(&self.source_v6);
        let first = first.filter(|ip| self.addresses.contains(ip));
        let mut taken = BTreeSet::new();
        for ip in first.chain(&self.addresses) {
            if taken.len() == max {
                break;
            }
            taken.insert(*ip);
        }
        let left_out = self.addresses.len() - taken.len();
        (taken, left_out)
    }
}

/// Automatically: what carries a default route, what holds an address of the Node object, overlays, over
/// which other nodes' pods are reached, and whatever else others can reach an address of this node by.
fn is_wanted(node: &Node, devices: &Devices, told: &Told, index: u32, device: &Device) -> bool {
    let Devices::List(names) = devices else {
        let holds_own = || told.addresses.iter().any(|ip| node.addresses.contains(&(index, *ip)));
        return device.is_up
            && !device.is_loopback
            && (node.default_routes.contains(&index)
                || device.kind == Kind::Overlay
                || holds_own()
                || leads_outward(node, told, index, device));
    };
    names.contains(&device.name)
}

/// Whether strangers are at its other end. A network plugin gives its end of a pod's device no address, or one
/// without neighbours, or one of the pods' range; what has a network of its own leads to a network.
fn leads_outward(node: &Node, told: &Told, index: u32, device: &Device) -> bool {
    let has_address = || node.addresses.iter().any(|(at, _)| *at == index);
    let has_network = || {
        let mut networks = node.networks.iter().filter(|(at, _)| *at == index);
        let is_pods =
            |network: &IpNetwork| told.pod_cidrs.iter().any(|of| of.contains(network.ip()));
        networks.any(|(_, network)| !is_pods(network))
    };
    let is_port = |port: &Device| port.master == Some(index) && port.kind == Kind::Wire;
    match device.kind {
        // What has neither header would only be told of (InfiniBand).
        Kind::Wire => device.framing != Framing::Other && has_address(),
        // Nobody runs a pod behind a TUN device.
        Kind::Pod if device.framing == Framing::Bare => has_address(),
        Kind::Pod => device.master.is_none() && has_network(),
        Kind::Bridge => has_address() && node.devices.values().any(is_port),
        Kind::Overlay | Kind::Other => false,
    }
}

/// `bare` devices without an Ethernet header have programs already.
fn problem(device: &Device, bare: usize) -> Option<&'static str> {
    if device.is_loopback {
        return Some("loopback: nothing arrives there from outside");
    }
    match device.framing {
        Framing::Ethernet => None,
        Framing::Bare if bare < BARE_DEVICES_MAX => None,
        Framing::Bare => Some("more devices without an Ethernet header than there is room for, 8"),
        Framing::Other => Some("its packets have neither an Ethernet nor an IP header"),
    }
}

/// An address of the Node object if the node has it, else of a default route's device.
fn source(node: &Node, own: &[IpAddr], is_family: fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let has = |ip: &&IpAddr| node.addresses.iter().any(|(_, found)| found == *ip);
    let named = own.iter().filter(|ip| is_family(ip)).find(has).copied();
    named.or_else(|| {
        let on_route = |index: &u32| node.default_routes.contains(index);
        let mut addresses = node.addresses.iter().filter(|(index, _)| on_route(index));
        addresses.find(|(_, ip)| is_family(ip)).map(|(_, ip)| *ip)
    })
}
