//! What is asked of the agent, as the programs read it.

use bytemuck::Zeroable as _;
use fairlead_ebpf::{
    abi::{
        CIDRS_MAX, Cidr, SETTINGS_LOOPBACK_V4, SETTINGS_LOOPBACK_V6, SETTINGS_MASQUERADE_ALL,
        SETTINGS_NODE_SOCKETS, Settings,
    },
    packet::mapped,
};
use ipnetwork::IpNetwork;

use super::{KernelOptions, MapSizes};
use crate::{port_range::PortRange, snat_ports};

/// No address is in it: a program that reads while ranges are written sees more of them than it should, at worst.
const NOWHERE: Cidr = Cidr { address: [u64::MAX; 2], mask: [0; 2] };

/// What is known of the node's addresses, of Service ranges and of NodePorts from an earlier start holds
/// until they are read anew: programs that run act on it at once, and a range that is asked for may hold the node itself.
pub(crate) fn of(
    options: &KernelOptions,
    found: &Settings,
    netns_cookie: u64,
    sizes: MapSizes,
) -> Settings {
    let is_new = *found == Settings::zeroed();
    let (service_cidrs, service_cidr_count) = if is_new {
        cidrs(options.service_cidrs.iter().copied())
    } else {
        (within(found.service_cidrs, found.service_cidr_count), found.service_cidr_count)
    };
    let (loopback_v4, loopback_v6) = options.node_port_addresses.loopback();
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let flags = flag(loopback_v4, SETTINGS_LOOPBACK_V4)
        | flag(loopback_v6, SETTINGS_LOOPBACK_V6)
        | flag(options.masquerade_all, SETTINGS_MASQUERADE_ALL)
        | flag(options.node_sockets_only, SETTINGS_NODE_SOCKETS);
    let node_ports = match (found.node_port_first, found.node_port_last) {
        (0, 0) => PortRange::USUAL,
        (first, last) => PortRange::new(first, last),
    };
    let settings = Settings {
        netns_cookie,
        snat_port_first: *options.snat_ports.start(),
        snat_port_last: *options.snat_ports.end(),
        flags,
        service_cidr_count,
        service_cidrs,
        counters_per_cpu: sizes.counters,
        bytes_per_cpu: sizes.bytes,
        ..*found
    };
    snat_ports::beside(node_ports, &settings)
}

/// As the settings have them, and how many they are.
pub(super) fn cidrs(ranges: impl IntoIterator<Item = IpNetwork>) -> ([Cidr; CIDRS_MAX], u32) {
    let mut cidrs = [NOWHERE; CIDRS_MAX];
    let mut count = 0;
    for (cidr, range) in cidrs.iter_mut().zip(ranges) {
        *cidr = self::cidr(range);
        count += 1;
    }
    (cidrs, count)
}

/// The first `count`, and no others.
fn within(mut cidrs: [Cidr; CIDRS_MAX], count: u32) -> [Cidr; CIDRS_MAX] {
    cidrs
        .iter_mut()
        .zip(0..)
        .filter(|(_, index)| *index >= count)
        .for_each(|(cidr, _)| *cidr = NOWHERE);
    cidrs
}

fn cidr(range: IpNetwork) -> Cidr {
    match range {
        IpNetwork::V4(range) => {
            Cidr::new(mapped(range.network().octets()), 96 + u32::from(range.prefix()))
        }
        IpNetwork::V6(range) => Cidr::new(range.network().octets(), range.prefix().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_without_a_range_hold_no_address_however_many_are_counted() {
        let v4 = "10.96.0.0/12".parse().unwrap();
        let older = Settings { service_cidrs: cidrs([v4]).0, ..Settings::zeroed() };
        let older = Settings { service_cidr_count: 1, ..older };
        for (found, given, holds_one) in [
            (Settings::zeroed(), vec![], false),
            (Settings::zeroed(), vec![v4], true),
            (older, vec![], true),
            (Settings { netns_cookie: 1, ..Settings::zeroed() }, vec![v4], false),
        ] {
            let options = KernelOptions { service_cidrs: given, ..KernelOptions::default() };
            let mut settings = of(&options, &found, 0, MapSizes::default());
            // As a program may find them that reads the new number and the old ranges.
            settings.service_cidr_count = u32::try_from(CIDRS_MAX).unwrap();
            let holds = |address| settings.is_service_address(&mapped(address));
            assert_eq!((holds([10, 96, 0, 1]), holds([192, 0, 2, 1])), (holds_one, false));
            assert!(
                !settings.is_service_address(&[0xff; 16]) && !settings.is_service_address(&[0; 16])
            );
        }
    }

    #[test]
    fn node_ports_of_an_earlier_start_are_kept_and_own_ports_are_clear_of_them() {
        let of = |first, last| {
            let found =
                Settings { node_port_first: first, node_port_last: last, ..Settings::zeroed() };
            let settings = of(&KernelOptions::default(), &found, 0, MapSizes::default());
            let own = settings.snat_port_first..=settings.snat_port_last;
            ((settings.node_port_first, settings.node_port_last), own)
        };
        let (usual, own) = of(0, 0);
        assert_eq!((usual, own), ((30000, 32767), 1024..=29999), "nobody has said where they are");
        assert_eq!(of(1, 0).0, (1, 0), "there are none");
        let (kept, own) = of(20000, 40000);
        assert_eq!(kept, (20000, 40000));
        assert!(!PortRange::new(20000, 40000).meets(&own), "{own:?}");
    }
}
