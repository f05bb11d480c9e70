//! Which devices are uplinks, which lead to pods, and which addresses are the node's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    IPVS_DEVICE,
    netlink::{Device, Node},
};
use crate::attach::{Attached, Devices, Role};

/// What the programs are to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Every address others can dial.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Those of them the Node object has, and others it has.
    pub(super) own: Vec<IpAddr>,
    /// Devices with programs, by index.
    pub(super) devices: BTreeMap<u32, Attached>,
    /// Devices that were asked for, or would be uplinks, and why they cannot be.
    pub(super) unusable: BTreeMap<String, &'static str>,
    /// Towards other nodes, where the kernel does not say which address a route has.
    pub(super) source_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub(super) source_v6: Option<IpAddr>,
}

/// `own` are the addresses of the Node object.
pub(super) fn view(node: &Node, devices: &Devices, own: &[IpAddr]) -> View {
    let is_ipvs = |index: &u32| node.devices.get(index).is_some_and(|d| d.name == IPVS_DEVICE);
    let addresses = node.addresses.iter().filter(|(index, _)| !is_ipvs(index));
    let mut view = View {
        addresses: addresses.map(|(_, ip)| *ip).collect(),
        own: own.to_vec(),
        source_v4: source(node, own, IpAddr::is_ipv4),
        source_v6: source(node, own, IpAddr::is_ipv6),
        ..View::default()
    };
    for (index, device) in &node.devices {
        let role = if is_wanted(node, devices, own, *index, device) {
            Role::Uplink
        } else if device.is_up && device.is_pods && device.is_ethernet {
            Role::Pod
        } else {
            continue;
        };
        let name = device.name.clone();
        match problem(device) {
            None => drop(view.devices.insert(*index, Attached { name, role })),
            Some(problem) => drop(view.unusable.insert(name, problem)),
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

/// Automatically: what carries a default route, what holds an address of the Node object, and
/// overlays, over which other nodes' pods are reached. Pods' own devices are none of these.
fn is_wanted(node: &Node, devices: &Devices, own: &[IpAddr], index: u32, device: &Device) -> bool {
    let Devices::List(names) = devices else {
        let holds_own = || own.iter().any(|ip| node.addresses.contains(&(index, *ip)));
        return device.is_up
            && !device.is_loopback
            && (node.default_routes.contains(&index) || device.is_overlay || holds_own());
    };
    names.contains(&device.name)
}

fn problem(device: &Device) -> Option<&'static str> {
    if device.is_loopback {
        return Some("loopback: nothing arrives there from outside");
    }
    (!device.is_ethernet).then_some("its packets have no Ethernet header")
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

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: Device = Device {
        name: String::new(),
        is_up: true,
        is_loopback: false,
        is_ethernet: true,
        is_overlay: false,
        is_pods: false,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// lo, eth0 (default route), eth1 (second network), veth1 (a pod), flannel.1, wg0.
    fn node() -> Node {
        let named = |name: &str, device: Device| Device { name: name.into(), ..device };
        Node {
            devices: BTreeMap::from([
                (1, named("lo", Device { is_loopback: true, is_ethernet: false, ..ETHERNET })),
                (2, named("eth0", ETHERNET)),
                (3, named("eth1", ETHERNET)),
                (4, named("veth1", Device { is_pods: true, ..ETHERNET })),
                (5, named("flannel.1", Device { is_overlay: true, ..ETHERNET })),
                (6, named("wg0", Device { is_ethernet: false, ..ETHERNET })),
            ]),
            addresses: BTreeSet::from([
                (2, ip("192.168.0.2")),
                (2, ip("2001:db8::2")),
                (3, ip("172.20.0.2")),
                (4, ip("10.244.0.1")),
                (6, ip("10.8.0.1")),
            ]),
            default_routes: BTreeSet::from([2]),
        }
    }

    fn names(view: &View) -> Vec<&str> {
        view.named(Role::Uplink).collect()
    }

    #[test]
    fn uplinks_carry_default_routes_own_addresses_or_overlays() {
        let list = |names: &[&str]| Devices::List(names.iter().copied().map(Into::into).collect());
        let cases = [
            (Devices::Auto, vec![], vec!["eth0", "flannel.1"], vec![]),
            (Devices::Auto, vec!["172.20.0.2"], vec!["eth0", "eth1", "flannel.1"], vec![]),
            (Devices::Auto, vec!["10.8.0.1"], vec!["eth0", "flannel.1"], vec!["wg0"]),
            // An address of the Node object that no device holds.
            (Devices::Auto, vec!["203.0.113.7"], vec!["eth0", "flannel.1"], vec![]),
            (list(&["eth1"]), vec!["192.168.0.2"], vec!["eth1"], vec![]),
            (list(&["lo", "eth9"]), vec![], vec![], vec!["eth9", "lo"]),
        ];
        for (devices, own, uplinks, unusable) in cases {
            let own: Vec<IpAddr> = own.into_iter().map(ip).collect();
            let view = view(&node(), &devices, &own);
            assert_eq!(names(&view), uplinks, "{devices:?} {own:?}");
            assert_eq!(view.named(Role::Pod).collect::<Vec<_>>(), ["veth1"]);
            assert_eq!(view.unusable.keys().collect::<Vec<_>>(), unusable, "{devices:?} {own:?}");
        }
    }

    /// In mode ipvs kube-proxy puts every Service's address on a device: thousands, and none is the
    /// node's.
    #[test]
    fn addresses_that_ipvs_left_are_no_addresses_of_the_node() {
        let mut node = node();
        node.devices.insert(9, Device { name: "kube-ipvs0".into(), ..ETHERNET });
        let services = (0..10_000u32).map(|n| (9, IpAddr::from((0x0a60_0000 + n).to_be_bytes())));
        node.addresses.extend(services.chain([(9, ip("172.20.0.2"))]));
        let with = view(&node, &Devices::Auto, &[]);
        assert_eq!(with.addresses, view(&self::node(), &Devices::Auto, &[]).addresses);
    }

    #[test]
    fn of_too_many_addresses_those_that_matter_most_stay() {
        let own = ["10.8.0.1", "203.0.113.7"].map(ip);
        let view = view(&node(), &Devices::Auto, &own);
        let all = ["10.244.0.1", "10.8.0.1", "172.20.0.2", "192.168.0.2", "2001:db8::2"];
        for (max, expected, left_out) in [
            (9, &all[..], 0),
            (5, &all[..], 0),
            (3, &["10.244.0.1", "10.8.0.1", "2001:db8::2"][..], 2),
            (2, &["10.8.0.1", "2001:db8::2"][..], 3),
            (1, &["10.8.0.1"][..], 4),
            (0, &[][..], 5),
        ] {
            let mut expected: Vec<IpAddr> = expected.iter().copied().map(ip).collect();
            expected.sort_unstable();
            let (taken, rest) = view.addresses_within(max);
            assert_eq!(
                (taken.into_iter().collect::<Vec<_>>(), rest),
                (expected, left_out),
                "{max}"
            );
        }
    }

    #[test]
    fn a_pair_that_carries_the_default_route_is_an_uplink() {
        let mut node = node();
        node.default_routes.insert(4);
        let view = view(&node, &Devices::Auto, &[]);
        assert_eq!(names(&view), ["eth0", "veth1", "flannel.1"]);
        assert_eq!(view.named(Role::Pod).count(), 0);
    }

    #[test]
    fn devices_that_are_down_wait() {
        let mut node = node();
        node.devices.get_mut(&2).unwrap().is_up = false;
        assert_eq!(names(&view(&node, &Devices::Auto, &[])), ["flannel.1"]);
    }

    #[test]
    fn source_addresses_prefer_the_node_object() {
        let cases = [
            (vec![], Some("192.168.0.2"), Some("2001:db8::2")),
            (vec!["172.20.0.2"], Some("172.20.0.2"), Some("2001:db8::2")),
            (vec!["203.0.113.7", "10.8.0.1"], Some("10.8.0.1"), Some("2001:db8::2")),
        ];
        for (own, v4, v6) in cases {
            let own: Vec<IpAddr> = own.into_iter().map(ip).collect();
            let view = view(&node(), &Devices::Auto, &own);
            assert_eq!((view.source_v4, view.source_v6), (v4.map(ip), v6.map(ip)), "{own:?}");
        }
    }
}
