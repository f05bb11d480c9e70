//! Where the service maps are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::RangeInclusive,
};

use fairlead_ebpf::abi::{Reason, ServiceBytes};

pub use crate::image::{Capacities, Entry};
use crate::{delta::Step, image::Image, snat_ports::LOCAL_DEFAULT};

pub mod faulty;
pub mod kernel;
pub mod memory;

/// Why a map could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// No room.
    #[error("{map} holds {capacity} entries and is full: raise its size")]
    Full {
        /// The map.
        map: &'static str,
        /// How many entries it takes.
        capacity: usize,
    },
    /// The kernel refuses bpf(2) to this process.
    #[error("no rights to the eBPF maps: run as root or with CAP_BPF and CAP_NET_ADMIN")]
    Permission,
    /// Any other answer of the kernel.
    #[error("{map}: {source}")]
    Other {
        /// The map.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl MapError {
    /// Whether the next write will meet the same.
    pub fn is_for_all(&self) -> bool {
        matches!(self, MapError::Permission)
    }
}

/// What happened to one service, on all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Connections, and datagrams of unconnected sockets, sent to a backend.
    pub selected: u64,
    /// Those that were refused or dropped, and why; no reason is there with 0.
    pub refused: BTreeMap<Reason, u64>,
    /// What passed, where that is counted.
    pub bytes: ServiceBytes,
}

impl ServiceCounts {
    /// Refused or dropped for whatever reason.
    pub fn rejected(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// The service maps.
pub trait Maps {
    /// Calls `take` with everything they hold: frontends last, after all they lead to, and the rest in no
    /// order.
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError>;
    /// Everything they hold, sorted; for whoever shows it.
    fn load(&self) -> Result<Image, MapError> {
        let mut image = Image::default();
        self.each(&mut |entry| image.insert(entry))?;
        Ok(image)
    }
    /// Makes one change. After an error it may have been made in part.
    fn apply(&mut self, step: &Step) -> Result<(), MapError>;
    /// How many entries they take.
    fn capacities(&self) -> Capacities;
    /// Ports that sockets of the node get by themselves: `net.ipv4.ip_local_port_range`.
    fn local_ports(&self) -> RangeInclusive<u16> {
        LOCAL_DEFAULT
    }
    /// Where set ids begin in empty maps.
    fn first_set_id(&self) -> u32 {
        0
    }
    /// Counters by counter id, summed over CPUs; also those of services that are no more, until their
    /// ids are given free. None of services to which nothing has happened.
    fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError>;
    /// Counter ids by which open connections are counted, whether their service is still there or not.
    fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError>;
}
