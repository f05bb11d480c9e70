//! What to answer for, where to listen, whom to ask for the rest.

use std::{net::SocketAddr, path::PathBuf};

/// Settings of the DNS role; [`DnsConfig::default`] is what kubeadm's Corefile means.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Addresses to answer on, UDP and TCP. Port 0 takes any free port, the same one for both.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, with or without the final dot.
    pub cluster_domain: String,
    /// Reverse zones in which addresses of Services and endpoints are answered. An address that is
    /// not known there is forwarded (CoreDNS: `fallthrough in-addr.arpa ip6.arpa`).
    pub reverse_zones: Vec<String>,
    /// Servers asked for names outside the cluster's domain.
    pub upstreams: Upstreams,
    /// Time to live of records of the cluster's domain, in seconds.
    pub ttl_seconds: u32,
    /// Time to live of "no such name" and "no such record", in seconds. Short, because a client
    /// that asked for a StatefulSet pod's name too early waits this long (kubernetes#92559).
    pub negative_ttl_seconds: u32,
    /// What `1-2-3-4.NAMESPACE.pod` answers.
    pub pods: PodNames,
    /// UDP threads per listen address; `None` for one per core, at most [`THREADS_MAX`].
    pub threads: Option<usize>,
}

/// What can change while answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// See [`DnsConfig::upstreams`].
    pub upstreams: Upstreams,
    /// See [`DnsConfig::ttl_seconds`].
    pub ttl_seconds: u32,
    /// See [`DnsConfig::negative_ttl_seconds`].
    pub negative_ttl_seconds: u32,
}

/// Most UDP threads per listen address that are chosen without being asked for: each answers more
/// than 100,000 queries a second, and a node's DNS must not take every core of a large machine.
pub const THREADS_MAX: usize = 8;

/// Servers for names outside the cluster's domain. Without any such names are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// These.
    Addresses(Vec<SocketAddr>),
    /// The `nameserver` lines of this file, read again when it changes.
    ResolvConf(PathBuf),
}

/// Names of pods by their address (`pods` of CoreDNS' kubernetes plugin).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNames {
    /// No such names.
    Disabled,
    /// The address in the name is the answer if the namespace exists; whether a pod has it is not
    /// checked.
    Insecure,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            listen: vec![
                SocketAddr::from(([0; 4], 53)),
                SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 53)),
            ],
            cluster_domain: "cluster.local".to_owned(),
            reverse_zones: vec!["in-addr.arpa".to_owned(), "ip6.arpa".to_owned()],
            upstreams: Upstreams::ResolvConf(PathBuf::from("/etc/resolv.conf")),
            ttl_seconds: 30,
            negative_ttl_seconds: 5,
            pods: PodNames::Insecure,
            threads: None,
        }
    }
}
