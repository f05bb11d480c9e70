//! Hickory's pool of name servers, made as a `forward` wants it.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc};

use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, Edns, Message, Query},
    rr::{
        Name, RData, RecordType,
        rdata::opt::{ClientSubnet, EdnsOption},
    },
};
use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{
        ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverOpts, ServerOrderingStrategy,
    },
    net::NetError,
};
use rustls::ClientConfig;

use super::{TIMEOUT, Wishes, connections::Connections, tls};
use crate::{
    corefile::{ForwardOptions, ForwardPolicy, To, Transport},
    error::DnsError,
    plugins::name_within,
    wire::UDP_REPLY_BYTES_MAX,
};

/// Requests at one time over one connection to an upstream.
const STREAM_REQUESTS_MAX: usize = 256;

/// As CoreDNS, whose upstreams have no other.
const DOH_PATH: &str = "/dns-query";

pub(super) type Pool = NameServerPool<Connections>;

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

    /// A pool of these.
    pub(super) fn pool(&self, servers: &[SocketAddr]) -> Result<Pool, DnsError> {
        let forwarding = |error: NetError| DnsError::Forwarding(Box::new(error));
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        options.max_active_requests = STREAM_REQUESTS_MAX;
        options.server_ordering_strategy = match self.policy {
            ForwardPolicy::Random => ServerOrderingStrategy::QueryStatistics,
            ForwardPolicy::RoundRobin => ServerOrderingStrategy::RoundRobin,
            ForwardPolicy::Sequential => ServerOrderingStrategy::UserProvidedOrder,
        };
        let servers = servers.iter().map(|server| {
            let connections = self.protocols(server).into_iter().map(|protocol| {
                let mut connection = ConnectionConfig::new(protocol);
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.collect())
        });
        let tls = match &self.tls {
            Some(config) => TlsConfig { config: config.clone() },
            None => TlsConfig::new().map_err(forwarding)?,
        };
        let context = PoolContext::new(options, tls);
        Ok(NameServerPool::from_config(servers, Arc::new(context), Connections::default()))
    }

    fn protocols(&self, server: &SocketAddr) -> Vec<ProtocolConfig> {
        match (self.secure.get(server), self.transport) {
            (Some(Secure { name, https: false }), _) => {
                vec![ProtocolConfig::Tls { server_name: name.clone() }]
            }
            (Some(Secure { name, https: true }), _) => {
                vec![ProtocolConfig::Https { server_name: name.clone(), path: DOH_PATH.into() }]
            }
            (None, Transport::Plain) => vec![ProtocolConfig::Udp, ProtocolConfig::Tcp],
            (None, Transport::Tcp) => vec![ProtocolConfig::Tcp],
        }
    }
}

/// The client's question as our own: a new id, our own EDNS size, the flags that change the answer
/// (CD, DO), and, where that is wanted, a letter case of our own.
pub(super) fn question(
    name: Name,
    qtype: RecordType,
    wishes: Wishes,
    random_case: bool,
) -> DnsRequest {
    let mut message = Message::query();
    message.metadata.recursion_desired = wishes.recursion_desired;
    message.metadata.checking_disabled = wishes.flavour.checking_disabled;
    message.metadata.authentic_data = wishes.authentic_data;
    let query = Query::query(name, qtype);
    let original = random_case.then(|| query.clone());
    message.queries.push(query);
    if random_case {
        message.queries.iter_mut().for_each(|query| query.name.randomize_label_case());
    }
    let mut edns = Edns::new();
    edns.set_max_payload(u16::try_from(UDP_REPLY_BYTES_MAX).unwrap_or(u16::MAX));
    edns.set_dnssec_ok(wishes.flavour.dnssec_ok);
    if let Some(network) = wishes.flavour.subnet {
        let subnet = ClientSubnet::new(network.network(), network.prefix(), 0);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
    }
    message.edns = Some(edns);
    let mut options = DnsRequestOptions::default();
    options.case_randomization = random_case;
    DnsRequest::new(message, options).with_original_query(original)
}

/// Takes the letter case of our question out of a reply, whose names end in that question's or are it.
pub(super) fn without_case(message: &mut Message, asked: &Name) {
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        let is_asked = record.name == *asked;
        record.name = if is_asked { asked.clone() } else { record.name.to_lowercase() };
        if let Some(name) = name_within(&mut record.data) {
            *name = name.to_lowercase();
        }
        if let RData::SOA(soa) = &mut record.data {
            soa.rname = soa.rname.to_lowercase();
        }
    }
}
