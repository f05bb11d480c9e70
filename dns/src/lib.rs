//! Cluster DNS for a node: the names of Services, endpoints and pods from snapshots, everything
//! else from upstreams.
//!
//! ```text
//! snapshot -> zone (immutable, swapped)   one UDP thread per socket: recvmmsg -> zone -> sendmmsg
//!                                                  | not plain, alias, name of others
//!                                                  v
//!                                    slow path (tokio, hickory) -> upstreams
//! ```
//!
//! What is answered: kubernetes/dns docs/specification.md 1.1.0 as CoreDNS serves it by the same
//! Corefile; docs/dns-differences.md lists what differs, and why.
#![deny(unsafe_code)]

mod answer;
mod cache;
mod clients;
mod config;
pub mod corefile;
mod counters;
mod error;
pub mod explain;
mod fast;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hosts;
mod listen;
mod panics;
mod plugins;
mod policy;
mod programming;
mod server;
mod slow;
#[expect(unsafe_code, reason = "recvmmsg, sendmmsg and one socket option have no safe wrapper")]
pub mod sys;
mod tcp;
mod wire;
mod zone;

pub use config::{DnsConfig, THREADS_MAX, Upstreams};
pub use counters::{
    CacheReport, Counts, Crowded, DURATION_BOUNDS, DropReason, EnabledReport, ForwardReport,
    Histogram, HistogramReport, HostsReport, Labels, PROGRAMMING_BOUNDS, Plugin, ProgrammingReport,
    QTYPES, RCODES, SIZE_BOUNDS, SiteCounts, Way,
};
pub use error::DnsError;
pub use server::{Running, has_predecessor, start};
pub use wire::{UDP_REPLY_BYTES_MAX, name::BadName};
