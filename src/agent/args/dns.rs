//! Flags of DNS.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use super::listen;

const DNS_PORT: u16 = 53;
/// As CoreDNS' `ttl`: an hour.
const TTL_SECONDS_MAX: i64 = 3600;

/// DNS.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "DNS")]
pub(crate) struct DnsArgs {
    /// Answer on these addresses, UDP and TCP
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "FAIRLEAD_DNS_LISTEN",
          default_values = ["0.0.0.0:53", "[::]:53"], value_parser = listen::port)]
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
    #[arg(long, value_name = "SECONDS", default_value_t = 1, env = "FAIRLEAD_DNS_NEGATIVE_TTL",
          value_parser = clap::value_parser!(u32).range(..=TTL_SECONDS_MAX))]
    pub(crate) dns_negative_ttl: u32,
    /// Answer no more questions a second of one client's address (of IPv6, of one /64 unless it is of
    /// fc00::/7) (default: no limit)
    #[arg(long, value_name = "N", env = "FAIRLEAD_DNS_CLIENT_RATE")]
    pub(crate) dns_client_rate: Option<std::num::NonZeroU32>,
    /// Ask upstreams in random letter case, which a forger must guess, too
    #[arg(long, env = "FAIRLEAD_DNS_RANDOM_CASE")]
    pub(crate) dns_random_case: bool,
}

/// A name server: `10.0.0.2`, `10.0.0.2:5353`, `fd00::2` or `[fd00::2]:5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upstream(pub(crate) SocketAddr);

impl FromStr for Upstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let with_port = text.parse::<SocketAddr>();
        let bare = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        let address = with_port.or_else(|_| bare());
        address.map(Self).map_err(|_| "give an IP address, or ADDRESS:PORT")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
