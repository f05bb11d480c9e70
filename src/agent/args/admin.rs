//! Flags of running an agent: settings, log, end, and pages.

use std::{net::SocketAddr, path::PathBuf};

use super::{listen, or_none::OrNone};
use crate::logging;

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
        value_parser = listen::page,
        env = "FAIRLEAD_HEALTHZ_LISTEN"
    )]
    pub(crate) healthz_listen: OrNone<SocketAddr>,
    /// Serve Prometheus /metrics here; "" turns it off
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:10249",
        value_parser = listen::page,
        env = "FAIRLEAD_METRICS_LISTEN"
    )]
    pub(crate) metrics_listen: OrNone<SocketAddr>,
    /// Show status, Services, routes, names and traces as a page here, read-only; "" turns it off
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:10247",
        value_parser = listen::page,
        env = "FAIRLEAD_WEB_LISTEN"
    )]
    pub(crate) web_listen: OrNone<SocketAddr>,
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
