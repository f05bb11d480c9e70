//! Which devices are uplinks, which lead to pods, and which addresses are the node's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fairlead_ebpf::abi::BARE_DEVICES_MAX;
use ipnetwork::IpNetwork;

use super::{
    IPVS_DEVICE, Told,
    netlink::{Device, Framing, Kind, Node, Reach},
    ranges::{Occupant, occupant},
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
    /// Service ranges in which others have addresses, and who.
    pub(super) occupied: BTreeMap<IpNetwork, Occupant>,
    /// Towards other nodes, where the kernel does not say which address a route has.
    pub(super) source_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub(super) source_v6: Option<IpAddr>,
}

/// When the node is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// As an agent starts: what devices had from the one before may be long out of date.
    Start,
    /// While it runs: what a device is no more may pass.
    Later,
}

/// What roles are decided by.
struct Facts<'a> {
    devices: &'a BTreeMap<u32, Device>,
    /// As far as it is believed.
    reach: Reach,
    wanted: &'a Devices,
    told: &'a Told,
    served: &'a BTreeMap<u32, Role>,
    moment: Moment,
}

/// `served` are the devices that have programs, by index.
pub(super) fn view(
    node: &Node,
    wanted: &Devices,
    told: &Told,
    served: &BTreeMap<u32, Role>,
    moment: Moment,
) -> View {
    let facts = Facts::of(node, wanted, told, served, moment);
    let own = &told.addresses;
    let is_ipvs = |index: &u32| node.devices.get(index).is_some_and(|d| d.name == IPVS_DEVICE);
    let addresses = facts.reach.addresses.iter().filter(|(index, _)| !is_ipvs(index));
    let mut view = View {
        addresses: addresses.map(|(_, ip)| *ip).collect(),
        own: own.clone(),
        occupied: facts.occupied(),
        source_v4: source(&facts.reach, own, IpAddr::is_ipv4),
        source_v6: source(&facts.reach, own, IpAddr::is_ipv6),
        ..View::default()
    };
    let devices = || node.devices.iter().map(|(index, device)| (*index, device));
    let fitting = devices().map(|(index, device)| (index, device, facts.role(index, device)));
    let mut fitting: Vec<_> = fitting.collect();
    fitting.sort_by_key(|(index, device, _)| facts.place(*index, device));
    // Where there is no room for all, they come last.
    let kept = devices().map(|(index, device)| (index, device, facts.kept_role(index, device)));
    for (index, device, role) in fitting.into_iter().chain(kept) {
        let Some(role) = role else { continue };
        let name = device.name.clone();
        if let Some(problem) = problem(device, view.bare.len()) {
            view.unusable.insert(name, problem);
            continue;
        }
        view.devices.insert(index, Attached { name, role });
        if device.framing == Framing::Bare {
            view.bare.insert(index);
        }
    }
    if let Devices::List(names) = wanted {
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

impl<'a> Facts<'a> {
    /// A pod that sends Router Advertisements must not make an uplink of the device that leads to it, nor a way out of the
    /// node: what it says counts only where something else shows that no pod is there.
    fn of(
        node: &'a Node,
        wanted: &'a Devices,
        told: &'a Told,
        served: &'a BTreeMap<u32, Role>,
        moment: Moment,
    ) -> Self {
        let reach = node.configured.clone();
        let mut facts = Self { devices: &node.devices, reach, wanted, told, served, moment };
        let is_doubtful = |(index, device): &(&u32, &Device)| {
            facts.may_lead_to_pods(**index, device) && !facts.is_wanted(**index, device)
        };
        let doubtful: BTreeSet<u32> =
            node.devices.iter().filter(is_doubtful).map(|(index, _)| *index).collect();
        facts.reach.extend(&node.advertised, |index| !doubtful.contains(&index));
        facts
    }

    fn occupied(&self) -> BTreeMap<IpNetwork, Occupant> {
        let here =
            self.reach.addresses.iter().filter(|(index, ip)| self.is_of_a_network(*index, *ip));
        let all: BTreeSet<IpAddr> =
            here.map(|(_, ip)| *ip).chain(self.told.addresses.iter().copied()).collect();
        let Told { pod_cidrs, api_servers, service_cidrs, .. } = self.told;
        let found = service_cidrs.iter().filter_map(|range| {
            Some((*range, occupant(*range, all.iter().copied(), pod_cidrs, api_servers)?))
        });
        found.collect()
    }

    /// Whether others have addresses beside this one. A ClusterIP that is kept on a dummy says nothing of its range: NodeLocal
    /// DNSCache and kube-router do so, and kube-proxy's mode ipvs.
    fn is_of_a_network(&self, index: u32, ip: IpAddr) -> bool {
        let mut networks = self.reach.networks.iter();
        networks.any(|(at, network)| *at == index && network.ip() == ip)
            || self
                .devices
                .get(&index)
                .is_some_and(|device| device.kind != Kind::Other && !device.is_loopback)
    }

    fn may_lead_to_pods(&self, index: u32, device: &Device) -> bool {
        match device.kind {
            Kind::Pod => true,
            Kind::Bridge => !self.ports(index).any(|(_, port)| port.kind == Kind::Wire),
            Kind::Wire | Kind::Overlay | Kind::Other => false,
        }
    }

    fn ports(&self, bridge: u32) -> impl Iterator<Item = (u32, &Device)> {
        let ports = self.devices.iter().filter(move |(_, port)| port.master == Some(bridge));
        ports.map(|(index, port)| (*index, port))
    }

    /// What a device is for as things are.
    fn role(&self, index: u32, device: &Device) -> Option<Role> {
        if self.is_met_at_its_ports(index) {
            None
        } else if self.is_wanted(index, device) {
            Some(Role::Uplink)
        } else if device.is_up && device.is_pods() {
            Some(Role::Pod)
        } else {
            (device.is_up && self.is_served_port(device)).then_some(Role::Uplink)
        }
    }

    /// What a device is still for that was for something and is for nothing now: it is down, or has no address any more. Both
    /// pass (a lease that is renewed, a network manager that starts anew, a bond or a virtual function that is made anew), and
    /// without programs what comes by open connections is the node's own stack's, which resets them. Where it is for good,
    /// programs without an address of the node to meet do nothing: addresses are followed at once. Not where another has its
    /// packets: they would be translated twice; nor against a list of names; nor, as an agent starts, on a port of what is up
    /// and for nothing: a card that was given to a bridge of virtual machines, whose frames are none of the node's. That it has
    /// programs is how an agent that starts knows; they end with the device, and with its leaving this namespace. (Cilium takes
    /// them away, in removeObsoleteNetdevPrograms, from whatever is down or without an address.)
    fn kept_role(&self, index: u32, device: &Device) -> Option<Role> {
        let role = *self.served.get(&index)?;
        let has_own = |master: u32| {
            self.devices.get(&master).is_some_and(|device| self.role(master, device).is_some())
        };
        let is_given_away = |master: u32| {
            self.moment == Moment::Start
                && device.is_up
                && self.devices.get(&master).is_some_and(|device| device.is_up)
        };
        let is_others = self.is_met_at_its_ports(index)
            || device.master.is_some_and(|master| has_own(master) || is_given_away(master));
        let is_unlisted = matches!(self.wanted, Devices::List(_)) && !self.is_served_port(device);
        let is_kept = match role {
            Role::Uplink => !is_others && !is_unlisted,
            Role::Pod => device.is_pods(),
        };
        (is_kept && self.role(index, device).is_none()).then_some(role)
    }

    fn is_served_port(&self, device: &Device) -> bool {
        device.master.is_some_and(|master| self.is_met_at_its_ports(master))
    }

    /// Whether this is a bridge that has programs at its ports in its own stead. A pod's packets have been translated at its
    /// port, and would be again at the bridge, with no way back: what is on the same bridge answers past it. At the ports they
    /// come and go by the same one. Behind a bridge of VLANs a port may see tags that the programs leave alone.
    fn is_met_at_its_ports(&self, index: u32) -> bool {
        let leads_out = |(index, port): (u32, &Device)| {
            matches!(port.kind, Kind::Wire | Kind::Overlay) || self.is_wanted(index, port)
        };
        self.devices.get(&index).is_some_and(|device| {
            device.kind == Kind::Bridge
                && !device.has_vlans
                && self.is_wanted(index, device)
                && self.ports(index).any(leads_out)
        })
    }

    /// Who comes before whom where there is no room for all. The way out and what leads to other nodes' pods come before whatever
    /// was there first, as devices of IPsec, GRE and VPNs are that were made as the node started; those that have programs
    /// already, before the others.
    fn place(&self, index: u32, device: &Device) -> (bool, bool, bool, u32) {
        let is_main = self.reach.default_routes.contains(&index) || self.holds_own(index);
        (!is_main, !device.is_plugins, !self.served.contains_key(&index), index)
    }

    fn holds_own(&self, index: u32) -> bool {
        self.told.addresses.iter().any(|ip| self.reach.addresses.contains(&(index, *ip)))
    }

    /// Automatically: what carries a default route, what holds an address of the Node object, overlays, over
    /// which other nodes' pods are reached, and whatever else others can reach an address of this node by.
    fn is_wanted(&self, index: u32, device: &Device) -> bool {
        let Devices::List(names) = self.wanted else {
            return device.is_up
                && !device.is_loopback
                && (self.reach.default_routes.contains(&index)
                    || device.kind == Kind::Overlay
                    || self.holds_own(index)
                    || self.leads_outward(index, device));
        };
        names.contains(&device.name)
    }

    /// Whether strangers are at its other end. A network plugin gives its end of a pod's device no address, or one
    /// without neighbours, or one of the pods' range; what has a network of its own leads to a network.
    fn leads_outward(&self, index: u32, device: &Device) -> bool {
        let has_address = || self.reach.addresses.iter().any(|(at, _)| *at == index);
        let has_network = || {
            let mut networks = self.reach.networks.iter().filter(|(at, _)| *at == index);
            let is_pods = |network: &IpNetwork| {
                self.told.pod_cidrs.iter().any(|of| of.contains(network.ip()))
            };
            networks.any(|(_, network)| !is_pods(network))
        };
        match device.kind {
            Kind::Wire => has_address(),
            Kind::Pod if !device.is_pods() => has_address(),
            Kind::Pod => device.master.is_none() && has_network(),
            Kind::Bridge => {
                has_address() && self.ports(index).any(|(_, port)| port.kind == Kind::Wire)
            }
            Kind::Overlay | Kind::Other => false,
        }
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
        Framing::Other => Some("its packets begin with neither an Ethernet nor an IP header"),
    }
}

/// An address of the Node object if the node has it, else of a default route's device.
fn source(reach: &Reach, own: &[IpAddr], is_family: fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let has = |ip: &&IpAddr| reach.addresses.iter().any(|(_, found)| found == *ip);
    let named = own.iter().filter(|ip| is_family(ip)).find(has).copied();
    named.or_else(|| {
        let on_route = |index: &u32| reach.default_routes.contains(index);
        let mut addresses = reach.addresses.iter().filter(|(index, _)| on_route(index));
        addresses.find(|(_, ip)| is_family(ip)).map(|(_, ip)| *ip)
    })
}
