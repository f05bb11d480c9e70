//! Lists of networks that each request is asked about, however long they are.

use std::{net::IpAddr, sync::Arc};

use ipnetwork::IpNetwork;

/// Networks. An address is looked for in ranges that do not meet, so that ten thousand cost as much as ten;
/// clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges,
    v6: Ranges,
}

/// Of one family. An IPv4 address is its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges {
    /// A network of all addresses is there.
    all: bool,
    /// First and last of each, in order.
    some: Arc<[(u128, u128)]>,
}

impl Networks {
    /// None is there.
    pub fn is_empty(&self) -> bool {
        [&self.v4, &self.v6].iter().all(|ranges| !ranges.all && ranges.some.is_empty())
    }

    /// One of them is of all addresses of a family.
    pub fn has_all(&self) -> bool {
        self.v4.all || self.v6.all
    }

    /// Whether the address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.of(address).all || self.names(address)
    }

    /// The same, of those that are not of all addresses.
    pub fn names(&self, address: IpAddr) -> bool {
        let number = number(address);
        let some = &self.of(address).some;
        let after = some.partition_point(|(first, _)| *first <= number);
        let before = after.checked_sub(1).and_then(|i| some.get(i));
        before.is_some_and(|(_, last)| number <= *last)
    }

    fn of(&self, address: IpAddr) -> &Ranges {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

impl FromIterator<IpNetwork> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(networks: I) -> Self {
        let (v4, v6): (Vec<IpNetwork>, Vec<IpNetwork>) =
            networks.into_iter().partition(IpNetwork::is_ipv4);
        Self { v4: Ranges::of(&v4), v6: Ranges::of(&v6) }
    }
}

impl Ranges {
    fn of(networks: &[IpNetwork]) -> Self {
        let (all, some): (Vec<&IpNetwork>, Vec<_>) =
            networks.iter().partition(|network| network.prefix() == 0);
        let ends = |network: &IpNetwork| (number(network.network()), number(network.broadcast()));
        let mut ranges: Vec<(u128, u128)> = some.into_iter().map(ends).collect();
        ranges.sort_unstable();
        let mut apart: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match apart.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => apart.push((first, last)),
            }
        }
        Self { all: !all.is_empty(), some: apart.into() }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_of_all_addresses_names_nobody() {
        for (list, address, contains, names) in [
            (&[][..], "192.0.2.1", false, false),
            (&["0.0.0.0/0"], "192.0.2.1", true, false),
            (&["0.0.0.0/0"], "2001:db8::1", false, false),
            (&["::/0", "2001:db8::/32"], "2001:db8::1", true, true),
            (&["10.0.0.0/8", "10.1.0.0/16"], "10.200.0.1", true, true),
            (&["10.0.0.7/8"], "10.0.0.0", true, true),
            (&["255.255.255.255"], "255.255.255.255", true, true),
            (&["::ffff"], "0.0.255.255", false, false),
        ] {
            let networks: Networks = list.iter().map(|network| network.parse().unwrap()).collect();
            let address = address.parse().unwrap();
            let found = (networks.contains(address), networks.names(address));
            assert_eq!(found, (contains, names), "{address} in {list:?}");
            assert_eq!(networks.is_empty(), list.is_empty(), "{list:?}");
        }
    }

    fn address(is_v6: bool, low: u8) -> IpAddr {
        if is_v6 { IpAddr::V6(u128::from(low).into()) } else { IpAddr::V4(u32::from(low).into()) }
    }

    proptest! {
        #[test]
        fn ranges_hold_what_the_networks_hold(
            list in prop::collection::vec((any::<bool>(), any::<u8>(), 24u8..=32), 0..8),
            asked in prop::collection::vec((any::<bool>(), any::<u8>()), 16),
        ) {
            let network = |(is_v6, low, prefix): &(bool, u8, u8)| {
                let prefix = if *is_v6 { prefix + 96 } else { *prefix };
                IpNetwork::new(address(*is_v6, *low), prefix).unwrap()
            };
            let list: Vec<IpNetwork> = list.iter().map(network).collect();
            let networks: Networks = list.iter().copied().collect();
            for (is_v6, low) in asked {
                let address = address(is_v6, low);
                let expected = list.iter().any(|network| network.contains(address));
                prop_assert_eq!(networks.contains(address), expected, "{} in {:?}", address, list);
            }
        }
    }
}
