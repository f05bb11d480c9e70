use super::*;

const ETHERNET: Device = Device {
    name: String::new(),
    is_up: true,
    is_loopback: false,
    framing: Framing::Ethernet,
    kind: Kind::Wire,
    master: None,
    has_vlans: false,
    is_plugins: false,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn told(own: &[&str]) -> Told {
    let addresses = own.iter().copied().map(ip).collect();
    let pod_cidrs = ["10.244.0.0/24".parse().unwrap()].into();
    Told { addresses, pod_cidrs, ..Told::default() }
}

/// lo, eth0 (default route), eth1 (second network), veth1 (a pod), flannel.1, wg0.
fn node() -> Node {
    let mut node = Node::default();
    node.configured.default_routes.insert(2);
    let lo = Device { is_loopback: true, framing: Framing::Other, ..ETHERNET };
    let pod = Device { kind: Kind::Pod, ..ETHERNET };
    let overlay = Device { kind: Kind::Overlay, ..ETHERNET };
    let tunnel = Device { framing: Framing::Bare, ..overlay.clone() };
    add(&mut node, 1, "lo", lo, &[]);
    add(&mut node, 2, "eth0", ETHERNET, &["192.168.0.2/24", "2001:db8::2/64"]);
    add(&mut node, 3, "eth1", ETHERNET, &["172.20.0.2/24"]);
    add(&mut node, 4, "veth1", pod, &["10.244.0.1/32"]);
    add(&mut node, 5, "flannel.1", overlay, &[]);
    add(&mut node, 6, "wg0", tunnel, &["10.8.0.1/32"]);
    node
}

fn add(node: &mut Node, index: u32, name: &str, mut device: Device, addresses: &[&str]) {
    device.name = name.into();
    node.devices.insert(index, device);
    reach(&mut node.configured, index, addresses);
}

fn reach(by: &mut Reach, index: u32, addresses: &[&str]) {
    for address in addresses {
        let network: IpNetwork = address.parse().unwrap();
        by.addresses.insert((index, network.ip()));
        if network.prefix() < if network.is_ipv4() { 32 } else { 128 } {
            by.networks.insert((index, network));
        }
    }
}

/// With no device that has programs.
fn fresh(node: &Node, wanted: &Devices, told: &Told) -> View {
    view(node, wanted, told, &BTreeMap::new(), Moment::Start)
}

fn names(view: &View) -> Vec<&str> {
    view.named(Role::Uplink).collect()
}

#[test]
fn uplinks_are_what_others_can_reach_the_node_by_or_what_was_asked_for() {
    let list = |names: &[&str]| Devices::List(names.iter().copied().map(Into::into).collect());
    let all = vec!["eth0", "eth1", "flannel.1", "wg0"];
    let cases = [
        (Devices::Auto, vec![], all.clone(), vec![]),
        (Devices::Auto, vec!["172.20.0.2"], all.clone(), vec![]),
        // An address of the Node object that no device holds.
        (Devices::Auto, vec!["203.0.113.7"], all, vec![]),
        (list(&["eth1"]), vec!["192.168.0.2"], vec!["eth1"], vec![]),
        (list(&["wg0"]), vec![], vec!["wg0"], vec![]),
        (list(&["lo", "eth9"]), vec![], vec![], vec!["eth9", "lo"]),
    ];
    for (devices, own, uplinks, unusable) in cases {
        let view = fresh(&node(), &devices, &told(&own));
        assert_eq!(names(&view), uplinks, "{devices:?} {own:?}");
        assert_eq!(view.named(Role::Pod).collect::<Vec<_>>(), ["veth1"]);
        assert_eq!(view.unusable.keys().collect::<Vec<_>>(), unusable, "{devices:?} {own:?}");
        let is_bare = uplinks.contains(&"wg0");
        assert_eq!(view.bare.contains(&6), is_bare, "{devices:?}");
    }
}

/// From kube-proxy a NodePort answers at whatever device it is dialled by.
#[test]
fn a_device_beside_the_default_route_is_an_uplink_unless_pods_are_behind_it() {
    const PORT: u32 = 21;
    let of = |kind: Kind| Device { kind, ..ETHERNET };
    let tun = || Device { framing: Framing::Bare, ..of(Kind::Pod) };
    let on_bridge = || Device { master: Some(9), ..of(Kind::Pod) };
    let wire = || Device { master: Some(20), ..ETHERNET };
    let (uplink, pod, none) = (Some(Role::Uplink), Some(Role::Pod), None);
    for (what, device, addresses, port, role) in [
        ("a second card", ETHERNET, "192.0.2.2/24", None, uplink),
        ("one that only a storage protocol uses", ETHERNET, "", None, none),
        ("a second card of a kind or LXD node", of(Kind::Pod), "192.0.2.2/24", None, uplink),
        ("a VPN by TAP", of(Kind::Pod), "192.0.2.2/24", None, uplink),
        ("a VPN by TUN", tun(), "192.0.2.2/32", None, uplink),
        ("a pod's, by Calico", of(Kind::Pod), "", None, pod),
        ("a pod's, by ptp", of(Kind::Pod), "10.244.0.1/32", None, pod),
        ("a pod's, with its range's gateway", of(Kind::Pod), "10.244.0.1/24", None, pod),
        ("a pod's, on a bridge", on_bridge(), "", None, pod),
        ("a bridge to pods", of(Kind::Bridge), "192.0.2.1/24", Some(on_bridge()), none),
        ("a bridge with a card, at the card", of(Kind::Bridge), "192.0.2.2/24", Some(wire()), none),
        ("a bridge to other nodes' pods", of(Kind::Bridge), "", Some(wire()), none),
        ("addresses kept on a dummy", of(Kind::Other), "192.0.2.2/32", None, none),
    ] {
        let mut node = node();
        let addresses: Vec<&str> = addresses.split_whitespace().collect();
        add(&mut node, 20, "other", device, &addresses);
        node.devices.extend(port.map(|port| (PORT, port)));
        let view = fresh(&node, &Devices::Auto, &told(&[]));
        assert_eq!(view.devices.get(&20).map(|device| device.role), role, "{what}");
    }
}

/// At both, the bridge and its ports, a pod's packet was translated twice, and what answered it on the same bridge passed the
/// bridge's own device by: that answer came from a stranger.
#[test]
fn a_bridge_with_a_card_is_met_at_its_ports_each_by_what_it_is() {
    const BRIDGE: u32 = 20;
    let port = |letter: char| {
        let kind = match letter {
            'w' | 'd' => Kind::Wire,
            'p' => Kind::Pod,
            'v' => Kind::Overlay,
            _ => Kind::Other,
        };
        Device { kind, is_up: letter != 'd', master: Some(BRIDGE), ..ETHERNET }
    };
    let own = "192.0.2.2/24";
    // Ports: a card (w), one that is down (d), a pod or virtual machine (p), an overlay (v), others (o).
    for (what, wanted, has_vlans, address, ports, uplinks, pods) in [
        ("a card alone", "", false, own, "w", "p0", ""),
        ("card, pods, others", "", false, own, "pwpo", "p1 p3", "p0 p2"),
        ("a card that is down", "", false, own, "dp", "", "p1"),
        ("an overlay, by the Node's address", "", false, "192.0.2.9/24", "vp", "p0", "p1"),
        ("pods alone, by the Node's address", "", false, "192.0.2.9/24", "p", "br0", "p0"),
        ("VLANs: a port may see tags", "", true, own, "wp", "br0", "p1"),
        ("another network's", "", false, "", "wp", "", "p1"),
        ("by name", "br0", false, "", "wp", "p0", "p1"),
        ("by name, with a pair to outside", "br0 p0", false, own, "pp", "p0", "p1"),
        ("its card by name", "p0", false, own, "wp", "p0", "p1"),
    ] {
        let mut node = Node::default();
        let addresses: Vec<&str> = address.split_whitespace().collect();
        let bridge = Device { kind: Kind::Bridge, has_vlans, ..ETHERNET };
        add(&mut node, BRIDGE, "br0", bridge, &addresses);
        for (number, letter) in (0u32..).zip(ports.chars()) {
            add(&mut node, BRIDGE + 1 + number, &format!("p{number}"), port(letter), &[]);
        }
        let wanted: Vec<String> = wanted.split_whitespace().map(Into::into).collect();
        let devices = if wanted.is_empty() { Devices::Auto } else { Devices::List(wanted) };
        let view = fresh(&node, &devices, &told(&["192.0.2.9"]));
        assert_eq!(names(&view).join(" "), uplinks, "{what}");
        assert_eq!(view.named(Role::Pod).collect::<Vec<_>>().join(" "), pods, "{what}");
    }
}

/// A pod that sends Router Advertisements, where this namespace takes any: its device became an uplink, the node's own
/// packets could leave by it, and NodePorts answered at addresses of its choice.
#[test]
fn what_a_pod_advertises_makes_its_device_no_uplink_and_its_addresses_not_the_nodes() {
    const AT: u32 = 20;
    let of = |kind: Kind| Device { kind, ..ETHERNET };
    let on = |kind: Kind| Device { master: Some(AT), ..of(kind) };
    let (pod, uplink, none) = (Some(Role::Pod), Some(Role::Uplink), None);
    for (what, is_named, device, configured, port, role, is_believed) in [
        ("a pod's", false, of(Kind::Pod), "", None, pod, false),
        ("a pod's, on a bridge", false, on(Kind::Pod), "", None, pod, false),
        ("a pod's, by ptp", false, of(Kind::Pod), "10.244.0.1/32", None, pod, false),
        ("to pods", false, of(Kind::Bridge), "10.244.0.1/24", Some(on(Kind::Pod)), none, false),
        ("a bridge with a card", false, of(Kind::Bridge), "", Some(on(Kind::Wire)), none, true),
        ("a card", false, ETHERNET, "", None, uplink, true),
        ("an LXD node's, by IPv4", false, of(Kind::Pod), "192.0.2.2/24", None, uplink, true),
        ("by name", true, of(Kind::Pod), "", None, uplink, true),
    ] {
        let mut node = node();
        let configured: Vec<&str> = configured.split_whitespace().collect();
        add(&mut node, AT, "other", device, &configured);
        node.devices.extend(port.map(|port| (AT + 1, port)));
        node.configured.addresses.remove(&(2, ip("2001:db8::2")));
        reach(&mut node.advertised, AT, &["2001:db8:bad::2/64"]);
        node.advertised.default_routes.insert(AT);
        let devices = if is_named { Devices::List(vec!["other".into()]) } else { Devices::Auto };
        // The Node object may have it, from a kubelet that takes what it finds.
        let view = fresh(&node, &devices, &told(&["2001:db8:bad::2"]));
        assert_eq!(view.devices.get(&AT).map(|device| device.role), role, "{what}");
        let advertised = ip("2001:db8:bad::2");
        assert_eq!(view.addresses.contains(&advertised), is_believed, "{what}");
        assert_eq!(view.source_v6, is_believed.then_some(advertised), "{what}");
    }
}

/// In mode ipvs kube-proxy puts every Service's address on a device: thousands, and none is the
/// node's.
#[test]
fn addresses_that_ipvs_left_are_no_addresses_of_the_node() {
    let mut node = node();
    node.devices.insert(9, Device { name: "kube-ipvs0".into(), kind: Kind::Other, ..ETHERNET });
    let services = (0..10_000u32).map(|n| (9, IpAddr::from((0x0a60_0000 + n).to_be_bytes())));
    node.configured.addresses.extend(services.chain([(9, ip("172.20.0.2"))]));
    let with = fresh(&node, &Devices::Auto, &told(&[]));
    let without = fresh(&self::node(), &Devices::Auto, &told(&[]));
    assert_eq!((with.addresses, with.devices), (without.addresses, without.devices));
}

#[test]
fn of_too_many_addresses_those_that_matter_most_stay() {
    let view = fresh(&node(), &Devices::Auto, &told(&["10.8.0.1", "203.0.113.7"]));
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
        assert_eq!((taken.into_iter().collect::<Vec<_>>(), rest), (expected, left_out), "{max}");
    }
}

#[test]
fn a_pair_that_carries_the_default_route_or_the_nodes_address_is_an_uplink() {
    for (has_route, own) in [(true, vec![]), (false, vec!["10.244.0.1"])] {
        let mut node = node();
        node.configured.default_routes.extend(has_route.then_some(4));
        let view = fresh(&node, &Devices::Auto, &told(&own));
        assert_eq!(names(&view), ["eth0", "eth1", "veth1", "flannel.1", "wg0"]);
        assert_eq!(view.named(Role::Pod).count(), 0);
    }
}

/// A lease that is renewed, `ip link set down; up`: for a moment nothing says that it is an uplink. Where something says otherwise
/// what it was does not count.
#[test]
fn a_device_with_programs_keeps_them_where_nothing_says_otherwise() {
    const AT: u32 = 20;
    const MASTER: u32 = 30;
    let of = |kind: Kind| Device { kind, ..ETHERNET };
    let down = |device: Device| Device { is_up: false, ..device };
    let port = || Device { master: Some(MASTER), ..ETHERNET };
    let bridge = || Some((of(Kind::Bridge), ""));
    let bridge_in_use = || Some((of(Kind::Bridge), "192.0.2.2/24"));
    let with_vlans = || Some((Device { has_vlans: true, ..of(Kind::Bridge) }, "192.0.2.2/24"));
    let tun = || Device { framing: Framing::Bare, ..of(Kind::Pod) };
    let (uplink, pod, none) = (Some(Role::Uplink), Some(Role::Pod), None);
    let given_away = ["a bond, as yet without address", "a bridge, as yet without"];
    for (what, named, device, address, master, was, is) in [
        ("down", "", down(ETHERNET), "192.0.2.2/24", None, uplink, uplink),
        ("never one, and down", "", down(ETHERNET), "192.0.2.2/24", None, none, none),
        ("no address", "", ETHERNET, "", None, uplink, uplink),
        ("never one, no address", "", ETHERNET, "", None, none, none),
        ("an overlay that is down", "", down(of(Kind::Overlay)), "", None, uplink, uplink),
        ("a VPN by TUN, no address", "", tun(), "", None, uplink, uplink),
        ("a macvlan that had the Node's address", "", of(Kind::Other), "", None, uplink, uplink),
        (
            "a bond that has it all now",
            "",
            port(),
            "",
            Some((ETHERNET, "192.0.2.2/24")),
            uplink,
            none,
        ),
        ("a bond, as yet without address", "", port(), "", Some((ETHERNET, "")), uplink, uplink),
        ("the same, down", "", down(port()), "", Some((ETHERNET, "")), uplink, uplink),
        ("a bond that is down", "", port(), "", Some((down(ETHERNET), "")), uplink, uplink),
        ("a bridge, as yet without", "", port(), "", bridge(), uplink, uplink),
        ("a bridge, met at its ports", "", port(), "", bridge_in_use(), uplink, uplink),
        ("the same, down", "", down(port()), "", bridge_in_use(), uplink, uplink),
        ("a bridge of VLANs, met itself", "", port(), "", with_vlans(), uplink, none),
        ("not named", "eth0", ETHERNET, "192.0.2.2/24", None, uplink, none),
        ("named, and down", "it", down(ETHERNET), "", None, uplink, uplink),
        (
            "its bridge is named, and it is down",
            "master",
            down(port()),
            "",
            bridge(),
            uplink,
            uplink,
        ),
        (
            "a pod's, once taken for an uplink",
            "",
            of(Kind::Pod),
            "10.244.0.1/24",
            None,
            uplink,
            pod,
        ),
        ("a pod's, down", "", down(of(Kind::Pod)), "", None, pod, pod),
        ("a pair that leads nowhere else any more", "", of(Kind::Other), "", None, pod, none),
    ] {
        let mut node = node();
        let addresses = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
        let is_bare = device.framing == Framing::Bare;
        add(&mut node, AT, "it", device, &addresses(address));
        if let Some((device, address)) = master {
            add(&mut node, MASTER, "master", device, &addresses(address));
        }
        let devices = match named {
            "" => Devices::Auto,
            name => Devices::List(vec![name.into()]),
        };
        let served = was.map(|role| (AT, role)).into_iter().collect();
        let at_start = view(&node, &devices, &told(&[]), &served, Moment::Start);
        // While it runs the master may get an address yet; who starts may be the first to look for weeks.
        let is_given_away = given_away.contains(&what);
        let expected = if is_given_away { none } else { is };
        let role = |view: &View| view.devices.get(&AT).map(|device| device.role);
        assert_eq!(role(&at_start), expected, "{what}, at a start");
        let view = view(&node, &devices, &told(&[]), &served, Moment::Later);
        assert_eq!(role(&view), is, "{what}, while running");
        assert_eq!(view.bare.contains(&AT), is_bare, "{what}");
        let held = address.split('/').next().filter(|address| !address.is_empty());
        assert_eq!(
            view.addresses.iter().any(|ip| ip.to_string() == *held.unwrap_or("-")),
            held.is_some(),
            "{what}"
        );
    }
    // It is gone, or in another namespace.
    let served = [(AT, Role::Uplink)].into();
    for moment in [Moment::Start, Moment::Later] {
        let view = view(&node(), &Devices::Auto, &told(&[]), &served, moment);
        assert!(!view.devices.contains_key(&AT), "{moment:?}");
    }
}

#[test]
fn devices_without_an_ethernet_header_that_are_in_use_have_room_before_those_that_were() {
    let mut node = node();
    let tunnel = |is_up| Device { framing: Framing::Bare, kind: Kind::Overlay, is_up, ..ETHERNET };
    for index in 30..40 {
        add(&mut node, index, &format!("tunl{index}"), tunnel(index >= 33), &[]);
    }
    let served = (30..40).map(|index| (index, Role::Uplink)).collect();
    let view = view(&node, &Devices::Auto, &told(&[]), &served, Moment::Later);
    assert!((33..40).chain([6]).all(|index| view.bare.contains(&index)), "{:?}", view.bare);
    assert_eq!(view.unusable.keys().collect::<Vec<_>>(), ["tunl30", "tunl31", "tunl32"]);
}

#[test]
fn devices_that_are_down_and_were_nothing_wait() {
    let mut node = node();
    for index in [2, 4, 6] {
        node.devices.get_mut(&index).unwrap().is_up = false;
    }
    let view = fresh(&node, &Devices::Auto, &told(&[]));
    assert_eq!(names(&view), ["eth1", "flannel.1"]);
    assert_eq!((view.named(Role::Pod).count(), view.bare.len()), (0, 0));
}

#[test]
fn devices_without_an_ethernet_header_beyond_the_room_for_them_are_named() {
    let mut node = node();
    let tunnel = Device { framing: Framing::Bare, kind: Kind::Overlay, ..ETHERNET };
    for index in 30..40 {
        add(&mut node, index, &format!("tunl{index}"), tunnel.clone(), &[]);
    }
    let view = fresh(&node, &Devices::Auto, &told(&[]));
    assert_eq!(view.bare.len(), BARE_DEVICES_MAX);
    assert_eq!(view.unusable.keys().collect::<Vec<_>>(), ["tunl37", "tunl38", "tunl39"]);
}

/// Of IPsec, GRE or a VPN, made as the node started: a network plugin's tunnel, made later, had no programs, and no NodePort
/// reached a pod of another node.
#[test]
fn bug_a_network_plugins_tunnel_has_room_before_eight_others_that_were_made_first() {
    const OTHERS: std::ops::Range<u32> = 10..18;
    let ipsec = Device { framing: Framing::Bare, kind: Kind::Overlay, ..ETHERNET };
    let tunnel = Device { is_plugins: true, ..ipsec.clone() };
    for (what, device, address, own, served, given) in [
        ("nothing has programs", &tunnel, "", "", vec![], &[17][..]),
        ("the tunnel has", &tunnel, "", "", vec![40], &[17]),
        ("all others have", &tunnel, "", "", OTHERS.collect(), &[17]),
        ("of others those that have stay", &tunnel, "", "", vec![40, 12, 17], &[16]),
        ("one more of them, which has", &ipsec, "", "", vec![40], &[17]),
        ("one more of them, which has none", &ipsec, "", "", vec![], &[40]),
        ("with the Node's address", &ipsec, "192.0.2.9/32", "192.0.2.9", vec![], &[17]),
    ] {
        let mut node = Node::default();
        for index in OTHERS {
            add(&mut node, index, &format!("d{index}"), ipsec.clone(), &[]);
        }
        let addresses: Vec<&str> = address.split_whitespace().collect();
        add(&mut node, 40, "d40", device.clone(), &addresses);
        let own: Vec<&str> = own.split_whitespace().collect();
        let served = served.into_iter().map(|index| (index, Role::Uplink)).collect();
        let view = view(&node, &Devices::Auto, &told(&own), &served, Moment::Start);
        let without: Vec<u32> =
            node.devices.into_keys().filter(|index| !view.bare.contains(index)).collect();
        assert_eq!(without, given, "{what}");
        let unusable = view.unusable.keys().collect::<Vec<_>>();
        assert_eq!(unusable, [&format!("d{}", given[0])], "{what}");
    }
}

/// Nobody was told, and NodePorts answered nobody who dialled them there.
#[test]
fn devices_whose_packets_programs_cannot_read_are_named_once_they_lead_to_somebody() {
    let of = |kind: Kind| Device { framing: Framing::Other, kind, ..ETHERNET };
    let down = Device { is_up: false, ..of(Kind::Overlay) };
    for (what, device, addresses, is_named) in [
        ("InfiniBand", of(Kind::Wire), &["192.0.2.2/24"][..], true),
        ("InfiniBand that only storage uses", of(Kind::Wire), &[], false),
        ("GRE to many", of(Kind::Overlay), &[], true),
        ("its fallback device", down, &[], false),
    ] {
        let mut node = node();
        add(&mut node, 20, "other", device, addresses);
        let view = fresh(&node, &Devices::Auto, &told(&[]));
        assert!(!view.devices.contains_key(&20), "{what}");
        assert_eq!(view.unusable.contains_key("other"), is_named, "{what}");
    }
}

#[test]
fn source_addresses_prefer_the_node_object() {
    let cases = [
        (vec![], Some("192.168.0.2"), Some("2001:db8::2")),
        (vec!["172.20.0.2"], Some("172.20.0.2"), Some("2001:db8::2")),
        (vec!["203.0.113.7", "10.8.0.1"], Some("10.8.0.1"), Some("2001:db8::2")),
    ];
    for (own, v4, v6) in cases {
        let view = fresh(&node(), &Devices::Auto, &told(&own));
        assert_eq!((view.source_v4, view.source_v6), (v4.map(ip), v6.map(ip)), "{own:?}");
    }
}

/// kubeadm's 10.96.0.0/12 with nodes, pods or hosts in 10.100.0.0/16 took them off the network.
#[test]
fn bug_a_service_range_is_others_where_their_networks_are_in_it() {
    let of = |kind: Kind| Device { kind, ..ETHERNET };
    let lo = Device { is_loopback: true, framing: Framing::Other, ..ETHERNET };
    for (what, device, address, own, pods, is_occupied) in [
        ("nothing", ETHERNET, "192.0.2.2/24", "", "10.244.0.0/24", false),
        ("a card", ETHERNET, "10.100.0.2/24", "", "10.244.0.0/24", true),
        ("a card without neighbours", ETHERNET, "10.100.0.2/32", "", "10.244.0.0/24", true),
        ("a bridge to pods", of(Kind::Bridge), "10.100.0.1/24", "", "10.244.0.0/24", true),
        ("the Node's address elsewhere", ETHERNET, "192.0.2.2/24", "10.100.0.2", "", true),
        ("pods", ETHERNET, "192.0.2.2/24", "", "10.100.0.0/24", true),
        ("a ClusterIP on a dummy", of(Kind::Other), "10.96.0.10/32", "", "", false),
        ("a ClusterIP on lo", lo, "10.96.0.10/32", "", "", false),
        ("a macvlan's network", of(Kind::Other), "10.100.0.2/24", "", "", true),
    ] {
        let mut node = node();
        add(&mut node, 20, "other", device, &[address]);
        let range: IpNetwork = "10.96.0.0/12".parse().unwrap();
        let told = Told {
            addresses: own.split_whitespace().map(ip).collect(),
            pod_cidrs: pods.split_whitespace().map(|range| range.parse().unwrap()).collect(),
            service_cidrs: [range, "fd00:96::/112".parse().unwrap()].into(),
            ..Told::default()
        };
        let occupied = fresh(&node, &Devices::Auto, &told).occupied;
        let expected = if is_occupied { vec![&range] } else { vec![] };
        assert_eq!(occupied.keys().collect::<Vec<_>>(), expected, "{what}");
    }
}

/// A worker at 192.168.0.3 dropped what it sent to its control plane at 10.100.0.2, which alone knew that it is in the range.
#[test]
fn bug_a_service_range_is_others_on_every_node_where_the_api_server_is_in_it() {
    let ranges: [IpNetwork; 2] =
        ["10.96.0.0/12", "fd00:96::/112"].map(|range| range.parse().unwrap());
    for (api_servers, occupied) in [
        (vec![], vec![]),
        (vec!["192.168.0.1", "2001:db8::1"], vec![]),
        (vec!["192.168.0.1", "10.100.0.2"], vec!["10.96.0.0/12"]),
        (vec!["10.100.0.2", "fd00:96::2"], vec!["10.96.0.0/12", "fd00:96::/112"]),
    ] {
        let told = Told {
            api_servers: api_servers.iter().copied().map(ip).collect(),
            service_cidrs: ranges.into(),
            ..told(&["192.168.0.3"])
        };
        let view = fresh(&node(), &Devices::Auto, &told);
        let found: Vec<String> = view.occupied.keys().map(ToString::to_string).collect();
        assert_eq!(found, occupied, "{api_servers:?}");
        let is_api_servers = |by: &Occupant| matches!(by, Occupant::ApiServer(_));
        assert!(view.occupied.values().all(is_api_servers), "{:?}", view.occupied);
        assert_eq!(view.own, [ip("192.168.0.3")], "they are none of the node's own");
    }
}
