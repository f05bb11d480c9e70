//! What of a service is not served as it asks, in words for its owner.

use std::fmt;

use fairlead_ebpf::abi::FrontendKey;
use fairlead_state::{Key, Name};

use super::SET_BACKENDS_MAX;
use crate::text;

/// A service that is not served as it asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The service.
    pub service: Key,
    /// What is the matter.
    pub problem: Problem,
}

/// Why a part of a service is not served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// It has external addresses, which are not allowed.
    ExternalIps,
    /// A load balancer's or external address is none that a Service can have, a source range is none, or an endpoint has no
    /// address that can be read.
    UnusableIp {
        /// Which one, and what is wrong with it.
        why: Name,
    },
    /// More endpoints than a set takes.
    TooManyEndpoints {
        /// The port.
        port: u16,
        /// How many there are.
        endpoints: usize,
    },
    /// Annotation `fairlead.io/load-balancing` is neither `random` nor `maglev`.
    LoadBalancing {
        /// What it is.
        text: Name,
        /// What is done instead.
        is_maglev: bool,
    },
    /// More endpoints than a table has places.
    CrowdedTable {
        /// The port.
        port: u16,
        /// How many endpoints there are.
        endpoints: usize,
        /// Places of the table.
        places: u32,
    },
    /// An older service has the same address or NodePort.
    Taken {
        /// What both claim.
        frontend: FrontendKey,
        /// The older one.
        owner: Key,
    },
}

impl Problem {
    /// In one word, for machines: an Event's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Problem::ExternalIps => "ExternalIPs",
            Problem::UnusableIp { .. } => "UnusableAddress",
            Problem::TooManyEndpoints { .. } => "TooManyEndpoints",
            Problem::LoadBalancing { .. } => "LoadBalancing",
            Problem::CrowdedTable { .. } => "CrowdedTable",
            Problem::Taken { .. } => "AddressTaken",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}: {}", self.service, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::ExternalIps => {
                f.write_str("externalIPs are not served: start the agent with --external-ips")
            }
            Problem::UnusableIp { why } => {
                write!(f, "{why}: the Service is served without it")
            }
            Problem::TooManyEndpoints { port, endpoints } => write!(
                f,
                "port {port} has {endpoints} endpoints: only the first {SET_BACKENDS_MAX} are used"
            ),
            Problem::LoadBalancing { text, is_maglev } => write!(
                f,
                "annotation fairlead.io/load-balancing {text:?} is not one of random, maglev: {} \
                 it is",
                if *is_maglev { "maglev" } else { "random" }
            ),
            Problem::CrowdedTable { port, endpoints, places } => write!(
                f,
                "port {port} has {endpoints} endpoints: a Maglev table of {places} places leaves \
                 some without connections; start the agents with a larger --maglev-table-size"
            ),
            Problem::Taken { frontend, owner } => write!(
                f,
                "{} belongs to the older Service {owner}: change the port or the address of one",
                text::frontend(frontend)
            ),
        }
    }
}
