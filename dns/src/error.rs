//! Why the DNS role could not start, and what to do about it.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::wire::name::BadName;

/// Why the DNS role could not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// Another program has the port.
    #[error(
        "DNS: port {} on {} is taken for {transport} ({source}): stop the program that has it \
         (systemd-resolved, dnsmasq, CoreDNS?) or choose another address with --dns-listen",
        address.port(), address.ip()
    )]
    Taken {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// UDP or TCP.
        transport: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address cannot be listened on for another reason.
    #[error("DNS: cannot listen on {address} for {transport} ({source}): {cure}")]
    Listen {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// UDP or TCP.
        transport: &'static str,
        /// What would help.
        cure: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No address to listen on.
    #[error(
        "DNS: no address to listen on: name one with --dns-listen, or turn DNS off with --no-dns"
    )]
    NoAddress,
    /// Server blocks that differ in `bind` or in their port listen on one address.
    #[error(
        "DNS: {address} is listened on by server blocks that differ in `bind` or in their port: give them \
         the same of both, or --dns-listen another port"
    )]
    ListenedTwice {
        /// Where they meet.
        address: SocketAddr,
    },
    /// A configured domain is not a domain name.
    #[error("DNS: {domain:?} is not a domain name: {source}")]
    Domain {
        /// As configured.
        domain: String,
        /// What is wrong with it.
        source: BadName,
    },
    /// A reverse zone that is neither below in-addr.arpa nor below ip6.arpa.
    #[error("DNS: {zone:?} is not a reverse zone: it must end in in-addr.arpa or ip6.arpa")]
    ReverseZone {
        /// As configured.
        zone: String,
    },
    /// New settings listen elsewhere: sockets are opened at the start only.
    #[error("DNS: the addresses or ports listened on changed: DNS must be started anew")]
    Restart,
    /// Started outside a tokio runtime.
    #[error("DNS: must be started within a tokio runtime")]
    NoRuntime,
    /// The resolver library refused its settings.
    #[error("DNS: cannot prepare forwarding: {0}")]
    Forwarding(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file that `tls` of a `forward` names.
    #[error("DNS: forward: tls {}: {why}: give files of certificates and keys in PEM", file.display())]
    TlsFile {
        /// As it was named.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file that `weighted` of a `loadbalance` names.
    #[error("DNS: loadbalance weighted {}: {why}", file.display())]
    WeightFile {
        /// As it was named.
        file: PathBuf,
        /// What is wrong with it, and what to write.
        why: String,
    },
    /// Nothing to check certificates of upstreams by.
    #[error(
        "DNS: forward: this machine has no certificates of authorities: install ca-certificates, or \
         name a file of them: `tls FILE`"
    )]
    NoAuthorities,
    /// A thread could not be started.
    #[error("DNS: cannot start a thread ({0}): raise the limit of threads (pids) for this process")]
    Thread(#[source] io::Error),
}
