//! What to answer for, where to listen, whom to ask for the rest.

use std::{
    collections::BTreeSet, net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc,
    time::Duration,
};

use crate::{
    corefile::{
        CacheOptions, Corefile, DEFAULT_PORT, FAILURE_RECHECK, Fallthrough, ForwardOptions,
        ForwardPolicy, KubernetesOptions, Pods, ServerBlock, Stale, TlsOptions, To, Transport,
        ZoneAt,
    },
    error::DnsError,
};

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
    pub pods: Pods,
    /// A Corefile: it takes the place of every setting here but addresses and threads.
    pub corefile: Option<Arc<Corefile>>,
    /// Questions a second of each client, by UDP and TCP together, and as many at once; further ones
    /// are dropped. `None`: no limit.
    pub client_rate: Option<NonZeroU32>,
    /// Upstreams are asked in random letter case, and by UDP only replies in the same are believed: a
    /// forger must guess it, too. Who answers in another is asked by TCP.
    pub random_case: bool,
    /// UDP threads per listen address; `None` for one per core, at most [`THREADS_MAX`].
    pub threads: Option<usize>,
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
            negative_ttl_seconds: 1,
            pods: Pods::Insecure,
            corefile: None,
            client_rate: None,
            random_case: false,
            threads: None,
        }
    }
}

/// How long answers of upstreams that fail are still served, as RFC 8767 §5 recommends at least.
const STALE: Stale = Stale {
    period: Duration::from_secs(86400),
    verify: true,
    verify_timeout: Duration::ZERO,
    ttl_seconds: 0,
    failure_recheck: FAILURE_RECHECK,
};

impl DnsConfig {
    /// The Corefile, or one that means what the other settings mean.
    pub(crate) fn in_force(&self) -> Arc<Corefile> {
        if let Some(corefile) = &self.corefile {
            return match self.random_case {
                true => in_random_case(corefile).into(),
                false => corefile.clone(),
            };
        }
        let to = match &self.upstreams {
            Upstreams::Addresses(servers) => servers.iter().copied().map(To::Server).collect(),
            Upstreams::ResolvConf(path) => vec![To::File(path.clone())],
        };
        let forward = ForwardOptions {
            from: ".".to_owned(),
            to,
            except: vec![],
            transport: Transport::Plain,
            tls: TlsOptions::default(),
            policy: ForwardPolicy::default(),
            max_concurrent: None,
            health_check: crate::corefile::HealthCheck::default(),
            next: vec![],
            next_on_nodata: false,
            random_case: self.random_case,
        };
        let kubernetes = KubernetesOptions {
            domain: Some(self.cluster_domain.clone()),
            reverse_zones: self.reverse_zones.clone(),
            pods: self.pods,
            ttl_seconds: self.ttl_seconds,
            endpoint_pod_names: false,
            no_endpoints: false,
            ignore_empty: false,
            namespaces: vec![],
            namespace_labels: None,
            labels: None,
            zonal: false,
            multicluster: None,
            fallthrough: if self.reverse_zones.is_empty() {
                Fallthrough::Never
            } else {
                Fallthrough::In(self.reverse_zones.clone())
            },
        };
        let block = ServerBlock {
            zones: vec![ZoneAt { zone: ".".to_owned(), port: DEFAULT_PORT }],
            plugins: ["cache", "forward", "kubernetes", "loadbalance"].map(str::to_owned).into(),
            rotate: true,
            // A node's resolver may ask the cluster's DNS; addresses were named on purpose.
            detect_loops: matches!(self.upstreams, Upstreams::ResolvConf(_)),
            kubernetes: Some(kubernetes),
            cache: Some(CacheOptions { stale: Some(STALE), ..CacheOptions::default() }),
            forwards: vec![forward],
            ..ServerBlock::default()
        };
        Arc::new(Corefile { blocks: vec![block], files: vec![] })
    }

    /// Addresses that are listened on for the whole configuration, by group.
    ///
    /// # Errors
    /// Two groups would have sockets at one address, and the kernel choose between them for each client.
    pub(crate) fn listening(&self) -> Result<Vec<Vec<SocketAddr>>, DnsError> {
        let groups = crate::policy::listening(self, &self.in_force());
        let mut seen = BTreeSet::new();
        for group in &groups {
            // Port 0 is another each time.
            let fixed: BTreeSet<_> = group.iter().filter(|address| address.port() != 0).collect();
            if let Some(address) = fixed.intersection(&seen).next() {
                return Err(DnsError::ListenedTwice { address: **address });
            }
            seen.extend(fixed);
        }
        Ok(groups)
    }
}

fn in_random_case(corefile: &Corefile) -> Corefile {
    let mut corefile = corefile.clone();
    for forward in corefile.blocks.iter_mut().flat_map(|block| &mut block.forwards) {
        forward.random_case = true;
    }
    corefile
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Each block had sockets of its own there, and a name was answered or refused by the client's port.
    #[test]
    fn an_address_of_two_groups_of_server_blocks_is_refused() {
        let rows = [
            ("127.0.0.1:5353", ".:53 example.org:5353", "", true),
            ("127.0.0.1:5353", ".:53", "example.org:5353 {\n bind 127.0.0.1\n}\n", true),
            ("127.0.0.1:53", ".:53", "example.org:53 {\n bind 127.0.0.1\n}\n", true),
            ("127.0.0.1:53", ".:53", "example.org:53 {\n bind 127.0.0.2\n}\n", false),
            ("127.0.0.1:5353", ".:53 example.org:5300", "", false),
            // The closer address has it, for every client.
            ("0.0.0.0:53", ".:53", "example.org:53 {\n bind 127.0.0.1\n}\n", false),
            ("127.0.0.1:0", ".:53", "example.org:53 {\n bind 127.0.0.1\n}\n", false),
        ];
        for (own, zones, beside, is_refused) in rows {
            let text = format!("{zones} {{\n errors\n}}\n{beside}");
            let corefile = Corefile::parse(Path::new("Corefile"), &text, &|_| None).unwrap();
            let config = DnsConfig {
                listen: vec![own.parse().unwrap()],
                corefile: Some(Arc::new(corefile)),
                ..DnsConfig::default()
            };
            let refused = matches!(config.listening(), Err(DnsError::ListenedTwice { .. }));
            assert_eq!(refused, is_refused, "{own} {text}");
        }
    }
}
