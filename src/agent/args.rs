//! The agent's flags. Each has an environment variable; cli contract: docs/architecture.md.

mod drop_in;
mod publish;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::ArgAction;
use fairlead_ingress::{Hsts, LogFormat, LogTarget};
use fairlead_proxy::TableSize;
use ipnetwork::IpNetwork;

use crate::{classes::ClassArgs, logging};

pub(crate) use drop_in::{ConntrackArgs, DropInArgs};
pub(crate) use publish::{NamespacedName, PublishArgs};

/// Flags of `fairlead agent`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) roles: Roles,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
    #[command(flatten)]
    pub(crate) drop_in: DropInArgs,
    #[command(flatten)]
    pub(crate) dns: DnsArgs,
    #[command(flatten)]
    pub(crate) ingress: IngressArgs,
    #[command(flatten)]
    pub(crate) publish: PublishArgs,
}

impl Args {
    /// Takes over from `new` what can change while running.
    pub(crate) fn take_live(&mut self, new: Self) {
        self.admin.log_level = new.admin.log_level;
        self.admin.drain_timeout = new.admin.drain_timeout;
        self.admin.lameduck = new.admin.lameduck;
        self.drop_in.conntrack = new.drop_in.conntrack;
        self.dns.upstream = new.dns.upstream;
        self.dns.dns_ttl = new.dns.dns_ttl;
        self.dns.dns_negative_ttl = new.dns.dns_negative_ttl;
    }
}

/// Which parts run in this process.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Roles (all on unless turned off)")]
pub(crate) struct Roles {
    /// Balance Services by eBPF
    #[arg(long, overrides_with = "no_proxy", action = ArgAction::SetTrue)]
    proxy: bool,
    /// Leave Services to another proxy
    #[arg(long, env = "FAIRLEAD_NO_PROXY")]
    no_proxy: bool,
    /// Answer for the cluster's names
    #[arg(long, overrides_with = "no_dns", action = ArgAction::SetTrue)]
    dns: bool,
    /// Leave names to another server
    #[arg(long, env = "FAIRLEAD_NO_DNS")]
    no_dns: bool,
    /// Serve Ingresses
    #[arg(long, overrides_with = "no_ingress", action = ArgAction::SetTrue)]
    ingress: bool,
    /// Leave Ingresses to another controller
    #[arg(long, env = "FAIRLEAD_NO_INGRESS")]
    no_ingress: bool,
}

impl Roles {
    pub(crate) fn proxy(self) -> bool {
        self.proxy || !self.no_proxy
    }

    pub(crate) fn dns(self) -> bool {
        self.dns || !self.no_dns
    }

    pub(crate) fn ingress(self) -> bool {
        self.ingress || !self.no_ingress
    }
}

/// Where objects come from.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Source")]
pub(crate) struct SourceArgs {
    /// Read the API server this kubeconfig names (default: the in-cluster service account)
    #[arg(long, value_name = "FILE", env = "FAIRLEAD_KUBECONFIG", conflicts_with = "manifests")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Read every *.yaml, *.yml and *.json file below DIR instead of an API server, and follow changes
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_MANIFESTS")]
    pub(crate) manifests: Option<PathBuf>,
    /// Reach API servers here first, in this order, instead of by the configured address, which in a
    /// pod is a Service's and works only once something serves it
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', env = "FAIRLEAD_API_SERVER")]
    pub(crate) api_server: Vec<String>,
    /// Remember the API servers' own addresses and the cluster's names in this directory, for a start
    /// when none can be reached (default: forgotten at the end)
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// This node's name in the cluster (default: $NODE_NAME, else the host name)
    #[arg(long, value_name = "NAME", env = "FAIRLEAD_NODE_NAME")]
    pub(crate) node_name: Option<String>,
}

/// An address to listen on, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| "give ADDRESS:PORT, or \"\" for none".to_owned());
        address.map(|address| Self(Some(address)))
    }
}

/// A name server: `10.0.0.2`, `10.0.0.2:5353`, `fd00::2` or `[fd00::2]:5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upstream(pub(crate) SocketAddr);

const DNS_PORT: u16 = 53;
/// As CoreDNS' `ttl`: an hour.
const TTL_SECONDS_MAX: i64 = 3600;

impl FromStr for Upstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let with_port = text.parse::<SocketAddr>();
        let bare = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        let address = with_port.or_else(|_| bare());
        address.map(Self).map_err(|_| "give an IP address, or ADDRESS:PORT")
    }
}

/// A header's value, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StrictTransport(pub(crate) Option<Hsts>);

impl FromStr for StrictTransport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|hsts| Self(Some(hsts)))
    }
}

/// Where requests are logged, if anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessLogPlace(pub(crate) Option<LogTarget>);

impl FromStr for AccessLogPlace {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "" => None,
            "-" => Some(LogTarget::Stdout),
            path => Some(LogTarget::File(path.into())),
        }))
    }
}

/// Running it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Operation")]
pub(crate) struct AdminArgs {
    /// Settings in YAML whose keys are these long flags (dns-ttl: 30); what is given here or in the
    /// environment wins. Followed: log-level, upstream, dns-ttl, dns-negative-ttl, drain-timeout,
    /// lameduck and conntrack-* take effect at once, others at the next start
    #[arg(long, value_name = "FILE", env = "FAIRLEAD_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Log so much: a level (error, warn, info, debug, trace, off), or levels per part
    /// (info,fairlead_dns=debug)
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "FAIRLEAD_LOG_LEVEL")]
    pub(crate) log_level: logging::Level,
    /// Log lines for people (text) or for collectors (json)
    #[arg(long, value_enum, default_value = "text", env = "FAIRLEAD_LOG_FORMAT")]
    pub(crate) log_format: logging::Format,
    /// Longest wait for open requests and queries after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, env = "FAIRLEAD_DRAIN_TIMEOUT")]
    pub(crate) drain_timeout: u64,
    /// After SIGTERM readiness turns off and DNS and Ingress serve on for so many seconds, in which
    /// others learn of it, before they drain (default: 5 in a pod, else 0)
    #[arg(long, value_name = "SECONDS", env = "FAIRLEAD_LAMEDUCK")]
    pub(crate) lameduck: Option<u64>,
    /// Serve all pages on this Unix socket, too, where status, services, trace and the like ask; it
    /// is this agent's own where ports are a node's (default: /run/fairlead/admin.sock if it can be)
    #[arg(long, value_name = "PATH", env = "FAIRLEAD_ADMIN_SOCKET")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// Serve /healthz, /livez and /readyz here; "" turns it off
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:10256",
        env = "FAIRLEAD_HEALTHZ_LISTEN"
    )]
    pub(crate) healthz_listen: Listen,
    /// Serve Prometheus /metrics here; "" turns it off
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:10249",
        env = "FAIRLEAD_METRICS_LISTEN"
    )]
    pub(crate) metrics_listen: Listen,
    /// Show status, Services, routes, names and traces as a page here, read-only; "" turns it off
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:10247",
        env = "FAIRLEAD_WEB_LISTEN"
    )]
    pub(crate) web_listen: Listen,
    /// Names by which browsers may ask for the page, besides localhost and addresses
    #[arg(
        long,
        value_name = "HOST,...",
        value_delimiter = ',',
        value_parser = web_host,
        env = "FAIRLEAD_WEB_HOST"
    )]
    pub(crate) web_host: Vec<String>,
}

/// A name as browsers send it in Host, without the port.
fn web_host(text: &str) -> Result<String, String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.split(['/', ':']).next().unwrap_or_default();
    let is_in_names = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if bare.is_empty() || !bare.bytes().all(is_in_names) {
        return Err("give the name of a host; addresses need not be given".to_owned());
    }
    if bare != text {
        return Err(format!("give the name alone, {bare}: it holds for every port"));
    }
    Ok(text.to_owned())
}

/// How packets' connections are given to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Balancing {
    Random,
    Maglev,
}

/// The size of a Maglev table, of which there are few to choose from.
fn table_size(text: &str) -> Result<TableSize, String> {
    let size = text.parse().ok().and_then(TableSize::with);
    size.ok_or_else(|| {
        let all = TableSize::ALL.map(|size| size.places().to_string());
        format!("give one of {}", all.join(", "))
    })
}

/// Services.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Services")]
pub(crate) struct ProxyArgs {
    /// The cgroup whose processes get Services (default: the cgroup2 mount, that is everything on the node)
    #[arg(long, value_name = "PATH", env = "FAIRLEAD_CGROUP_ROOT")]
    pub(crate) cgroup_root: Option<PathBuf>,
    /// BPF file system, where maps and links outlive the agent; mounted if absent
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf", env = "FAIRLEAD_BPFFS")]
    pub(crate) bpffs: PathBuf,
    /// Devices where packets from outside arrive: auto, or a comma-separated list
    #[arg(long, value_name = "auto|LIST", default_value = "auto", env = "FAIRLEAD_DEVICES")]
    pub(crate) devices: String,
    /// Room for so many Service addresses (address, port and protocol each)
    #[arg(long, value_name = "N", default_value_t = 262_144, env = "FAIRLEAD_FRONTENDS_MAX")]
    pub(crate) frontends_max: u32,
    /// Room for so many backends, counted once per Service port
    #[arg(long, value_name = "N", default_value_t = 1_048_576, env = "FAIRLEAD_BACKENDS_MAX")]
    pub(crate) backends_max: u32,
    /// How packets' connections are given to endpoints where a Service has no annotation
    /// fairlead.io/load-balancing: at random, or by a hash of the client, on every node alike
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value = "random",
        env = "FAIRLEAD_LOAD_BALANCING"
    )]
    pub(crate) load_balancing: Balancing,
    /// Places of a Maglev table, the same for all agents: a hundred for each endpoint of the largest Service
    #[arg(long, value_name = "PLACES", default_value = "1024", env = "FAIRLEAD_MAGLEV_TABLE_SIZE",
          value_parser = table_size)]
    pub(crate) maglev_table_size: TableSize,
    /// Room for so many pieces of Maglev tables, of 64 places each
    #[arg(long, value_name = "N", default_value_t = 65_536, env = "FAIRLEAD_MAGLEV_MAX")]
    pub(crate) maglev_max: u32,
    /// Room for so many ranges of loadBalancerSourceRanges, of all Services together
    #[arg(long, value_name = "N", default_value_t = 65_536, env = "FAIRLEAD_SOURCE_RANGES_MAX")]
    pub(crate) source_ranges_max: u32,
    /// Count what Services' clients send and get: connections by socket when they close, others by packet
    #[arg(long, env = "FAIRLEAD_COUNT_BYTES")]
    pub(crate) count_bytes: bool,
    /// Drop packets to addresses in these ranges that no Service has, besides those of ServiceCIDR objects:
    /// the API server's --service-cluster-ip-range, where it has no such objects (before 1.33)
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', env = "FAIRLEAD_SERVICE_CIDR")]
    pub(crate) service_cidr: Vec<IpNetwork>,
    /// Where NodePorts answer: all, primary (the Node object's addresses), localhost, or address ranges
    #[arg(
        long,
        value_name = "WHERE,...",
        value_delimiter = ',',
        default_value = "all",
        env = "FAIRLEAD_NODEPORT_ADDRESSES"
    )]
    pub(crate) nodeport_addresses: Vec<String>,
    /// Backends see the node's address instead of the client's, for every packet to a Service
    #[arg(long, env = "FAIRLEAD_MASQUERADE_ALL")]
    pub(crate) masquerade_all: bool,
    /// Serve spec.externalIPs: whoever may write a Service can then take any address (CVE-2020-8554)
    #[arg(long, env = "FAIRLEAD_EXTERNAL_IPS")]
    pub(crate) external_ips: bool,
}

/// DNS.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "DNS")]
pub(crate) struct DnsArgs {
    /// Answer on these addresses, UDP and TCP
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "FAIRLEAD_DNS_LISTEN",
          default_values = ["0.0.0.0:53", "[::]:53"])]
    pub(crate) dns_listen: Vec<SocketAddr>,
    /// Serve by this CoreDNS configuration; it takes the place of the flags that say what is answered
    #[arg(long, value_name = "FILE", env = "FAIRLEAD_COREFILE")]
    pub(crate) corefile: Option<PathBuf>,
    /// The cluster's domain
    #[arg(
        long,
        value_name = "DOMAIN",
        default_value = "cluster.local",
        env = "FAIRLEAD_CLUSTER_DOMAIN"
    )]
    pub(crate) cluster_domain: String,
    /// Ask these servers for everything else (default: those of /etc/resolv.conf)
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "FAIRLEAD_UPSTREAM")]
    pub(crate) upstream: Vec<Upstream>,
    /// Time to live of the cluster's records
    #[arg(long, value_name = "SECONDS", default_value_t = 30, env = "FAIRLEAD_DNS_TTL",
          value_parser = clap::value_parser!(u32).range(..=TTL_SECONDS_MAX))]
    pub(crate) dns_ttl: u32,
    /// Time to live of "no such name" and "no such record"
    #[arg(long, value_name = "SECONDS", default_value_t = 5, env = "FAIRLEAD_DNS_NEGATIVE_TTL",
          value_parser = clap::value_parser!(u32).range(..=TTL_SECONDS_MAX))]
    pub(crate) dns_negative_ttl: u32,
    /// Answer no more questions a second of one client (default: no limit)
    #[arg(long, value_name = "N", env = "FAIRLEAD_DNS_CLIENT_RATE")]
    pub(crate) dns_client_rate: Option<std::num::NonZeroU32>,
    /// Ask upstreams in random letter case, which a forger must guess, too
    #[arg(long, env = "FAIRLEAD_DNS_RANDOM_CASE")]
    pub(crate) dns_random_case: bool,
}

/// Ingress.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Ingress")]
pub(crate) struct IngressArgs {
    /// Take HTTP here
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "FAIRLEAD_HTTP_LISTEN",
          default_values = ["0.0.0.0:80", "[::]:80"])]
    pub(crate) http_listen: Vec<SocketAddr>,
    /// Take HTTPS here
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "FAIRLEAD_HTTPS_LISTEN",
          default_values = ["0.0.0.0:443", "[::]:443"])]
    pub(crate) https_listen: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) classes: ClassArgs,
    /// Redirect plain HTTP to this port (default: that of the first --https-listen)
    #[arg(long, value_name = "PORT", env = "FAIRLEAD_HTTPS_REDIRECT_PORT")]
    pub(crate) https_redirect_port: Option<u16>,
    /// Strict-Transport-Security on HTTPS answers of hosts with TLS; "" sends none
    #[arg(
        long,
        value_name = "VALUE",
        default_value = "max-age=31536000; includeSubDomains",
        env = "FAIRLEAD_HSTS"
    )]
    pub(crate) hsts: StrictTransport,
    /// Largest body of a request where no annotation says otherwise, in bytes; 0 is no limit
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 1_048_576,
        env = "FAIRLEAD_BODY_BYTES_MAX"
    )]
    pub(crate) body_bytes_max: u64,
    /// Clients of all UDP services at a time; whoever was silent longest gives way
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 16_384,
        value_parser = clap::value_parser!(u32).range(1..),
        env = "FAIRLEAD_UDP_CLIENTS_MAX"
    )]
    pub(crate) udp_clients_max: u32,
    /// Clients of one UDP service at a time
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 8_192,
        value_parser = clap::value_parser!(u32).range(1..),
        env = "FAIRLEAD_UDP_CLIENTS_PER_SERVICE_MAX"
    )]
    pub(crate) udp_clients_per_service_max: u32,
    /// Every connection begins with a PROXY header, version 1 or 2; others are closed
    #[arg(long, env = "FAIRLEAD_PROXY_PROTOCOL")]
    pub(crate) proxy_protocol: bool,
    /// Believe PROXY headers of these balancers alone (default: of everybody who can connect)
    #[arg(
        long,
        value_name = "CIDR,...",
        value_delimiter = ',',
        requires = "proxy_protocol",
        env = "FAIRLEAD_PROXY_PROTOCOL_FROM"
    )]
    pub(crate) proxy_protocol_from: Vec<IpNetwork>,
    /// Log requests to this file, or with - to standard output; "" logs none
    #[arg(long, value_name = "FILE|-", default_value = "", env = "FAIRLEAD_ACCESS_LOG")]
    pub(crate) access_log: AccessLogPlace,
    /// As ingress-nginx does (upstreaminfo), as json, or as text with nginx's variables
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "upstreaminfo",
        env = "FAIRLEAD_ACCESS_LOG_FORMAT"
    )]
    pub(crate) access_log_format: LogFormat,
    /// Certificate for hosts without one of their own (default: self-signed)
    #[arg(long, value_name = "NS/NAME", env = "FAIRLEAD_DEFAULT_CERTIFICATE")]
    pub(crate) default_certificate: Option<NamespacedName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_of_few_sizes() {
        assert_eq!(table_size("256"), Ok(TableSize::ALL[0]));
        for text in ["251", "", "-1", "131072"] {
            let error = table_size(text).unwrap_err();
            assert!(error.starts_with("give one of 256, 512, 1024"), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_for_the_page_is_what_a_browsers_host_can_be_compared_with() {
        for (text, said) in [
            ("node1.example", None),
            ("Node_1", None),
            ("node1.example:10247", Some("alone, node1.example:")),
            ("http://node1.example", Some("alone, node1.example:")),
            ("https://node1.example:8443/page", Some("alone, node1.example:")),
            ("node1.example/", Some("alone, node1.example:")),
            ("*.example", Some("the name of a host")),
            ("::1", Some("addresses need not")),
            ("", Some("the name of a host")),
            ("a b", Some("the name of a host")),
        ] {
            match (web_host(text), said) {
                (Ok(name), None) => assert_eq!(name, text),
                (Err(error), Some(said)) => assert!(error.contains(said), "{text}: {error}"),
                (parsed, _) => panic!("{text}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn upstreams_may_leave_the_port_out() {
        for (text, expected) in [
            ("10.0.0.2", Some("10.0.0.2:53")),
            ("10.0.0.2:5353", Some("10.0.0.2:5353")),
            ("fd00::2", Some("[fd00::2]:53")),
            ("[fd00::2]:5353", Some("[fd00::2]:5353")),
            ("dns.example.com", None),
            ("", None),
        ] {
            let parsed = text.parse().ok().map(|Upstream(address)| address.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }
}
