//! `nodePortAddresses`: on which of the node's addresses NodePorts answer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnetwork::IpNetwork;

/// Where NodePorts answer, in the terms of KubeProxyConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// On every address of the node, loopback included: kube-proxy's iptables mode.
    #[default]
    All,
    /// On one address of each family of the Node object's, an InternalIP if it has one: kube-proxy's nftables
    /// mode. And on addresses in these ranges.
    Primary(Vec<IpNetwork>),
    /// On addresses in these ranges; loopback if they hold 127.0.0.1 or ::1. Of a family without ranges on all.
    In(Vec<IpNetwork>),
}

/// A word that is no place for NodePorts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of all, primary, localhost, or an address range such as 192.168.0.0/16")]
pub struct NotAPlace(String);

impl NodePortAddresses {
    /// From the list in a KubeProxyConfiguration; an empty one means all.
    ///
    /// # Errors
    /// The first word that is neither known nor an address range.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, NotAPlace> {
        let mut ranges = Vec::new();
        let mut is_primary = false;
        for word in words {
            match word {
                "all" => return Ok(Self::All),
                "primary" => is_primary = true,
                "localhost" => {
                    ranges.extend(
                        [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()]
                            .map(IpNetwork::from),
                    );
                }
                range => ranges
                    .push(IpNetwork::from_str(range).map_err(|_| NotAPlace(range.to_owned()))?),
            }
        }
        Ok(match (is_primary, ranges.is_empty()) {
            (true, _) => Self::Primary(ranges),
            (false, true) => Self::All,
            (false, false) => Self::In(ranges),
        })
    }

    /// Whether NodePorts answer on `ip`, an address of the node; `own` are those of the Node
    /// object, InternalIPs first.
    pub fn has(&self, ip: IpAddr, own: &[IpAddr]) -> bool {
        match self {
            Self::All => true,
            // A node that is not known (yet) must not lose its NodePorts.
            Self::Primary(also) => {
                let mut of_family = own.iter().filter(|own| own.is_ipv6() == ip.is_ipv6());
                let is_own = own.is_empty() || of_family.next() == Some(&ip);
                is_own || also.iter().any(|range| range.contains(ip))
            }
            // kube-proxy's NewNodePortAddresses, of each family by itself.
            Self::In(ranges) => {
                let mut of_family = ranges.iter().filter(|range| range.is_ipv6() == ip.is_ipv6());
                let first = of_family.next();
                first.is_none_or(|first| first.contains(ip) || of_family.any(|r| r.contains(ip)))
            }
        }
    }

    /// Whether they answer on loopback, IPv4 and IPv6.
    pub fn loopback(&self) -> (bool, bool) {
        let has = |ip| match self {
            // It is no address of the Node object's, known or not.
            Self::Primary(also) => also.iter().any(|range| range.contains(ip)),
            Self::All | Self::In(_) => self.has(ip, &[]),
        };
        (has(Ipv4Addr::LOCALHOST.into()), has(Ipv6Addr::LOCALHOST.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_port_addresses_as_kube_proxy_has_them() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        // The third is an ExternalIP.
        let own = ["192.168.0.2", "2001:db8::1", "203.0.113.9"].map(ip);
        type Case<'a> = (&'a [&'a str], (bool, bool), &'a [&'a str]);
        let all = ["192.168.0.2", "192.168.1.2", "203.0.113.9", "2001:db8::1", "2001:db8::2"];
        let [first, second, outside, v6, other_v6] = all;
        let cases: [Case<'_>; 11] = [
            (&[], (true, true), &all),
            (&["primary"], (false, false), &[first, v6]),
            (&["192.168.1.0/24", "127.0.0.0/8"], (true, true), &[second, v6, other_v6]),
            (&["192.168.0.0/16", "2001:db8::2/128"], (false, false), &[first, second, other_v6]),
            (&["192.168.1.0/24"], (false, true), &[second, v6, other_v6]),
            (&["::/0"], (true, true), &all),
            (&["2001:db8::2/128"], (true, false), &[first, second, outside, other_v6]),
            (&["localhost"], (true, true), &[]),
            // kube-proxy's Test_expandNodePortAddressKeywords.
            (&["primary", "localhost"], (true, true), &[first, v6]),
            (&["192.168.1.0/24", "primary"], (false, false), &[first, second, v6]),
            (&["primary", "all"], (true, true), &all),
        ];
        for (words, loopback, expected) in cases {
            let places = NodePortAddresses::from_words(words.iter().copied()).unwrap();
            assert_eq!(places.loopback(), loopback, "{words:?}");
            for address in all {
                let expected = expected.contains(&address);
                assert_eq!(places.has(ip(address), &own), expected, "{words:?} {address}");
            }
        }
        let only_v4 = &own[..1];
        let primary = NodePortAddresses::Primary(vec![]);
        assert!(!primary.has(ip(v6), only_v4), "none of the Node's");
        assert!(primary.has(ip(outside), &[]), "the Node is not known yet");
        let error = NodePortAddresses::from_words(["10.0.0.0/33"]).unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/33") && error.contains("primary"), "{error}");
    }
}
