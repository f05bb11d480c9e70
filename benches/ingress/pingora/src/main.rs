//! The least proxy on Pingora that does what the benchmark of Ingress asks of everybody: a table of hosts,
//! ingress-nginx's request fields, its line of log.
//!
//! `pingora-minimal PLAIN TLS CERTIFICATE KEY HOSTS LOG`: two addresses to listen at, PEM files, a file of
//! `HOST ADDRESS` lines, and where requests are logged (`-`: nowhere).

use std::{
    collections::HashMap,
    env,
    error::Error as StdError,
    fs::{self, File},
    io::{BufWriter, Write as _},
    net::SocketAddr,
    sync::Mutex,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType, Result,
    http::RequestHeader,
    listeners::tls::TlsSettings,
    proxy::{ProxyHttp, Session, http_proxy_service},
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many idle connections as ingress-nginx keeps.
const UPSTREAM_IDLE_MAX: usize = 320;

struct Minimal {
    hosts: HashMap<String, SocketAddr>,
    log: Option<Mutex<BufWriter<File>>>,
}

struct Exchange {
    begun: Instant,
    id: String,
    upstream: Option<SocketAddr>,
}

fn main() -> Result<(), Box<dyn StdError>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [plain, tls, certificate, key, hosts, log] = arguments.as_slice() else {
        return Err("usage: pingora-minimal PLAIN TLS CERTIFICATE KEY HOSTS LOG".into());
    };
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: UPSTREAM_IDLE_MAX,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let log = (log != "-").then(|| File::create(log)).transpose()?;
    let log = log.map(|file| Mutex::new(BufWriter::with_capacity(32 << 10, file)));
    let minimal = Minimal { hosts: read_hosts(&fs::read_to_string(hosts)?)?, log };
    let mut service = http_proxy_service(&server.configuration, minimal);
    service.add_tcp(plain);
    let mut settings = TlsSettings::intermediate(certificate, key)?;
    settings.enable_h2();
    service.add_tls_with_settings(tls, None, settings);
    server.add_service(service);
    server.run_forever()
}

fn read_hosts(text: &str) -> Result<HashMap<String, SocketAddr>, Box<dyn StdError>> {
    let line = |line: &str| {
        let (host, address) = line.split_once(' ').ok_or("HOST ADDRESS")?;
        Ok((host.to_owned(), address.parse()?))
    };
    text.lines().map(line).collect()
}

#[async_trait]
impl ProxyHttp for Minimal {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        let id = format!("{:032x}", rand::random::<u128>());
        Exchange { begun: Instant::now(), id, upstream: None }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        let upstream = host(session.req_header()).and_then(|host| self.hosts.get(host));
        let Some(upstream) = upstream else {
            return Error::e_explain(ErrorType::HTTPStatus(404), "no such host");
        };
        ctx.upstream = Some(*upstream);
        Ok(Box::new(HttpPeer::new(upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Exchange,
    ) -> Result<()> {
        let client = session.client_addr().and_then(|address| address.as_inet());
        let client = client.map(|address| address.ip().to_string()).unwrap_or_default();
        let port = session.server_addr().and_then(|address| address.as_inet());
        let port = port.map(|address| address.port().to_string()).unwrap_or_default();
        let is_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let scheme = if is_tls { "https" } else { "http" };
        let host = host(session.req_header()).unwrap_or_default().to_owned();
        request.insert_header("X-Request-ID", &ctx.id)?;
        request.insert_header("X-Real-IP", &client)?;
        request.insert_header("X-Forwarded-For", &client)?;
        request.insert_header("X-Forwarded-Host", &host)?;
        request.insert_header("X-Forwarded-Port", &port)?;
        for name in ["X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Scheme"] {
            request.insert_header(name, scheme)?;
        }
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Exchange) {
        let Some(log) = &self.log else { return };
        let request = session.req_header();
        let field = |name: &str| {
            let value = request.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or("-").to_owned()
        };
        let (referer, agent) = (field("referer"), field("user-agent"));
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let client = session.client_addr().map(ToString::to_string).unwrap_or_default();
        let upstream = ctx.upstream.map(|address| address.to_string()).unwrap_or_default();
        let took = ctx.begun.elapsed().as_secs_f64();
        let sent = session.body_bytes_sent();
        let Ok(mut log) = log.lock() else { return };
        // A line that cannot be written is lost, as everybody else's.
        let _ = writeln!(
            log,
            "{client} - - [{now}] \"{} {} {:?}\" {status} {sent} \"{referer}\" \"{agent}\" {} {took:.3} [] [] {upstream} {sent} {took:.3} {status} {}",
            request.method,
            request.uri,
            request.version,
            session.body_bytes_read(),
            ctx.id,
        );
    }
}

/// As the client named it, without a port.
fn host(request: &RequestHeader) -> Option<&str> {
    let field = || request.headers.get("host").and_then(|host| host.to_str().ok());
    let host = request.uri.authority().map(|authority| authority.as_str()).or_else(field)?;
    Some(host.split_once(':').map_or(host, |(host, _)| host))
}
