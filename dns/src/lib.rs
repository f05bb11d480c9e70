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
//! What is answered: kubernetes/dns docs/specification.md 1.1.0 as CoreDNS serves it under
//! kubeadm's Corefile, with these differences:
//! - A name that exists or has names below it is never NXDOMAIN (RFC 8020): `dns-version` for A,
//!   `_tcp.SERVICE`.
//! - `_._tcp.SERVICE` (CoreDNS: any port) is NXDOMAIN; the bare name's SRV has all ports, as in
//!   CoreDNS.
//! - An alias answers every type with its CNAME and the target's records; when the target cannot be
//!   resolved the code says so, where CoreDNS gives a bare CNAME that looks like "no such record".
//! - RA is set when there are upstreams (coredns#6262). Denials live 5 s, not 30 s
//!   (kubernetes#92559).
//! - A namespace exists when its object or a Service in it does.
//! - ANY is NODATA in the zone, as in CoreDNS, and one HINFO record elsewhere (RFC 8482), never
//!   forwarded.
//! - Unknown names are SERVFAIL before the first snapshot, addresses in reverse zones included.
#![deny(unsafe_code)]

mod answer;
mod config;
pub mod corefile;
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

pub use config::{DnsConfig, PodNames, THREADS_MAX, Tuning, Upstreams};
pub use counters::{Counts, DropReason, RCODES};
pub use error::DnsError;
pub use server::{Running, has_predecessor, start};
pub use wire::name::BadName;
