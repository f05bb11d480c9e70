//! What every proxy is told: hosts, where each leads, certificates.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;

use crate::support::apiserver::authority::{Authority, authority, issue};

/// Of so many hosts at most load asks.
const ASKED: usize = 16;
/// Of those that have gRPC.
const CALLED: usize = 4;
const DOMAIN: &str = "bench.example.com";
/// What wrk names in its handshakes; Caddy refuses a name that no certificate has.
const LOOPBACK: &str = "127.0.0.1";

/// Hosts with one path each.
pub struct Table {
    /// By host, which of `upstreams` it leads to.
    leads: Vec<usize>,
    /// Hosts whose upstreams speak gRPC.
    called: Vec<usize>,
    pub upstreams: Vec<SocketAddr>,
    /// None: no TLS. One: for all. Else one each.
    pub certificates: Vec<Pem>,
    /// Who signed them.
    pub authority: CertificateDer<'static>,
}

pub struct Pem {
    pub certificate: String,
    pub key: String,
}

/// How many certificates there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Off,
    Shared,
    Each,
}

impl Table {
    /// All hosts lead to the first upstream.
    pub fn new(hosts: usize, tls: Tls, upstreams: &[SocketAddr]) -> Self {
        let authority = authority();
        let certificates = match tls {
            Tls::Off => vec![],
            Tls::Shared => vec![Pem::new(&authority, &[&format!("*.{DOMAIN}"), LOOPBACK])],
            Tls::Each => (0..hosts).map(|i| Pem::new(&authority, &[&host(i)])).collect(),
        };
        Self {
            leads: vec![0; hosts],
            called: vec![],
            upstreams: upstreams.to_vec(),
            certificates,
            authority: authority.der().clone(),
        }
    }

    /// Some of the hosts have gRPC; load asks others.
    pub fn with_calls(mut self) -> Self {
        self.called = (0..CALLED).map(|n| n * self.hosts() / CALLED).collect();
        assert!(self.asked().iter().all(|host| !self.called.contains(host)));
        self
    }

    /// Hosts that have gRPC.
    pub fn called(&self) -> &[usize] {
        &self.called
    }

    pub fn hosts(&self) -> usize {
        self.leads.len()
    }

    /// Hosts spread over the table.
    pub fn asked(&self) -> Vec<usize> {
        let asked = ASKED.min(self.hosts());
        (0..asked).map(|n| (2 * n + 1) * self.hosts() / (2 * asked)).collect()
    }

    /// Which of the upstreams a host leads to.
    pub fn leads(&self, host: usize) -> usize {
        self.leads[host]
    }

    pub fn lead(&mut self, host: usize, upstream: usize) {
        self.leads[host] = upstream;
    }

    /// By its place among `certificates`.
    pub fn certificate(&self, host: usize) -> Option<usize> {
        (!self.certificates.is_empty()).then(|| host.min(self.certificates.len() - 1))
    }
}

impl Pem {
    fn new(authority: &Authority, names: &[&str]) -> Self {
        let made = issue(authority, names);
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }
}

pub fn host(i: usize) -> String {
    format!("h{i}.{DOMAIN}")
}
