//! Settings of the Ingress role, with ingress-nginx's defaults where it has one.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use fairlead_state::{Key, Name};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{REFERER, USER_AGENT},
};
use ipnetwork::IpNetwork;

use crate::{
    access_log::AccessLog, host::HostPattern, matcher::TextMatches, networks::Networks,
    traces::Traces,
};

/// Names the process that keeps an address from being taken, by UDP or not; `None`: nobody knows.
pub type HolderOf = fn(SocketAddr, bool) -> Option<String>;

/// Everything the role is told at start.
#[derive(Clone, Debug)]
pub struct IngressConfig {
    /// Where plain HTTP is served; port 0 takes a free one.
    pub http_listen: Vec<SocketAddr>,
    /// Where HTTPS is served; port 0 takes a free one.
    pub https_listen: Vec<SocketAddr>,
    /// What the legacy annotation `kubernetes.io/ingress.class` is compared with.
    pub ingress_class: String,
    /// IngressClasses with this `spec.controller` are ours.
    pub controller: String,
    /// Also serve Ingresses that name no class.
    pub watch_ingress_without_class: bool,
    /// Names that Services of type ExternalName may lead to: host names, and `*.` names of one label.
    /// Others are not served.
    pub external_names: Vec<HostPattern>,
    /// Networks of this node, its links or a cloud's metadata that URLs of Ingresses (annotations `auth-url` and
    /// `mirror-target`) may lead to nevertheless.
    pub inside_allowed: Vec<IpNetwork>,
    /// The Node this runs on, to none of whose addresses such a name may lead; `None`: those of the
    /// interfaces are all that is known.
    pub node_name: Option<Name>,
    /// The Node is one of a cluster's: as long as it cannot be read, such names lead nowhere. Of a machine
    /// without a cluster there is none.
    pub is_node_expected: bool,
    /// Secret of the certificate for names without one of their own; a self-signed one otherwise.
    pub default_certificate: Option<Key>,
    /// Data threads; one per processor if absent.
    pub threads: Option<usize>,
    /// Port that redirects to HTTPS name; that of the first HTTPS listener if absent.
    pub https_redirect_port: Option<u16>,
    /// What browsers are told on HTTPS answers of hosts with a TLS section; `None`: nothing.
    pub hsts: Option<Hsts>,
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What to do with forwarding fields a client sends.
    pub forwarded_headers: ForwardedHeaders,
    /// Who is believed where forwarding fields are; everybody if empty.
    pub trusted_proxies: Networks,
    /// Fields of endpoints' answers that no client sees.
    pub hidden_headers: Box<[HeaderName]>,
    /// Status of a redirect to HTTPS.
    pub https_redirect_status: StatusCode,
    /// Status where a client asks too often.
    pub request_rate_status: StatusCode,
    /// Status where a client has too many requests in service.
    pub client_connections_status: StatusCode,
    /// How answers are compressed for clients that take them so; `None`: they are not.
    pub compression: Option<Compression>,
    /// Who is let in nowhere.
    pub blocked: Blocked,
    /// How TLS is spoken with clients.
    pub tls: TlsSettings,
    /// A ConfigMap in ingress-nginx's words that changes these settings while they are in force.
    pub config_map: Option<Key>,
    /// A ConfigMap of TCP services, as ingress-nginx's.
    pub tcp_services: Option<Key>,
    /// A ConfigMap of UDP services, as ingress-nginx's.
    pub udp_services: Option<Key>,
    /// Ports this process listens on besides: no TCP or UDP service is given them.
    pub other_ports: Vec<u16>,
    /// Whom to name where a TCP or UDP service's port cannot be had.
    pub holder_of: HolderOf,
    /// How paths are compared.
    pub matching: Matching,
    /// Let fields with `_` in their name through. Many upstreams read `X_Real_IP` as `X-Real-IP`.
    pub underscores_in_headers: bool,
    /// What is logged of requests; `None`: nothing, at no cost.
    pub access_log: Option<AccessLog>,
    /// Where traces of requests go; `None`: there are none.
    pub traces: Option<Arc<Traces>>,
    /// Sizes and numbers.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// The value of `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hsts(HeaderValue);

impl Hsts {
    pub(crate) fn value(&self) -> &HeaderValue {
        &self.0
    }
}

impl Default for Hsts {
    /// ingress-nginx's.
    fn default() -> Self {
        Self(HeaderValue::from_static("max-age=31536000; includeSubDomains"))
    }
}

impl FromStr for Hsts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cure = || format!("{text:?}: give max-age=SECONDS, perhaps with ; includeSubDomains");
        let mut directives = text.split(';').map(str::trim);
        let age = directives.next().and_then(|age| age.strip_prefix("max-age="));
        age.and_then(|age| age.parse::<u32>().ok()).ok_or_else(cure)?;
        if !directives.all(|directive| ["includeSubDomains", "preload"].contains(&directive)) {
            return Err(cure());
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| cure())
    }
}

/// Whose PROXY header is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Balancers; everybody if empty. The header of another is required, too, and not believed.
    pub trusted: Networks,
}

impl ProxyProtocol {
    /// The header counts, whoever sends it: no list of balancers, or one of all addresses.
    pub fn believes_everybody(&self) -> bool {
        names_nobody(&self.trusted)
    }

    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.is_empty() || self.trusted.contains(peer)
    }

    /// One of the balancers that are named. A network of all addresses names nobody.
    pub(crate) fn names(&self, peer: IpAddr) -> bool {
        self.trusted.names(peer.to_canonical())
    }
}

/// All are named by a network of all addresses, and by no network.
fn names_nobody(networks: &Networks) -> bool {
    networks.is_empty() || networks.has_all()
}

/// How requests' paths are compared with those of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// As by ingress-nginx, its surprises included: one regular expression makes all paths of its
    /// host beginnings of expressions that ignore case, whatever their type; `rewrite-target` does
    /// so, too; a path that lacks the last slash of a rule, of whatever type, is redirected to it;
    /// dot segments and empty segments are resolved before paths are compared.
    #[default]
    Compat,
    /// As the types say: an expression is one for the rule that has it, for the whole path, and
    /// with case, and only of type ImplementationSpecific with `use-regex`; nothing is
    /// redirected; paths with dot segments or empty segments are refused (400).
    Strict,
}

/// How TLS is spoken with clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// TLS 1.2 beside 1.3.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
    /// HTTP/2, if the client speaks it.
    pub http2: bool,
    /// Sessions are resumed by tickets.
    pub tickets: bool,
    /// Names that nobody has a rule, an alias or a TLS section for are refused instead of shown the
    /// default certificate.
    pub rejects_unknown: bool,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { tls12: true, tls13: true, http2: true, tickets: true, rejects_unknown: false }
    }
}

/// How answers are compressed, by gzip (RFC 1952).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// From 1, the fastest, to 9.
    pub level: u32,
    /// A shorter one, in bytes, is sent as it is.
    pub length_min: u64,
    /// Values of `Content-Type` without parameters; `*` is all of them, and `text/html` always one.
    pub types: Box<[Box<str>]>,
}

impl Default for Compression {
    /// ingress-nginx's.
    fn default() -> Self {
        const TYPES: [&str; 17] = [
            "application/atom+xml",
            "application/javascript",
            "application/json",
            "application/rss+xml",
            "application/vnd.ms-fontobject",
            "application/x-font-ttf",
            "application/x-javascript",
            "application/x-web-app-manifest+json",
            "application/xhtml+xml",
            "application/xml",
            "font/opentype",
            "image/svg+xml",
            "image/x-icon",
            "text/css",
            "text/javascript",
            "text/plain",
            "text/x-component",
        ];
        Self { level: 1, length_min: 256, types: TYPES.into_iter().map(Into::into).collect() }
    }
}

/// Who is let in nowhere, whatever an Ingress says (403).
#[derive(Clone, Debug, Default)]
pub struct Blocked {
    /// By address.
    pub addresses: Networks,
    /// By `User-Agent`.
    pub agents: TextMatches,
    /// By `Referer`.
    pub referers: TextMatches,
}

impl Blocked {
    /// `client`: called if addresses are blocked; behind a balancer it is read from a list.
    pub(crate) fn blocks(&self, client: impl FnOnce() -> IpAddr, headers: &HeaderMap) -> bool {
        if !self.addresses.is_empty() && self.addresses.contains(client()) {
            return true;
        }
        let value = |name| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        (!self.agents.is_empty() && self.agents.fits(value(USER_AGENT)))
            || (!self.referers.is_empty() && self.referers.fits(value(REFERER)))
    }
}

/// What to do with `X-Forwarded-*`, `X-Real-IP` and `Forwarded` of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeaders {
    /// Replace them by what is known of the connection: clients are not believed.
    #[default]
    Replace,
    /// A trusted balancer stands in front: keep its fields and append to `X-Forwarded-For`.
    Trust,
}

/// Sizes and numbers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Request line and fields together; more is answered 431.
    pub head_bytes_max: usize,
    /// Path and query; more is answered 414.
    pub uri_bytes_max: usize,
    /// Body of a request where no annotation says otherwise; more is answered 413.
    pub body_bytes_max: u64,
    /// Read and write buffer of one connection.
    pub buffer_bytes_max: usize,
    /// What bodies hold where an Ingress asks for buffering, in bytes, all of them; each thread has an
    /// equal share. What finds no room goes on as it comes.
    pub buffered_bytes_max: usize,
    /// What copies for mirrors hold, in bytes, all of them; each thread has an equal share, and of that
    /// one namespace a quarter, or a whole body where that is more. A copy that finds no room is not made.
    pub copied_bytes_max: usize,
    /// Client connections of all threads; more are closed at once and counted. Before their PROXY headers have
    /// come an eighth of them at most are of one peer's address, unless it is a balancer that is named
    /// ([`ProxyProtocol::trusted`]).
    pub connections_max: usize,
    /// Of those, connections of one client's address (of IPv6, of one /64); more are closed at once and
    /// counted. `None`: any number. Those of balancers that are named ([`IngressConfig::trusted_proxies`])
    /// are not counted; behind a PROXY header that is believed the client it names is.
    pub client_connections_max: Option<NonZeroUsize>,
    /// Clients of all UDP services, a socket each; whoever was silent longest gives way.
    pub udp_clients_max: usize,
    /// Clients of one UDP service.
    pub udp_clients_per_service_max: usize,
    /// HTTP/2 streams of one connection.
    pub h2_streams_max: u32,
    /// Requests on one connection: the last one's answer closes it, and an HTTP/2 client is told to
    /// send no more.
    pub requests_per_connection_max: u64,
    /// Endpoints asked for one request.
    pub upstream_tries_max: usize,
    /// Idle connections kept per endpoint and thread.
    pub upstream_idle_per_endpoint_max: usize,
}

/// How long things may take, in milliseconds.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// TLS handshake.
    pub tls_handshake_ms: u64,
    /// From the first byte of a request's head to its last.
    pub header_read_ms: u64,
    /// Between two parts of a request's body.
    pub client_body_ms: u64,
    /// Between two successful writes to a client that has something to read; of a WebSocket, since
    /// anything last passed, either way.
    pub client_send_ms: u64,
    /// Between two requests of a connection.
    pub keep_alive_idle_ms: u64,
    /// TCP connection to an endpoint.
    pub upstream_connect_ms: u64,
    /// How long after the last endpoint became unreachable requests wait for another one.
    pub upstream_change_ms: u64,
    /// Between two parts of a request taken by an endpoint; of a WebSocket, as above.
    pub upstream_send_ms: u64,
    /// Between two parts of a response; of a WebSocket, as above.
    pub upstream_read_ms: u64,
    /// An unused connection to an endpoint.
    pub upstream_idle_ms: u64,
    /// A connection that is passed on unopened, on which neither side sends.
    pub stream_idle_ms: u64,
    /// Draining: how long connections are still accepted, so that those half open are completed
    /// and whoever balances in front has seen that this process is not ready.
    pub drain_accept_ms: u64,
    /// Draining: how long, after that, idle HTTP/1 connections may still bring a request, which is
    /// answered with `Connection: close`.
    pub drain_linger_ms: u64,
    /// Draining: what is open after this is cut.
    pub drain_ms: u64,
}

impl IngressConfig {
    /// Forwarding fields count, whoever sends them: no list of balancers, or one of all addresses.
    pub(crate) fn believes_everybody(&self) -> bool {
        self.forwarded_headers == ForwardedHeaders::Trust && names_nobody(&self.trusted_proxies)
    }

    /// What is done with forwarding fields of a connection from there.
    pub(crate) fn forwarded_by(&self, peer: IpAddr) -> ForwardedHeaders {
        let peer = peer.to_canonical();
        if self.trusted_proxies.is_empty() || self.trusted_proxies.contains(peer) {
            return self.forwarded_headers;
        }
        ForwardedHeaders::Replace
    }

    /// What a PROXY header says that a TCP service's client sends counts: from there HTTP's would, or, where none
    /// are taken, forwarding fields.
    pub(crate) fn trusts_header_of(&self, peer: IpAddr) -> bool {
        let trusted = &self.trusted_proxies;
        self.proxy_protocol.as_ref().map_or_else(
            || trusted.is_empty() || trusted.contains(peer.to_canonical()),
            |own| own.trusts(peer),
        )
    }

    /// One of those that are named. A network of all addresses names nobody.
    pub(crate) fn is_balancer(&self, address: IpAddr) -> bool {
        self.trusted_proxies.names(address)
    }

    pub(crate) fn thread_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores).max(1)
    }
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            http_listen: Vec::new(),
            https_listen: Vec::new(),
            ingress_class: "fairlead".to_owned(),
            controller: "fairlead.io/ingress".to_owned(),
            watch_ingress_without_class: false,
            external_names: Vec::new(),
            inside_allowed: Vec::new(),
            node_name: None,
            is_node_expected: false,
            default_certificate: None,
            threads: None,
            https_redirect_port: None,
            hsts: Some(Hsts::default()),
            proxy_protocol: None,
            forwarded_headers: ForwardedHeaders::default(),
            trusted_proxies: Networks::default(),
            hidden_headers: Box::default(),
            https_redirect_status: StatusCode::PERMANENT_REDIRECT,
            request_rate_status: StatusCode::SERVICE_UNAVAILABLE,
            client_connections_status: StatusCode::SERVICE_UNAVAILABLE,
            compression: None,
            blocked: Blocked::default(),
            tls: TlsSettings::default(),
            config_map: None,
            tcp_services: None,
            udp_services: None,
            other_ports: Vec::new(),
            holder_of: |_, _| None,
            matching: Matching::default(),
            underscores_in_headers: false,
            access_log: None,
            traces: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 << 10,
            uri_bytes_max: 8 << 10,
            body_bytes_max: 1 << 20,
            buffer_bytes_max: 128 << 10,
            buffered_bytes_max: 256 << 20,
            copied_bytes_max: 128 << 20,
            connections_max: 65_536,
            client_connections_max: None,
            udp_clients_max: 16_384,
            udp_clients_per_service_max: 8_192,
            h2_streams_max: 128,
            requests_per_connection_max: u64::MAX,
            upstream_tries_max: 3,
            upstream_idle_per_endpoint_max: 128,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tls_handshake_ms: 10_000,
            header_read_ms: 60_000,
            client_body_ms: 60_000,
            client_send_ms: 60_000,
            keep_alive_idle_ms: 75_000,
            upstream_connect_ms: 5_000,
            upstream_change_ms: 1_000,
            upstream_send_ms: 60_000,
            upstream_read_ms: 60_000,
            upstream_idle_ms: 60_000,
            stream_idle_ms: 600_000,
            // A SYN or the answer to it that got lost is sent again after 1 s (RFC 6298).
            drain_accept_ms: 2_000,
            drain_linger_ms: 3_000,
            drain_ms: 30_000,
        }
    }
}

/// No part of draining takes more than this share of its time.
const DRAIN_SHARE: u64 = 4;

impl Timeouts {
    /// How long connections are accepted while draining.
    pub(crate) fn drain_accept(&self) -> Duration {
        Duration::from_millis(self.drain_accept_ms.min(self.drain_ms / DRAIN_SHARE))
    }

    /// How long idle connections are kept open after that.
    pub(crate) fn drain_linger(&self) -> Duration {
        Duration::from_millis(self.drain_linger_ms.min(self.drain_ms / DRAIN_SHARE))
    }

    /// The shortest one: what the clock of a data thread must be able to tell apart.
    pub(crate) fn shortest_ms(&self) -> u64 {
        let all = [
            self.tls_handshake_ms,
            self.header_read_ms,
            self.client_body_ms,
            self.client_send_ms,
            self.keep_alive_idle_ms,
            self.upstream_connect_ms,
            self.upstream_send_ms,
            self.upstream_read_ms,
            self.upstream_idle_ms,
            self.stream_idle_ms,
        ];
        all.into_iter().min().unwrap_or(1_000)
    }
}
