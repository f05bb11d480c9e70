//! How upstreams are asked: hickory's name servers, made as a `forward` wants them.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc};

use hickory_resolver::{
    PoolContext, TlsConfig,
    config::{
        ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverOpts, ServerOrderingStrategy,
    },
    net::NetError,
};
use rustls::ClientConfig;

use super::{TIMEOUT, pool::Pool, tls, upstream::Upstream};
use crate::{
    corefile::{ForwardOptions, ForwardPolicy, To, Transport},
    error::DnsError,
};

/// Requests at one time over one connection to an upstream.
const STREAM_REQUESTS_MAX: usize = 256;

/// As CoreDNS, whose upstreams have no other.
const DOH_PATH: &str = "/dns-query";

/// How upstreams are asked.
pub(super) struct Manner {
    pub(super) transport: Transport,
    pub(super) random_case: bool,
    policy: ForwardPolicy,
    /// Upstreams that are asked over TLS.
    secure: BTreeMap<SocketAddr, Secure>,
    /// `None`: none is.
    tls: Option<ClientConfig>,
}

/// An upstream that is asked over TLS.
#[derive(Debug)]
struct Secure {
    /// What its certificate must have.
    name: Arc<str>,
    https: bool,
}

impl fmt::Debug for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manner").field("secure", &self.secure).finish_non_exhaustive()
    }
}

impl Manner {
    /// Reads certificates where there are upstreams for them.
    pub(super) fn new(options: &ForwardOptions) -> Result<Self, DnsError> {
        let ForwardOptions { to, transport, policy, tls, random_case, .. } = options;
        let named = |to: &To| match to {
            To::Tls { address, name, https } => {
                let name = name.clone().or_else(|| tls.server_name.clone());
                let name = name.unwrap_or_else(|| address.ip().to_string()).into();
                Some((*address, Secure { name, https: *https }))
            }
            To::Server(_) | To::File(_) => None,
        };
        let secure: BTreeMap<_, _> = to.iter().filter_map(named).collect();
        let tls = (!secure.is_empty()).then(|| tls::config(tls)).transpose()?;
        let (transport, policy, random_case) = (*transport, *policy, *random_case);
        Ok(Self { transport, random_case, policy, secure, tls })
    }

    /// Whether an upstream is asked over TLS.
    pub(super) fn is_tls(&self, server: &SocketAddr) -> bool {
        self.secure.contains_key(server)
    }

    /// These, to be asked by the policy.
    pub(super) fn pool(&self, servers: &[SocketAddr]) -> Result<Pool, DnsError> {
        let upstreams = servers.iter().map(|server| self.upstream(*server));
        Ok(Pool::new(upstreams.collect::<Result<_, _>>()?, self.policy))
    }

    /// One alone.
    pub(super) fn upstream(&self, server: SocketAddr) -> Result<Upstream, DnsError> {
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        options.max_active_requests = STREAM_REQUESTS_MAX;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        let tls = match &self.tls {
            Some(config) => TlsConfig { config: config.clone() },
            None => {
                TlsConfig::new().map_err(|error: NetError| DnsError::Forwarding(Box::new(error)))?
            }
        };
        let context = Arc::new(PoolContext::new(options, tls));
        let by = |protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = server.port();
            NameServerConfig::new(server.ip(), true, vec![connection])
        };
        let udp = self.asks_by_udp(&server).then(|| by(ProtocolConfig::Udp));
        Ok(Upstream::new(udp.as_ref(), &by(self.stream(&server)), &context))
    }

    fn asks_by_udp(&self, server: &SocketAddr) -> bool {
        self.transport == Transport::Plain && !self.is_tls(server)
    }

    fn stream(&self, server: &SocketAddr) -> ProtocolConfig {
        match self.secure.get(server) {
            Some(Secure { name, https: false }) => {
                ProtocolConfig::Tls { server_name: name.clone() }
            }
            Some(Secure { name, https: true }) => {
                ProtocolConfig::Https { server_name: name.clone(), path: DOH_PATH.into() }
            }
            None => ProtocolConfig::Tcp,
        }
    }
}
