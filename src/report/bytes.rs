//! Bytes of a Service, and how people read them.

use std::fmt;

use fairlead_proxy::ServiceBytes;
use serde::{Deserialize, Serialize};

/// In the two ways they are counted; a connection is counted in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bytes {
    /// Data of TCP connections that sockets of this node and its pods have closed.
    pub(crate) sockets: BothWays,
    /// IP packets that were translated, headers included.
    pub(crate) packets: BothWays,
}

/// Towards a Service and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BothWays {
    pub(crate) to_service: u64,
    pub(crate) from_service: u64,
}

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl From<ServiceBytes> for Bytes {
    fn from(bytes: ServiceBytes) -> Self {
        let ServiceBytes { packets_to, packets_from, sockets_to, sockets_from } = bytes;
        Self {
            sockets: BothWays { to_service: sockets_to, from_service: sockets_from },
            packets: BothWays { to_service: packets_to, from_service: packets_from },
        }
    }
}

impl BothWays {
    /// `1.2 KiB/3.4 MiB`, under a head that says which is which.
    pub(crate) fn short(self) -> String {
        format!("{}/{}", size(self.to_service), size(self.from_service))
    }
}

/// `1.2 KiB to it, 3.4 MiB from it`.
impl fmt::Display for BothWays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to it, {} from it", size(self.to_service), size(self.from_service))
    }
}

/// `999 B`, `1.9 MiB`: rounded down.
fn size(bytes: u64) -> String {
    let power = bytes.checked_ilog2().unwrap_or_default() / 10;
    let unit = (power as usize).checked_sub(1).and_then(|place| UNITS.get(place));
    let Some(unit) = unit else { return format!("{bytes} B") };
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_at_a_glance() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (5 << 29, "2.5 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn each_way_of_counting_keeps_its_directions() {
        let counted =
            ServiceBytes { packets_to: 1, packets_from: 2, sockets_to: 3, sockets_from: 4 << 10 };
        let Bytes { sockets, packets } = counted.into();
        assert_eq!(packets.to_string(), "1 B to it, 2 B from it");
        assert_eq!(sockets.short(), "3 B/4.0 KiB");
    }
}
