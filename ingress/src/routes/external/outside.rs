//! Which of a name's addresses somebody may be led to, and in what order they are asked.
//!
//! Names are those of Services of type ExternalName, and those of URLs that Ingresses have requests asked about,
//! or copied to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnetwork::IpNetwork;

use super::{
    Looked,
    interfaces::{Interfaces, Own},
};

/// Its addresses are the node's own in any case: allowing it means that.
const LOCALHOST: &str = "localhost";
/// Where clouds tell a machine its secrets, beside the link-local 169.254.169.254: Alibaba's and Azure's.
const METADATA_V4: [Ipv4Addr; 2] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// Amazon's services of the link, fd00:ec2::254 among them; no VPC has addresses of it.
const METADATA_V6: [u16; 2] = [0xfd00, 0x0ec2];
const ONLY_INSIDE: &str =
    "it has only addresses of this node, its links or a cloud's metadata, where nobody is led";
const NO_FAMILY: &str = "it has only addresses of a family of which this node has none itself";

const UNLESS: &str = "of the node's own, ports 80, 443 and those of Ingress alone are reached, unless --inside-networks has the address";

/// Whatever a node serves here is for everybody.
const PUBLIC_PORTS: [u16; 2] = [80, 443];

/// Of a name with more addresses those are kept whose turn comes first.
const ADDRESSES_MAX: usize = 32;
/// A request is tried at three endpoints by default: if no family has more than twice as many as the
/// other, any three in a row are of both.
const FAMILIES_RATIO_MAX: usize = 2;

/// Addresses that are here.
#[derive(Clone, Debug, Default)]
struct OwnAddresses {
    interfaces: Own,
    /// As the Node object has them: without `hostNetwork` they are nowhere else to be seen.
    node: BTreeSet<IpAddr>,
}

/// How far inside the URLs of Ingresses may lead.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    /// Networks they may lead to whatever is there.
    pub(crate) networks: &'a [IpNetwork],
    /// Ports of the node's own addresses that Ingress itself serves.
    pub(crate) own_ports: &'a [u16],
}

impl OwnAddresses {
    fn contain(&self, ip: &IpAddr) -> bool {
        self.interfaces.contains(ip) || self.node.contains(ip)
    }

    /// Whether an interface has an address that reaches beyond its links, of the family of `ip`.
    fn has_family_of(&self, ip: &IpAddr) -> bool {
        let mut own = self.interfaces.iter().filter(|own| own.is_ipv4() == ip.is_ipv4());
        own.any(|own| !own.is_loopback() && !is_of_links(own))
    }
}

/// Those of `found` somebody may be led to, each once, the families by turns. `node` has the addresses
/// of the Node object, if it is known. May wait for the kernel.
pub(crate) fn outside(node: &[IpAddr], name: &str, found: &[IpAddr]) -> Looked {
    let node = node.iter().map(IpAddr::to_canonical).collect();
    let own = OwnAddresses { interfaces: Interfaces::of_node().addresses()?, node };
    outside_of(&own, name, found)
}

/// As [`outside`], of where an Ingress' URL leads to. An authority is often a path of Ingress itself, whose name has
/// the nodes' addresses; what clients reach there, who asks for them may reach.
pub(crate) fn reachable(own: Own, inside: &Inside<'_>, found: &[IpAddr], port: u16) -> Looked {
    let own = OwnAddresses { interfaces: own, node: BTreeSet::new() };
    reachable_of(&own, inside, found, port)
}

fn reachable_of(own: &OwnAddresses, inside: &Inside<'_>, found: &[IpAddr], port: u16) -> Looked {
    match chosen(own, found, |ip| is_reachable(own, inside, ip, port)) {
        Err(reason) if &*reason == ONLY_INSIDE => Err(kept_at(found, port)),
        looked => looked,
    }
}

fn is_reachable(own: &OwnAddresses, inside: &Inside<'_>, ip: &IpAddr, port: u16) -> bool {
    let is_public = PUBLIC_PORTS.contains(&port) || inside.own_ports.contains(&port);
    let is_kept = |ip: &IpAddr| ip.is_loopback() || is_of_links(ip) || is_metadata(ip);
    inside.networks.iter().any(|network| network.contains(*ip))
        || (is_public && own.contain(ip) && !is_kept(ip))
        || is_outside(own, ip, false)
}

/// Whoever names a NodePort or a balancer's address sees from this that it is the node's own.
fn kept_at(found: &[IpAddr], port: u16) -> Arc<str> {
    let mut places = found.iter().map(|ip| SocketAddr::new(ip.to_canonical(), port).to_string());
    let first = places.next().unwrap_or_default();
    let more = if places.next().is_some() { " among others" } else { "" };
    format!("{ONLY_INSIDE} ({first}{more}): {UNLESS}").into()
}

/// Why an address that an Ingress' URL itself names leads nowhere; `None`: it leads somewhere, as far as that can
/// be told before it is asked.
pub(crate) fn kept(own: Own, inside: &Inside<'_>, ip: IpAddr, port: u16) -> Option<Arc<str>> {
    let own = OwnAddresses { interfaces: own, node: BTreeSet::new() };
    let is_reachable = is_reachable(&own, inside, &ip.to_canonical(), port);
    (!is_reachable).then(|| kept_at(&[ip], port))
}

fn outside_of(own: &OwnAddresses, name: &str, found: &[IpAddr]) -> Looked {
    chosen(own, found, |ip| is_outside(own, ip, name == LOCALHOST))
}

/// Those that are allowed, and that this node has a way to.
fn chosen(own: &OwnAddresses, found: &[IpAddr], is_allowed: impl Fn(&IpAddr) -> bool) -> Looked {
    let found = found.iter().map(IpAddr::to_canonical);
    let allowed: BTreeSet<IpAddr> = found.filter(is_allowed).collect();
    if allowed.is_empty() {
        return Err(ONLY_INSIDE.into());
    }
    let reached = allowed.into_iter().filter(|ip| ip.is_loopback() || own.has_family_of(ip));
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = reached.partition(IpAddr::is_ipv4);
    if v4.is_empty() && v6.is_empty() { Err(NO_FAMILY.into()) } else { Ok(by_turns(v4, v6)) }
}

/// Where one family leads nowhere, no request shall be tried at addresses of that family alone.
fn by_turns(v4: Vec<IpAddr>, v6: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut few, mut many) = if v4.len() <= v6.len() { (v4, v6) } else { (v6, v4) };
    if !few.is_empty() {
        few.truncate(ADDRESSES_MAX / 2);
        many.truncate(few.len() * FAMILIES_RATIO_MAX);
    }
    many.truncate(ADDRESSES_MAX - few.len());
    let share = |i: usize| i * many.len() / few.len().max(1);
    let mut ordered = Vec::with_capacity(few.len() + many.len());
    for (i, one) in few.iter().enumerate() {
        ordered.push(*one);
        ordered.extend(many.iter().take(share(i + 1)).skip(share(i)));
    }
    if few.is_empty() { many } else { ordered }
}

/// `ip` is canonical: IPv4 mapped into IPv6 is IPv4.
fn is_outside(own: &OwnAddresses, ip: &IpAddr, is_localhost: bool) -> bool {
    if ip.is_loopback() {
        return is_localhost;
    }
    let is_inside =
        |ip: &IpAddr| ip.is_loopback() || is_of_links(ip) || is_metadata(ip) || own.contain(ip);
    !is_inside(ip) && !translated(ip).any(|v4| is_inside(&v4))
}

/// The IPv4 addresses that packets to this one may end at, beyond a gateway: by NAT64 (RFC 6052 2.1 and
/// 2.2, where a network's own prefix of RFC 8215 may have one of four lengths) and 6to4 (RFC 3056 2).
fn translated(ip: &IpAddr) -> impl Iterator<Item = IpAddr> {
    let bytes = if let IpAddr::V6(ip) = ip { ip.octets() } else { [0; 16] };
    let places: &[[usize; 4]] = match bytes {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, ..] => &[[12, 13, 14, 15]],
        [0, 0x64, 0xff, 0x9b, 0, 1, ..] => {
            &[[12, 13, 14, 15], [6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]]
        }
        [0x20, 0x02, ..] => &[[2, 3, 4, 5]],
        _ => &[],
    };
    let v4 = places.iter().map(move |places| {
        IpAddr::from(places.map(|at| bytes.get(at).copied().unwrap_or_default()))
    });
    // Of a longer prefix the shorter ones' places have nothing.
    v4.enumerate().filter(|(place, v4)| *place == 0 || !v4.is_unspecified()).map(|(_, v4)| v4)
}

fn is_metadata(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => METADATA_V4.contains(ip),
        IpAddr::V6(ip) => ip.segments().starts_with(&METADATA_V6),
    }
}

fn is_of_links(ip: &IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(ip),
    };
    is_link_local || ip.is_unspecified() || ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &[&str] =
        &["127.0.0.1", "::1", "10.0.0.7", "fe80::7", "2001:db8::7", "203.0.113.7"];

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn own(interfaces: &[&str], node: &[&str]) -> OwnAddresses {
        let of = |texts| ips(texts).into_iter().collect::<BTreeSet<_>>();
        OwnAddresses { interfaces: of(interfaces).into(), node: of(node) }
    }

    /// Whoever owns an allowed name may let it point anywhere (DNS rebinding).
    #[test]
    fn attack_a_name_that_points_at_the_node_or_a_cloud_s_metadata_leads_nowhere() {
        for (name, found, kept) in [
            (
                "a.example",
                &["192.0.2.2", "192.0.2.1", "192.0.2.2"][..],
                &["192.0.2.1", "192.0.2.2"][..],
            ),
            ("a.example", &["2001:db8::1", "10.0.0.1"], &["10.0.0.1", "2001:db8::1"]),
            ("a.example", &["::ffff:192.0.2.1", "192.0.2.1"], &["192.0.2.1"]),
            ("a.example", &["127.0.0.1", "192.0.2.1"], &["192.0.2.1"]),
            ("a.example", &["127.0.0.2"], &[]),
            ("a.example", &["::1"], &[]),
            ("a.example", &["::ffff:127.0.0.1"], &[]),
            ("a.example", &["169.254.169.254"], &[]),
            ("a.example", &["::ffff:169.254.169.254"], &[]),
            ("a.example", &["fe80::1"], &[]),
            ("a.example", &["0.0.0.0"], &[]),
            ("a.example", &["::"], &[]),
            ("a.example", &["224.0.0.1"], &[]),
            ("a.example", &["255.255.255.255"], &[]),
            // The node's own, by whichever interface.
            ("a.example", &["10.0.0.7"], &[]),
            ("a.example", &["::ffff:10.0.0.7"], &[]),
            ("a.example", &["203.0.113.7", "2001:db8::7"], &[]),
            ("a.example", &["10.0.0.7", "10.0.0.8"], &["10.0.0.8"]),
            ("10.0.0.7", &["10.0.0.7"], &[]),
            // Metadata that is not link-local.
            ("a.example", &["100.100.100.200", "::ffff:100.100.100.200"], &[]),
            ("a.example", &["168.63.129.16", "::ffff:168.63.129.16"], &[]),
            ("a.example", &["fd00:ec2::254"], &[]),
            ("a.example", &["100.100.100.201", "fd00:ec3::1"], &["100.100.100.201", "fd00:ec3::1"]),
            // The same, told to a gateway: NAT64 and 6to4.
            ("a.example", &["64:ff9b::10.0.0.7", "2002:0a00:0007::1"], &[]),
            ("a.example", &["64:ff9b::127.0.0.1", "2002:7f00:0001::"], &[]),
            ("localhost", &["64:ff9b::127.0.0.1", "2002:7f00:0001::"], &[]),
            ("a.example", &["64:ff9b::169.254.169.254", "2002:a9fe:a9fe::a9fe:a9fe"], &[]),
            ("a.example", &["64:ff9b::100.100.100.200", "2002:6464:64c8::"], &[]),
            ("a.example", &["64:ff9b::168.63.129.16", "2002:a83f:8110:ffff::1"], &[]),
            ("a.example", &["64:ff9b::", "2002::1"], &[]),
            ("a.example", &["64:ff9b::224.0.0.1", "2002:e000:0001::"], &[]),
            ("a.example", &["64:ff9b::255.255.255.255", "2002:ffff:ffff::"], &[]),
            ("a.example", &["64:ff9b:1::10.0.0.7", "64:ff9b:1:a9fe:a9:fe00::"], &[]),
            ("a.example", &["64:ff9b:1:ab0a:0:7::", "64:ff9b:1:abcd:a:0:700:0"], &[]),
            ("a.example", &["64:ff9b:1:abcd::192.0.2.1"], &["64:ff9b:1:abcd::192.0.2.1"]),
            ("a.example", &["64:ff9b::192.0.2.1"], &["64:ff9b::192.0.2.1"]),
            ("a.example", &["2002:c000:0201::1"], &["2002:c000:0201::1"]),
            // Neither of the two prefixes.
            ("a.example", &["64:ff9b:0:1::10.0.0.7"], &["64:ff9b:0:1::10.0.0.7"]),
            ("a.example", &["2003:0a00:0007::1"], &["2003:0a00:0007::1"]),
            ("localhost", &["127.0.0.1", "::1"], &["127.0.0.1", "::1"]),
            ("localhost", &["169.254.169.254"], &[]),
            ("localhost", &["10.0.0.7"], &[]),
        ] {
            let looked = outside_of(&own(NODE, &[]), name, &ips(found));
            let expected: Looked =
                if kept.is_empty() { Err(ONLY_INSIDE.into()) } else { Ok(ips(kept)) };
            assert_eq!(looked, expected, "{name} {found:?}");
        }
    }

    /// Whoever may write an Ingress would reach the kubelet, or a cloud's metadata, as the node.
    #[test]
    fn attack_an_url_of_an_ingress_leads_to_no_port_of_the_node_that_is_not_everybodys() {
        let own = own(NODE, &[]);
        let allowed = ["127.0.0.2/32", "169.254.20.0/24"].map(|network| network.parse().unwrap());
        for (networks, ip, port, leads) in [
            (&[][..], "10.96.0.10", 4180, true),
            (&[], "10.244.3.4", 10250, true),
            (&[], "192.0.2.1", 443, true),
            // Ingress itself, by the node's address.
            (&[], "203.0.113.7", 443, true),
            (&[], "10.0.0.7", 80, true),
            (&[], "10.0.0.7", 8443, true),
            (&[], "::ffff:10.0.0.7", 443, true),
            (&[], "10.0.0.7", 10250, false),
            (&[], "2001:db8::7", 2379, false),
            (&[], "::ffff:10.0.0.7", 10250, false),
            (&[], "64:ff9b::10.0.0.7", 443, false),
            (&[], "127.0.0.1", 443, false),
            (&[], "127.0.0.1", 10248, false),
            (&[], "::1", 80, false),
            (&[], "fe80::7", 443, false),
            (&[], "0.0.0.0", 80, false),
            (&[], "169.254.169.254", 80, false),
            (&[], "fd00:ec2::254", 80, false),
            (&[], "100.100.100.200", 80, false),
            (&[], "169.254.20.10", 9253, false),
            // Whoever runs the agent says so.
            (&allowed, "127.0.0.2", 4180, true),
            (&allowed, "127.0.0.1", 4180, false),
            (&allowed, "169.254.20.10", 9253, true),
            (&allowed, "169.254.169.254", 80, false),
        ] {
            let inside = Inside { networks, own_ports: &[8080, 8443] };
            let looked = reachable_of(&own, &inside, &ips(&[ip]), port);
            assert_eq!(looked.is_ok(), leads, "{ip} {port} {looked:?}");
            let kept = kept(own.interfaces.clone(), &inside, ip.parse().unwrap(), port);
            assert_eq!(kept, looked.err(), "{ip} {port}");
        }
    }

    /// A NodePort, or a balancer whose address is one of the node's, is found on every node but this one.
    #[test]
    fn who_names_a_port_of_the_node_that_is_kept_is_told_which_and_the_cure() {
        let inside = Inside { networks: &[], own_ports: &[] };
        for (found, port, told) in [
            (&["203.0.113.7"][..], 30080, "(203.0.113.7:30080)"),
            (&["::ffff:10.0.0.7"], 30080, "(10.0.0.7:30080)"),
            (&["2001:db8::7", "10.0.0.7"], 8443, "([2001:db8::7]:8443 among others)"),
            (&["127.0.0.1"], 80, "(127.0.0.1:80)"),
        ] {
            let error = reachable_of(&own(NODE, &[]), &inside, &ips(found), port).unwrap_err();
            assert_eq!(&*error, format!("{ONLY_INSIDE} {told}: {UNLESS}"));
        }
    }

    /// The interfaces are the pod's: the node's addresses are among none of them.
    #[test]
    fn attack_without_host_network_a_name_that_points_at_the_node_leads_nowhere() {
        let own = own(&["127.0.0.1", "10.244.1.5", "fd00:10:244::5"], &["10.0.0.7", "2001:db8::7"]);
        for (found, kept) in [
            (&["10.0.0.7", "2001:db8::7"][..], &[][..]),
            (&["::ffff:10.0.0.7", "64:ff9b::10.0.0.7", "2002:0a00:0007::1"], &[]),
            (&["10.244.1.5"], &[]),
            (&["10.0.0.7", "10.0.0.8", "2001:db8::8"], &["10.0.0.8", "2001:db8::8"]),
        ] {
            let expected: Looked =
                if kept.is_empty() { Err(ONLY_INSIDE.into()) } else { Ok(ips(kept)) };
            assert_eq!(outside_of(&own, "a.example", &ips(found)), expected, "{found:?}");
        }
    }

    #[test]
    fn families_come_by_turns_and_only_those_the_node_has_itself() {
        const BOTH: &[&str] =
            &["2001:db8::3", "2001:db8::2", "2001:db8::1", "192.0.2.2", "192.0.2.1"];
        const V4: &[&str] = &["192.0.2.1", "192.0.2.2"];
        const V6: &[&str] = &["2001:db8::1", "2001:db8::2", "2001:db8::3"];
        for (interfaces, found, kept) in [
            (
                NODE,
                BOTH,
                &["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "2001:db8::3"][..],
            ),
            (&["::1", "fe80::7", "10.0.0.7"], BOTH, V4),
            (&["127.0.0.1", "169.254.1.1", "2001:db8::7"], BOTH, V6),
            (&["127.0.0.1", "169.254.1.1", "fd12::7"], BOTH, V6),
            (&["::1", "fe80::7", "10.0.0.7"], V6, &[]),
            (&["127.0.0.1", "::1"], BOTH, &[]),
        ] {
            let looked = outside_of(&own(interfaces, &[]), "a.example", &ips(found));
            let expected: Looked =
                if kept.is_empty() { Err(NO_FAMILY.into()) } else { Ok(ips(kept)) };
            assert_eq!(looked, expected, "{interfaces:?}");
        }
        let looked = outside_of(&own(&["127.0.0.1"], &[]), LOCALHOST, &ips(&["::1", "127.0.0.1"]));
        assert_eq!(looked, Ok(ips(&["127.0.0.1", "::1"])), "those are there in any case");
    }

    #[test]
    fn no_family_is_starved_by_the_other_however_many_addresses_it_has() {
        let v4 = |count: u8| (1..=count).map(|last| IpAddr::from([192, 0, 2, last]));
        let v6 = |count: u8| {
            (1..=count).map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, last.into()]))
        };
        for (v4_count, v6_count, kept) in [
            (1, 1, (1, 1)),
            (1, 2, (1, 2)),
            (1, 200, (1, 2)),
            (200, 1, (2, 1)),
            (2, 4, (2, 4)),
            (4, 7, (4, 7)),
            (10, 200, (10, 20)),
            (12, 200, (12, 20)),
            (200, 200, (16, 16)),
            (200, 0, (32, 0)),
            (0, 200, (0, 32)),
        ] {
            let found: Vec<IpAddr> = v6(v6_count).chain(v4(v4_count)).collect();
            let looked = outside_of(&own(NODE, &[]), "a.example", &found).unwrap();
            let count = |of: fn(&IpAddr) -> bool| looked.iter().filter(|ip| of(ip)).count();
            let counts = (count(IpAddr::is_ipv4), count(IpAddr::is_ipv6));
            assert_eq!(counts, kept, "{v4_count} and {v6_count}");
            let has_both = |turn: usize| {
                let mut tried = looked.iter().cycle().skip(turn).take(3).map(IpAddr::is_ipv4);
                let first = tried.next();
                tried.any(|is_ipv4| Some(is_ipv4) != first)
            };
            let are_all_both = (0..looked.len()).all(has_both);
            assert_eq!(are_all_both, v4_count > 0 && v6_count > 0, "{looked:?}");
        }
    }

    #[test]
    fn every_address_of_this_machine_s_interfaces_is_its_own() {
        let own = Interfaces::of_node().addresses().unwrap();
        let own: Vec<IpAddr> = own.iter().copied().collect();
        assert!(own.iter().any(IpAddr::is_loopback), "{own:?}");
        assert_eq!(outside(&[], "a.example", &own), Err(ONLY_INSIDE.into()), "{own:?}");
    }
}
