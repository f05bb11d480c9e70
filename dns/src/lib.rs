//! Cluster DNS for a node: the names of Services, endpoints and pods from snapshots, everything else from upstreams.
//!
//! ```text
//! snapshot -> zone (immutable, swapped)           one UDP thread per socket: recvmmsg -> zone -> sendmmsg
//!                                                  | not plain, alias, name of others
//!                                                  v
//!                                    slow path (tokio, hickory) -> upstreams
//! ```
//!
//! What is answered: kubernetes/dns docs/specification.md 1.1.0 as CoreDNS serves it, with exceptions named in
//! docs/architecture.md.
#![deny(unsafe_code)]

mod answer;
mod config;
mod counters;
mod error;
mod fast;
mod listen;
mod server;
mod slow;
#[expect(unsafe_code, reason = "recvmmsg, sendmmsg and one socket option have no safe wrapper")]
pub mod sys;
mod tcp;
mod wire;
mod zone;

pub use config::{DnsConfig, PodNames, THREADS_MAX, Upstreams};
pub use counters::{Counts, DropReason, RCODES};
pub use error::DnsError;
pub use server::{Running, start};
pub use wire::name::BadName;
