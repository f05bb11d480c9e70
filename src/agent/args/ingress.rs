//! Flags of Ingress.

use std::{convert::Infallible, net::SocketAddr};

use fairlead_ingress::{Hsts, LogFormat, LogTarget};
use ipnetwork::IpNetwork;

use super::{listen, or_none::OrNone, publish::NamespacedName};
use crate::classes::ClassArgs;

/// Ingress.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Ingress")]
pub(crate) struct IngressArgs {
    /// Take HTTP here
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "FAIRLEAD_HTTP_LISTEN",
          default_values = ["0.0.0.0:80", "[::]:80"], value_parser = listen::port)]
    pub(crate) http_listen: Vec<SocketAddr>,
    /// Take HTTPS here
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "FAIRLEAD_HTTPS_LISTEN",
          default_values = ["0.0.0.0:443", "[::]:443"], value_parser = listen::port)]
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
        value_parser = hsts,
        env = "FAIRLEAD_HSTS"
    )]
    pub(crate) hsts: OrNone<Hsts>,
    /// Largest body of a request where no annotation says otherwise, in bytes; 0 is no limit
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 1_048_576,
        env = "FAIRLEAD_BODY_BYTES_MAX"
    )]
    pub(crate) body_bytes_max: u64,
    /// Connections of one client's address at a time (of IPv6, of one /64); more are closed at once.
    /// Named balancers (proxy-real-ip-cidr) are not counted, behind --proxy-protocol its clients are
    /// (default: no limit)
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..),
        env = "FAIRLEAD_CLIENT_CONNECTIONS_MAX"
    )]
    pub(crate) client_connections_max: Option<u32>,
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
    #[arg(long, value_name = "FILE|-", default_value = "", value_parser = access_log,
          env = "FAIRLEAD_ACCESS_LOG")]
    pub(crate) access_log: OrNone<LogTarget>,
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

fn hsts(text: &str) -> Result<OrNone<Hsts>, String> {
    OrNone::of(text, str::parse)
}

fn access_log(text: &str) -> Result<OrNone<LogTarget>, Infallible> {
    OrNone::of(text, |text| {
        Ok(match text {
            "-" => LogTarget::Stdout,
            path => LogTarget::File(path.into()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_log_is_a_file_or_standard_output_or_none() {
        for (text, target) in [
            ("", None),
            ("-", Some(LogTarget::Stdout)),
            ("/var/log/access.log", Some(LogTarget::File("/var/log/access.log".into()))),
        ] {
            assert_eq!(access_log(text), Ok(OrNone(target)), "{text}");
        }
    }

    #[test]
    fn what_browsers_are_told_of_https_is_a_header_or_nothing() {
        assert!(matches!(hsts(""), Ok(OrNone(None))));
        assert!(matches!(hsts("max-age=60"), Ok(OrNone(Some(_)))));
        let refused = hsts("on").map(|_| ());
        assert!(refused.is_err_and(|error| error.contains("max-age=SECONDS")));
    }
}
