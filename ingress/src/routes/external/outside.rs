//! Which of a name's addresses somebody may be led to, and in what order they are asked.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::ifaddrs::getifaddrs;

use super::Looked;

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

/// Addresses of this node's interfaces, or of the pod's without `hostNetwork`.
#[derive(Clone, Debug, Default)]
struct NodeAddresses(BTreeSet<IpAddr>);

impl NodeAddresses {
    fn read() -> io::Result<Self> {
        let addresses = getifaddrs()?.filter_map(|known| {
            let address = known.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        });
        Ok(Self(addresses.collect()))
    }

    /// Whether the node has an address that reaches beyond its links, of the family of `ip`.
    fn has_family_of(&self, ip: &IpAddr) -> bool {
        let mut own = self.0.iter().filter(|own| own.is_ipv4() == ip.is_ipv4());
        own.any(|own| !own.is_loopback() && !is_of_links(own))
    }
}

/// Those of `found` somebody may be led to, each once, the families by turns.
pub(crate) fn outside(name: &str, found: &[IpAddr]) -> Looked {
    let node = NodeAddresses::read();
    let node =
        node.map_err(|error| format!("this node's own addresses cannot be read: {error}"))?;
    outside_of(&node, name, found)
}

fn outside_of(node: &NodeAddresses, name: &str, found: &[IpAddr]) -> Looked {
    let found = found.iter().map(IpAddr::to_canonical);
    let allowed: BTreeSet<IpAddr> =
        found.filter(|ip| is_outside(node, ip, name == LOCALHOST)).collect();
    if allowed.is_empty() {
        return Err(ONLY_INSIDE.into());
    }
    let reached = allowed.into_iter().filter(|ip| ip.is_loopback() || node.has_family_of(ip));
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = reached.partition(IpAddr::is_ipv4);
    if v4.is_empty() && v6.is_empty() { Err(NO_FAMILY.into()) } else { Ok(by_turns(v4, v6)) }
}

/// A request is tried at few endpoints: where one family leads nowhere they shall not all be of it.
fn by_turns(v4: Vec<IpAddr>, v6: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut ordered = Vec::with_capacity(v4.len() + v6.len());
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    loop {
        let before = ordered.len();
        ordered.extend(v4.next());
        ordered.extend(v6.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// `ip` is canonical: IPv4 mapped into IPv6 is IPv4.
fn is_outside(node: &NodeAddresses, ip: &IpAddr, is_localhost: bool) -> bool {
    if ip.is_loopback() {
        return is_localhost;
    }
    let is_metadata = match ip {
        IpAddr::V4(ip) => METADATA_V4.contains(ip),
        IpAddr::V6(ip) => ip.segments().starts_with(&METADATA_V6),
    };
    !is_of_links(ip) && !is_metadata && !node.0.contains(ip)
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

    fn node(texts: &[&str]) -> NodeAddresses {
        NodeAddresses(ips(texts).into_iter().collect())
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
            ("localhost", &["127.0.0.1", "::1"], &["127.0.0.1", "::1"]),
            ("localhost", &["169.254.169.254"], &[]),
            ("localhost", &["10.0.0.7"], &[]),
        ] {
            let looked = outside_of(&node(NODE), name, &ips(found));
            let expected: Looked =
                if kept.is_empty() { Err(ONLY_INSIDE.into()) } else { Ok(ips(kept)) };
            assert_eq!(looked, expected, "{name} {found:?}");
        }
    }

    #[test]
    fn families_come_by_turns_and_only_those_the_node_has_itself() {
        const BOTH: &[&str] =
            &["2001:db8::3", "2001:db8::2", "2001:db8::1", "192.0.2.2", "192.0.2.1"];
        const V4: &[&str] = &["192.0.2.1", "192.0.2.2"];
        const V6: &[&str] = &["2001:db8::1", "2001:db8::2", "2001:db8::3"];
        for (own, found, kept) in [
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
            let looked = outside_of(&node(own), "a.example", &ips(found));
            let expected: Looked =
                if kept.is_empty() { Err(NO_FAMILY.into()) } else { Ok(ips(kept)) };
            assert_eq!(looked, expected, "{own:?}");
        }
        let looked = outside_of(&node(&["127.0.0.1"]), LOCALHOST, &ips(&["::1", "127.0.0.1"]));
        assert_eq!(looked, Ok(ips(&["127.0.0.1", "::1"])), "those are there in any case");
    }

    #[test]
    fn every_address_of_this_machine_s_interfaces_is_its_own() {
        let own: Vec<IpAddr> = NodeAddresses::read().unwrap().0.into_iter().collect();
        assert!(own.iter().any(IpAddr::is_loopback), "{own:?}");
        assert_eq!(outside("a.example", &own), Err(ONLY_INSIDE.into()), "{own:?}");
    }
}
