//! Which ports source translation may use: those that no socket of the node gets by itself.

use std::{fs, ops::RangeInclusive};

use fairlead_ebpf::abi::Settings;

use crate::port_range::PortRange;

/// Ports below are for privileged servers (RFC 6335 §6).
const FIRST: u16 = 1024;
/// Fewer make collisions of concurrent connections to one backend frequent.
const ENOUGH: usize = 4096;
/// Where sockets that are not bound get their ports from.
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Linux's own choice, for a file that cannot be read.
const LOCAL_DEFAULT: RangeInclusive<u16> = 32768..=60999;

/// The largest range that is neither NodePorts nor local ports of this network namespace. A service
/// that listens on one of them is in nobody's way: replies of a backend's port are for no listener.
pub fn free(node_ports: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let text = fs::read_to_string(LOCAL_RANGE).unwrap_or_default();
    let local = range(&text).unwrap_or(LOCAL_DEFAULT);
    if let Some(widest) = widest(&local, node_ports).filter(|range| range.len() >= ENOUGH) {
        return widest;
    }
    // The end of the local range: the kernel begins at a random place, so it is as good as any.
    let shared = 61000..=u16::MAX;
    tracing::warn!(
        local_ports = format!("{}-{}", local.start(), local.end()),
        "leaves no ports for NodePorts' own connections: those may meet a socket's; \
         `sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`"
    );
    shared
}

/// The settings with NodePorts in this range. Own ports among them are given up for others: a late reply to
/// one would be taken for a NodePort's client.
pub(crate) fn beside(node_ports: PortRange, settings: &Settings) -> Settings {
    let own = settings.snat_port_first..=settings.snat_port_last;
    let own = if node_ports.meets(&own) { free(&node_ports.into()) } else { own };
    let (node_port_first, node_port_last) = node_ports.bounds();
    let (snat_port_first, snat_port_last) = own.into_inner();
    Settings { node_port_first, node_port_last, snat_port_first, snat_port_last, ..*settings }
}

/// Two numbers, first and last.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace().map(str::parse);
    let (Some(Ok(first)), Some(Ok(last)), None) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    Some(first..=last)
}

/// `None` where they leave nothing.
fn widest(
    local: &RangeInclusive<u16>,
    node_ports: &RangeInclusive<u16>,
) -> Option<RangeInclusive<u16>> {
    let mut taken = [local, node_ports];
    taken.sort_by_key(|range| *range.start());
    let mut gaps = Vec::new();
    let mut next = u32::from(FIRST);
    for range in taken {
        gaps.push((next, u32::from(*range.start()).saturating_sub(1)));
        next = next.max(u32::from(*range.end()) + 1);
    }
    gaps.push((next, u32::from(u16::MAX)));
    let len = |(first, last): &(u32, u32)| (last + 1).saturating_sub(*first);
    let (first, last) = gaps.into_iter().filter(|gap| len(gap) > 0).max_by_key(len)?;
    Some(u16::try_from(first).ok()?..=u16::try_from(last).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_gap_beside_local_ports_and_node_ports_is_taken() {
        let node_ports = 30000..=32767;
        for (local, expected) in [
            (32768..=60999, Some(1024..=29999)),
            (1024..=65535, None),
            (15000..=65000, Some(1024..=14999)),
            (1024..=29999, Some(32768..=65535)),
            (10000..=31000, Some(32768..=65535)),
            (2..=3, Some(32768..=65535)),
        ] {
            assert_eq!(widest(&local, &node_ports), expected, "{local:?}");
        }
        assert_eq!(widest(&(32768..=60999), &(1024..=32767)), Some(61000..=65535));
    }

    #[test]
    fn the_kernels_file_is_read_or_replaced() {
        assert_eq!(range("32768\t60999\n"), Some(32768..=60999));
        for text in ["", "32768", "a b", "1 2 3", "70000 80000"] {
            assert_eq!(range(text), None, "{text:?}");
        }
    }
}
