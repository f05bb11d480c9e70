//! What can go wrong at start. Nothing after that ends the role.

use std::{io, net::SocketAddr};

/// Why the role could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// An address could not be taken.
    #[error("ingress cannot listen on {address}: {source}; {cure}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What to do about it.
        cure: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Neither an HTTP nor an HTTPS address is left to listen on.
    #[error("ingress has no address to listen on; give --http-listen or --https-listen")]
    NoListener,
    /// A thread or its runtime could not be made.
    #[error("ingress cannot start its thread {name}: {source}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS settings or the self-signed certificate could not be made.
    #[error("ingress cannot prepare TLS: {0}")]
    Tls(String),
    /// A thread ended by a panic.
    #[error("ingress thread {0} broke down; the log has the reason")]
    BrokeDown(String),
}
