//! What is called, parsed from its URL.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    str::FromStr,
};

use anyhow::{Context, bail};

/// Transport and what is spoken on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HTTP/1.1 over TCP.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// One datagram each way.
    Udp,
    /// One question for an IPv4 address over UDP; the path is the name.
    Dns,
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// See [`Scheme`].
    pub(crate) scheme: Scheme,
    /// Name or address, without brackets.
    pub(crate) host: String,
    /// Port, the scheme's own when the URL has none.
    pub(crate) port: u16,
    /// Path and query, at least `/`.
    pub(crate) path: String,
    /// Host and port as the URL wrote them: the Host header.
    pub(crate) authority: String,
}

impl Target {
    /// Whether a TLS handshake comes first.
    pub(crate) fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The first address the system's resolver gives.
    pub(crate) fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let mut found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .with_context(|| format!("looking up {}", self.host))?;
        found.next().with_context(|| format!("{} has no address", self.host))
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = url
            .split_once("://")
            .context("a URL begins with http://, https://, udp:// or dns://")?;
        let (scheme, default_port) = match scheme {
            "http" => (Scheme::Http, Some(80)),
            "https" => (Scheme::Https, Some(443)),
            "udp" => (Scheme::Udp, None),
            "dns" => (Scheme::Dns, Some(53)),
            other => bail!("{other}:// is none of http://, https://, udp:// and dns://"),
        };
        let path_at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        let (host, port) = split_authority(authority)?;
        let port = port.or(default_port).with_context(|| format!("{url} needs a port"))?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { scheme, host, port, path: path.into(), authority: authority.into() })
    }
}

fn split_authority(authority: &str) -> anyhow::Result<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            address.parse::<IpAddr>().with_context(|| format!("[{address}]"))?;
            (address, rest.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        bail!("a URL needs a host");
    }
    let port = port.map(|port| port.parse().with_context(|| format!("port {port}"))).transpose()?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, host, port, path) in [
            ("http://hello", "hello", 80, "/"),
            ("http://hello:30080/a?b", "hello", 30080, "/a?b"),
            ("https://hello.example.com/x", "hello.example.com", 443, "/x"),
            ("udp://10.96.0.10:53", "10.96.0.10", 53, "/"),
            ("dns://10.96.0.10/hello.default.svc", "10.96.0.10", 53, "/hello.default.svc"),
            ("http://[fd77::2]:30080", "fd77::2", 30080, "/"),
            ("http://[::1]/", "::1", 80, "/"),
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!(
                (target.host.as_str(), target.port, target.path.as_str()),
                (host, port, path)
            );
        }
    }

    #[test]
    fn what_is_no_url() {
        for url in [
            "hello",
            "ftp://x",
            "udp://x",
            "http://",
            "http://x:99999",
            "http://[zz]:1",
            "http://:80",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}
