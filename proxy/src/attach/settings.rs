//! What is asked of the agent, as the programs read it.

use bytemuck::Zeroable as _;
use fairlead_ebpf::{
    abi::{
        CIDRS_MAX, Cidr, SETTINGS_LOOPBACK_V4, SETTINGS_LOOPBACK_V6, SETTINGS_MASQUERADE_ALL,
        Settings,
    },
    packet::mapped,
};
use ipnetwork::IpNetwork;

use super::{KernelOptions, MapSizes};

/// What is known of the node's addresses and of Service ranges from an earlier start holds until
/// they are read anew.
pub(crate) fn of(
    options: &KernelOptions,
    found: Option<&Settings>,
    netns_cookie: u64,
    sizes: MapSizes,
) -> Settings {
    let (service_cidrs, service_cidr_count) = match found {
        Some(found) if options.service_cidrs.is_empty() => {
            (found.service_cidrs, found.service_cidr_count)
        }
        _ => cidrs(options.service_cidrs.iter().copied()),
    };
    let (loopback_v4, loopback_v6) = options.node_port_addresses.loopback();
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let flags = flag(loopback_v4, SETTINGS_LOOPBACK_V4)
        | flag(loopback_v6, SETTINGS_LOOPBACK_V6)
        | flag(options.masquerade_all, SETTINGS_MASQUERADE_ALL);
    Settings {
        netns_cookie,
        node_port_first: *options.node_ports.start(),
        node_port_last: *options.node_ports.end(),
        snat_port_first: *options.snat_ports.start(),
        snat_port_last: *options.snat_ports.end(),
        flags,
        service_cidr_count,
        service_cidrs,
        counters_per_cpu: sizes.counters,
        bytes_per_cpu: sizes.bytes,
        ..found.copied().unwrap_or_else(Settings::zeroed)
    }
}

/// As the settings have them, and how many they are.
pub(super) fn cidrs(ranges: impl IntoIterator<Item = IpNetwork>) -> ([Cidr; CIDRS_MAX], u32) {
    let mut cidrs = [Cidr::zeroed(); CIDRS_MAX];
    let mut count = 0;
    for (cidr, range) in cidrs.iter_mut().zip(ranges) {
        *cidr = self::cidr(range);
        count += 1;
    }
    (cidrs, count)
}

fn cidr(range: IpNetwork) -> Cidr {
    match range {
        IpNetwork::V4(range) => {
            Cidr::new(mapped(range.network().octets()), 96 + u32::from(range.prefix()))
        }
        IpNetwork::V6(range) => Cidr::new(range.network().octets(), range.prefix().into()),
    }
}
