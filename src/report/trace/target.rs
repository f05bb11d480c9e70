//! What is traced: `tcp 10.96.0.1:443`, `udp kube-dns.kube-system:53`, `https://shop.example/cart`.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, bail};
use fairlead_state::model::Protocol;

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) protocol: Protocol,
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) http: Option<Http>,
}

/// The request on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Http {
    pub(crate) is_tls: bool,
    /// Without query.
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    /// The words of the command line, joined by a space.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let (is_tls, default_port) = match scheme {
                "http" => (false, 80),
                "https" => (true, 443),
                _ => bail!("{text:?}: only http:// and https:// URLs are traced"),
            };
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end).context("no URL")?;
            let path = path.split(['?', '#']).next().unwrap_or_default();
            let path = if path.starts_with('/') { path } else { "/" };
            let (host, port) = match split(authority) {
                Some((host, port)) => (host, port),
                None => (authority.trim_matches(['[', ']']).to_owned(), default_port),
            };
            if host.is_empty() || !is_plain(&host) {
                bail!("{text:?} names no host");
            }
            let http = Some(Http { is_tls, path: path.to_owned() });
            return Ok(Self { protocol: Protocol::Tcp, host, port, http });
        }
        let usage = "give tcp, udp or sctp and HOST:PORT, or an http:// or https:// URL";
        let (protocol, to) = text.split_once(' ').context(usage)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            other => bail!("{other:?} is no protocol: {usage}"),
        };
        let (host, port) =
            split(to.trim()).with_context(|| format!("{to:?} is no HOST:PORT: {usage}"))?;
        Ok(Self { protocol, host, port, http: None })
    }
}

/// `HOST:PORT`, `[V6]:PORT`.
fn split(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return None;
    }
    let host = bare.unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty() && is_plain(host)).then(|| (host.to_owned(), port))
}

/// What is neither a name nor an address is refused here: it would end up on somebody's terminal.
fn is_plain(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_graphic())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host, port, http } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        match http {
            None => write!(f, "{protocol} {host}:{port}"),
            Some(Http { is_tls, path }) => {
                let (scheme, usual) = if *is_tls { ("https", 443) } else { ("http", 80) };
                write!(f, "{scheme}://{host}")?;
                if *port != usual {
                    write!(f, ":{port}")?;
                }
                f.write_str(path)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_said_alike() {
        for (text, said) in [
            ("tcp 10.96.0.1:443", "tcp 10.96.0.1:443"),
            ("udp kube-dns.kube-system:53", "udp kube-dns.kube-system:53"),
            ("sctp [fd00::1]:9", "sctp [fd00::1]:9"),
            ("http://shop.example", "http://shop.example/"),
            ("https://shop.example:8443/a/b?c=d", "https://shop.example:8443/a/b"),
            ("http://[fd00::1]/x", "http://[fd00::1]/x"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), said);
        }
        for bad in [
            "",
            "tcp",
            "tcp web",
            "tcp web:0",
            "tcp :80",
            "icmp a:1",
            "ftp://a",
            "http:///",
            "tcp a\x1b[2J:80",
        ] {
            let error = bad.parse::<Target>().unwrap_err().to_string();
            assert!(!error.contains('\n') && !error.is_empty(), "{bad:?}: {error}");
        }
    }
}
