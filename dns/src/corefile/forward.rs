//! `forward FROM TO... { ... }`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::op::ResponseCode;

use super::{CorefileError, blocks::Directive, tokens::Token, values};

/// Most upstreams of one line, as in CoreDNS.
const UPSTREAMS_MAX: usize = 15;
/// Probes are not to be a flood.
const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(10);
const DNS_PORT: u16 = 53;
/// RFC 7858 §3.1.
const TLS_PORT: u16 = 853;
const HTTPS_PORT: u16 = 443;
const KNOWN: &str = "except, force_tcp, prefer_udp, expire, max_fails, max_connect_attempts, policy, \
                     health_check, max_concurrent, next, next_on_nodata, \
                     failfast_all_unhealthy_upstreams, tls, tls_servername, doh_method";

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP, and TCP after truncation.
    Plain,
    /// TCP only.
    Tcp,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A server.
    Server(SocketAddr),
    /// A server that is asked over TLS.
    Tls {
        /// Where.
        address: SocketAddr,
        /// The name its certificate must have; `None`: that of `tls_servername`, or its address.
        name: Option<String>,
        /// By requests of HTTP/2 (RFC 8484), to the path `/dns-query`.
        https: bool,
    },
    /// The `nameserver` lines of a file.
    File(PathBuf),
}

impl To {
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Server(address) | Self::Tls { address, .. } => Some(*address),
            Self::File(_) => None,
        }
    }
}

/// How servers asked over TLS show who they are, and we who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Files of our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// File of the authorities to believe; `None`: the machine's.
    pub authorities: Option<PathBuf>,
    /// `tls_servername`.
    pub server_name: Option<String>,
}

/// Whom to ask first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardPolicy {
    /// Any.
    #[default]
    Random,
    /// In turn.
    RoundRobin,
    /// In the order written.
    Sequential,
}

/// Options of one `forward` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// Names at and below this zone are forwarded.
    pub from: String,
    /// Whom to ask; never empty.
    pub to: Vec<To>,
    /// Names at and below these are not forwarded.
    pub except: Vec<String>,
    /// `force_tcp`: for servers that are not asked over TLS.
    pub transport: Transport,
    /// `tls`, `tls_servername`.
    pub tls: TlsOptions,
    /// `policy`.
    pub policy: ForwardPolicy,
    /// Questions at the upstreams at one time; more are refused. `None`: the server's own limit.
    pub max_concurrent: Option<usize>,
    /// `health_check`, `max_fails` and `failfast_all_unhealthy_upstreams`.
    pub health_check: HealthCheck,
    /// `next`: with such a code the following lines are asked, if any takes the name.
    pub next: Vec<ResponseCode>,
    /// `next_on_nodata`: likewise with a reply that has no answer.
    pub next_on_nodata: bool,
    /// Names are asked for in random letter case (draft-vixie-dnsext-dns0x20). No line of a Corefile's.
    pub random_case: bool,
}

/// How upstreams that do not answer are found and left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Between two probes of an upstream.
    pub interval: Duration,
    /// Probes in a row that may fail; 0: no upstream is ever left out.
    pub max_fails: u32,
    /// Probes want recursion; not with `no_rec`.
    pub recursion_desired: bool,
    /// The name probes ask for.
    pub domain: String,
    /// When no upstream answers, questions fail at once instead of trying all.
    pub fail_fast: bool,
}

impl Default for HealthCheck {
    /// CoreDNS's.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            max_fails: 2,
            recursion_desired: true,
            domain: ".".to_owned(),
            fail_fast: false,
        }
    }
}

pub(super) fn read(line: &Directive) -> Result<ForwardOptions, CorefileError> {
    let [from, to @ ..] = line.expect(2, usize::MAX)? else {
        return Err(line
            .name
            .error("forward: write `forward FROM TO...`, such as `forward . 10.0.0.2`"));
    };
    let [from] = &from.zones()?[..] else {
        return Err(from.error("forward: give one zone, not a network of several"));
    };
    if to.len() > UPSTREAMS_MAX {
        return Err(line.name.error(format!("forward: more than {UPSTREAMS_MAX} upstreams")));
    }
    let mut options = ForwardOptions {
        from: from.clone(),
        to: to.iter().map(upstream).collect::<Result<_, _>>()?,
        except: vec![],
        transport: Transport::Plain,
        tls: TlsOptions::default(),
        policy: ForwardPolicy::default(),
        max_concurrent: None,
        health_check: HealthCheck::default(),
        next: vec![],
        next_on_nodata: false,
        random_case: false,
    };
    for option in &line.body {
        read_option(option, &mut options)?;
    }
    // No such address can be written where a request names its host.
    let is_nameless =
        |to: &To| matches!(to, To::Tls { address: SocketAddr::V6(_), name: None, https: true });
    if options.tls.server_name.is_none() && options.to.iter().any(is_nameless) {
        let reason = "forward: an IPv6 address asked by https:// needs tls_servername NAME";
        return Err(line.name.error(reason));
    }
    let differs = |to: &To| match to.address() {
        Some(address) => options.to.iter().any(|o| o.address() == Some(address) && o != to),
        None => false,
    };
    if let Some(To::Server(address) | To::Tls { address, .. }) =
        options.to.iter().find(|to| differs(to))
    {
        let reason = format!("forward: {address} is to be asked in two ways: keep one of them");
        return Err(line.name.error(reason));
    }
    let is_named = |to: &To| matches!(to, To::Tls { name: Some(_), .. });
    if options.tls.server_name.is_some() && options.to.iter().any(is_named) {
        let reason = "forward: tls_servername and a name behind an upstream's %: keep one of them";
        return Err(line.name.error(reason));
    }
    Ok(options)
}

fn read_option(line: &Directive, options: &mut ForwardOptions) -> Result<(), CorefileError> {
    line.no_body()?;
    match line.name.text.as_str() {
        "except" => options.except.extend(values::zones(line.expect(1, usize::MAX)?)?),
        "force_tcp" => {
            line.expect(0, 0)?;
            options.transport = Transport::Tcp;
        }
        "policy" => {
            let policy = line.one()?;
            options.policy = match policy.text.as_str() {
                "random" => ForwardPolicy::Random,
                "round_robin" => ForwardPolicy::RoundRobin,
                "sequential" => ForwardPolicy::Sequential,
                _ => return Err(policy.error("policy: write random, round_robin or sequential")),
            };
        }
        "max_concurrent" => {
            let most = line.one()?.number(0, 1_000_000)?;
            options.max_concurrent = (most > 0).then_some(most);
        }
        "health_check" => {
            let [interval, rest @ ..] = line.expect(1, 4)? else { return Ok(()) };
            let check = &mut options.health_check;
            check.interval = interval.duration()?;
            if check.interval < PROBE_INTERVAL_MIN {
                return Err(interval.error("health_check: give at least 10ms"));
            }
            let mut words = rest.iter();
            while let Some(word) = words.next() {
                match (word.text.as_str(), words.as_slice().first()) {
                    ("no_rec", _) => check.recursion_desired = false,
                    ("domain", Some(name)) => {
                        name.zones()?;
                        check.domain = super::matching::absolute(&name.text);
                        words.next();
                    }
                    _ => {
                        return Err(
                            word.error("health_check: write `DURATION [no_rec] [domain NAME]`")
                        );
                    }
                }
            }
        }
        "max_fails" => options.health_check.max_fails = line.one()?.number(0, u32::MAX)?,
        "failfast_all_unhealthy_upstreams" => {
            line.expect(0, 0)?;
            options.health_check.fail_fast = true;
        }
        // Connections to upstreams live as long as they are used. UDP comes first in any case.
        "expire" | "max_age" => {
            line.one()?.duration()?;
        }
        "max_connect_attempts" | "max_idle_conns" => {
            line.one()?.number(0_u32, u32::MAX)?;
        }
        "prefer_udp" => {
            line.expect(0, 0)?;
        }
        "tls" => {
            let file = |word: &Token| PathBuf::from(&word.text);
            let tls = &mut options.tls;
            match line.expect(0, 3)? {
                [authorities] => tls.authorities = Some(file(authorities)),
                [certificate, key, rest @ ..] => {
                    tls.client = Some((file(certificate), file(key)));
                    tls.authorities = rest.first().map(file);
                }
                [] => {}
            }
        }
        "tls_servername" => options.tls.server_name = Some(server_name(line.one()?)?),
        "doh_method" => {
            let method = line.one()?;
            if method.text != "POST" {
                return Err(method.error("doh_method: only POST is served here: remove this line"));
            }
        }
        "next" => {
            let codes = line.expect(1, usize::MAX)?.iter().map(values::response_code);
            options.next.extend(codes.collect::<Result<Vec<_>, _>>()?);
        }
        "next_on_nodata" => {
            line.expect(0, 0)?;
            options.next_on_nodata = true;
        }
        "failover" => {
            let option = &line.name.text;
            return Err(line.name.error(format!(
                "forward: {option} is CoreDNS's and not served here: remove this line, or keep \
                 CoreDNS for it"
            )));
        }
        _ => return Err(line.unknown("forward", KNOWN)),
    }
    Ok(())
}

/// A name a certificate may have.
fn server_name(word: &Token) -> Result<String, CorefileError> {
    rustls_pki_types::ServerName::try_from(word.text.as_str())
        .map_err(|_| word.error(format!("{:?} is no server's name", word.text)))?;
    Ok(word.text.clone())
}

/// `10.0.0.2`, `10.0.0.2:5353`, `dns://...`, `tls://10.0.0.2%name:853`, `https://10.0.0.2`,
/// `/etc/resolv.conf`.
fn upstream(word: &Token) -> Result<To, CorefileError> {
    let text = word.text.as_str();
    if text.starts_with('/') {
        return Ok(To::File(text.into()));
    }
    let (scheme, text) = text.split_once("://").unwrap_or(("dns", text));
    let port = match scheme {
        "dns" => DNS_PORT,
        "tls" => TLS_PORT,
        "https" if text.contains('/') => {
            return Err(word.error("forward: an https:// upstream has no path: it is /dns-query"));
        }
        "https" => HTTPS_PORT,
        "quic" | "grpc" => {
            return Err(word.error(format!(
                "forward: {scheme} upstreams are not served here: name one for UDP and TCP, tls:// \
                 or https://"
            )));
        }
        _ => return Err(word.error("forward: unknown scheme: write an IP address")),
    };
    let is_tls = scheme != "dns";
    let (text, name) = match text.rsplit_once('%') {
        // In CoreDNS the port stands behind the name, and an IPv6 address' bracket closes there.
        Some((address, rest)) if is_tls => {
            let (rest, port) = match rest.rsplit_once(':') {
                Some((rest, port)) => (rest, format!(":{port}")),
                None => (rest, String::new()),
            };
            let name = rest.trim_end_matches(']');
            let bracket = rest.get(name.len()..).unwrap_or_default();
            (format!("{address}{bracket}{port}"), Some(name))
        }
        _ => (text.to_owned(), None),
    };
    let bare = || {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        inner.unwrap_or(&text).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port))
    };
    let address = text.parse::<SocketAddr>().or_else(|_| bare()).map_err(|_| {
        let text = &word.text;
        word.error(format!("forward: {text:?} is neither an IP address nor a file's absolute path"))
    })?;
    if !is_tls {
        return Ok(To::Server(address));
    }
    let name = name.map(|name| server_name(&Token { text: name.to_owned(), ..word.clone() }));
    Ok(To::Tls { address, name: name.transpose()?, https: scheme == "https" })
}
