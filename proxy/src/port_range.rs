//! From which port to which there are NodePorts: the programs look no further for others.

use std::ops::RangeInclusive;

use fairlead_ebpf::abi::{ANY_V4, ANY_V6, FrontendKey};

/// Ports, first and last inclusive, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// No port.
    pub const NONE: Self = Self { first: 1, last: 0 };
    /// kube-apiserver's `--service-node-port-range`, unless it is told otherwise. What is served at
    /// other ports shows in the Services only.
    pub const USUAL: Self = Self { first: 30000, last: 32767 };

    /// From `first` to `last`; nothing is port 0.
    pub fn new(first: u16, last: u16) -> Self {
        if first > last || last == 0 { Self::NONE } else { Self { first, last } }
    }

    /// As the programs know it: a range that holds none is one that ends before it begins.
    pub fn bounds(self) -> (u16, u16) {
        (self.first, self.last)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.first > self.last
    }

    /// The smallest range with all of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// Whether any port is in both.
    pub fn meets(self, other: &RangeInclusive<u16>) -> bool {
        self.first <= *other.end() && *other.start() <= self.last && !self.is_empty()
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self::NONE
    }
}

impl FromIterator<u16> for PortRange {
    fn from_iter<T: IntoIterator<Item = u16>>(ports: T) -> Self {
        ports.into_iter().fold(Self::NONE, |range, port| range.with(Self::new(port, port)))
    }
}

impl From<PortRange> for RangeInclusive<u16> {
    fn from(PortRange { first, last }: PortRange) -> Self {
        first..=last
    }
}

/// The port of a frontend that is a NodePort.
pub fn node_port(key: &FrontendKey) -> Option<u16> {
    let is_node_port = key.address == ANY_V4 || key.address == ANY_V6;
    (is_node_port && !key.is_other_ports()).then(|| u16::from_be_bytes(key.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_from_the_first_port_to_the_last() {
        for (ports, expected) in [
            (&[][..], PortRange::NONE),
            (&[25000], PortRange::new(25000, 25000)),
            (&[32767, 80, 30080], PortRange::new(80, 32767)),
            (&[0], PortRange::NONE),
            (&[65535, 1], PortRange::new(1, 65535)),
        ] {
            assert_eq!(ports.iter().copied().collect::<PortRange>(), expected, "{ports:?}");
        }
        assert_eq!(PortRange::new(5, 4), PortRange::NONE);
        assert_eq!(PortRange::new(0, 0), PortRange::NONE, "settings that nobody wrote");
    }

    #[test]
    fn ranges_meet_where_they_share_a_port() {
        for (range, other, expected) in [
            (PortRange::USUAL, 1024..=29999, false),
            (PortRange::USUAL, 1024..=30000, true),
            (PortRange::new(80, 65535), 61000..=61000, true),
            (PortRange::NONE, 1..=65535, false),
            (PortRange::NONE, 0..=65535, false),
        ] {
            assert_eq!(range.meets(&other), expected, "{range:?} {other:?}");
        }
    }
}
