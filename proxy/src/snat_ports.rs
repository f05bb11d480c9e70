//! Which ports source translation may use: those that no socket of the node gets by itself, and that are no
//! NodePorts.
//!
//! They are one range, and it moves as NodePorts come and go. What is translated already stays so: programs find
//! it in the connection table, whatever the range is, and give nobody a port that an entry there holds. A service
//! that listens on one of them is in nobody's way: replies of a backend's port are for no listener.

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
pub(crate) const LOCAL_DEFAULT: RangeInclusive<u16> = 32768..=60999;
/// The end of the local range, where there is no port outside of it: the kernel begins at a random place, so it is
/// as good as any.
const SHARED: RangeInclusive<u16> = 61000..=u16::MAX;

/// The ports that sockets of this network namespace get by themselves.
pub(crate) fn local() -> RangeInclusive<u16> {
    let text = fs::read_to_string(LOCAL_RANGE).unwrap_or_default();
    range(&text).unwrap_or(LOCAL_DEFAULT)
}

/// What is free before it is known where NodePorts are.
pub fn free() -> RangeInclusive<u16> {
    let local = local();
    let free = between(&local, []);
    tell(&local, free);
    free.into()
}

/// The widest range without `local` ports, NodePorts, and those where NodePorts usually come to be.
pub(crate) fn between(
    local: &RangeInclusive<u16>,
    node_ports: impl IntoIterator<Item = u16>,
) -> PortRange {
    let node_ports = node_ports.into_iter().map(|port| port..=port);
    beside_ranges(local, node_ports.collect())
}

fn beside_ranges(local: &RangeInclusive<u16>, node_ports: Vec<RangeInclusive<u16>>) -> PortRange {
    let usual = PortRange::USUAL.into();
    let mut taken: Vec<_> = node_ports.iter().cloned().chain([local.clone(), usual]).collect();
    taken.sort_by_key(|range| *range.start());
    let alone = widest(&(FIRST..=u16::MAX), &taken);
    if let Some(alone) = alone.as_ref().filter(|range| range.len() >= ENOUGH) {
        return of(alone);
    }
    let mut taken = node_ports;
    taken.sort_by_key(|range| *range.start());
    let shared = widest(&SHARED, &taken);
    of(&alone.into_iter().chain(shared).max_by_key(ExactSizeIterator::len).unwrap_or(SHARED))
}

fn of(range: &RangeInclusive<u16>) -> PortRange {
    PortRange::new(*range.start(), *range.end())
}

/// Says which they are, and that they are not free, if so.
pub(crate) fn tell(local: &RangeInclusive<u16>, ports: PortRange) {
    let (first, last) = ports.bounds();
    if !ports.meets(local) {
        tracing::debug!(first, last, "ports for NodePorts' own connections");
        return;
    }
    tracing::warn!(
        local_ports = format!("{}-{}", local.start(), local.end()),
        "leaves no ports for NodePorts' own connections: those may meet a socket's; \
         `sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`"
    );
}

/// The settings with NodePorts somewhere in this range. Own ports among them are given up for others: a late reply
/// to one would be taken for a NodePort's client.
pub(crate) fn beside(node_ports: PortRange, settings: &Settings) -> Settings {
    let own = settings.snat_port_first..=settings.snat_port_last;
    let own = match node_ports.meets(&own) {
        true => beside_ranges(&local(), vec![node_ports.into()]),
        false => of(&own),
    };
    let (node_port_first, node_port_last) = node_ports.bounds();
    let (snat_port_first, snat_port_last) = own.bounds();
    Settings { node_port_first, node_port_last, snat_port_first, snat_port_last, ..*settings }
}

/// Whether source translation may come to use the port, wherever NodePorts go.
pub(crate) fn may_be_used(local: &RangeInclusive<u16>, port: u16) -> bool {
    let usual: RangeInclusive<u16> = PortRange::USUAL.into();
    port >= FIRST && !local.contains(&port) && !usual.contains(&port)
}

/// Two numbers, first and last.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace().map(str::parse);
    let (Some(Ok(first)), Some(Ok(last)), None) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    Some(first..=last)
}

/// The widest gap in `within` between what is `taken`, sorted by where it begins; `None` where there is none.
fn widest(
    within: &RangeInclusive<u16>,
    taken: &[RangeInclusive<u16>],
) -> Option<RangeInclusive<u16>> {
    let (mut next, last) = (u32::from(*within.start()), u32::from(*within.end()));
    let mut gaps = Vec::new();
    for range in taken {
        gaps.push((next, u32::from(*range.start()).saturating_sub(1).min(last)));
        next = next.max(u32::from(*range.end()) + 1);
    }
    gaps.push((next, last));
    let len = |(first, last): &(u32, u32)| (last + 1).saturating_sub(*first);
    let (first, last) = gaps.into_iter().filter(|gap| len(gap) > 0).max_by_key(len)?;
    Some(u16::try_from(first).ok()?..=u16::try_from(last).ok()?)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    #[test]
    fn the_widest_gap_beside_local_ports_and_usual_node_ports_is_taken() {
        for (local, expected) in [
            (32768..=60999, 1024..=29999),
            (15000..=65000, 1024..=14999),
            (1024..=29999, 32768..=65535),
            (10000..=31000, 32768..=65535),
            (2..=3, 32768..=65535),
            // None is wide enough: those at the end are shared.
            (1024..=65535, 61000..=65535),
            (5000..=62000, 61000..=65535),
        ] {
            assert_eq!(between(&local, []), of(&expected), "{local:?}");
        }
    }

    /// One odd NodePort made 4,536 ports of 28,976, and for good.
    #[test]
    fn node_ports_take_what_is_on_their_other_side_for_as_long_as_they_are_there() {
        let scattered = || (1024..30000).step_by(100);
        let cases: [(Vec<u16>, RangeInclusive<u16>); 12] = [
            (vec![], 1024..=29999),
            (vec![30000, 30080, 32767], 1024..=29999),
            (vec![80, 1023], 1024..=29999),
            (vec![2000], 2001..=29999),
            (vec![2000, 28000, 30080], 2001..=27999),
            (vec![20000, 15000], 1024..=14999),
            (vec![29999], 1024..=29998),
            (scattered().collect(), 61000..=65535),
            (scattered().chain([65535]).collect(), 61000..=65534),
            // However narrow the widest gap is: only where there is none they are NodePorts'.
            (scattered().chain((61000..65535).step_by(200)).collect(), 65201..=65399),
            (scattered().chain(61000..=65535).collect(), 29825..=29923),
            ((1024..=65535).collect(), 61000..=65535),
        ];
        for (node_ports, expected) in cases {
            assert_eq!(
                between(&LOCAL_DEFAULT, node_ports.clone()),
                of(&expected),
                "{node_ports:?}"
            );
        }
    }

    #[test]
    fn where_node_ports_are_known_by_their_range_only_it_is_left_out() {
        let own = |first, last, node_ports| {
            let (snat_port_first, snat_port_last) = (first, last);
            let settings = Settings { snat_port_first, snat_port_last, ..Settings::zeroed() };
            let settings = beside(node_ports, &settings);
            assert_eq!((settings.node_port_first, settings.node_port_last), node_ports.bounds());
            settings.snat_port_first..=settings.snat_port_last
        };
        assert_eq!(own(1024, 29999, PortRange::USUAL), 1024..=29999);
        assert_eq!(own(61000, 61000, PortRange::USUAL), 61000..=61000, "as it was asked for");
        assert_eq!(own(1024, 29999, PortRange::NONE), 1024..=29999);
        let beside_odd = own(1024, 29999, PortRange::new(2000, 30080));
        assert!(!PortRange::new(2000, 30080).meets(&beside_odd), "{beside_odd:?}");
    }

    /// Connections of before keep the ports they have: which could a range come to hold that has grown?
    #[test]
    fn whatever_range_is_chosen_holds_ports_that_may_be_used_and_no_others() {
        for local in [LOCAL_DEFAULT, 15000..=25000, 1024..=20000] {
            for node_ports in [vec![], vec![2000], vec![2000, 29000, 62000], vec![40000]] {
                let (first, last) = between(&local, node_ports).bounds();
                let odd = (first..=last).find(|port| !may_be_used(&local, *port));
                assert_eq!(odd, None, "{first}-{last} beside {local:?}");
            }
            for port in [1023, *local.start(), *local.end(), 30000, 32767] {
                assert!(!may_be_used(&local, port), "{port} beside {local:?}");
            }
        }
    }

    #[test]
    fn the_kernels_file_is_read_or_replaced() {
        assert_eq!(range("32768\t60999\n"), Some(32768..=60999));
        for text in ["", "32768", "a b", "1 2 3", "70000 80000"] {
            assert_eq!(range(text), None, "{text:?}");
        }
    }
}
