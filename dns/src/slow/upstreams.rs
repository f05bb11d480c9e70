//! Asking others: hickory's pool of name servers (random source ports and ids, replies checked
//! against question and sender and otherwise waited past, TCP after truncation, one query for equal
//! questions in flight).

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, Edns, Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverOpts},
    net::{
        DnsError as UpstreamError, NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle, FirstAnswer},
    },
    system_conf::parse_resolv_conf,
};
use hickory_server::server::Request;
use tokio::time::timeout;

use crate::{config::Upstreams, error::DnsError, wire::UDP_REPLY_BYTES_MAX};

/// Longest wait for an upstream. Clients ask again after 5 s (resolv.conf(5)); they should get an
/// error before.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Requests at one time over one TCP connection to an upstream.
const TCP_REQUESTS_MAX: usize = 256;
/// Port of an upstream that names none.
const DNS_PORT: u16 = 53;
/// A changed resolv.conf is noticed after so long at most, by the next query that needs it.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

type Pool = NameServerPool<TokioRuntimeProvider>;

/// The upstreams in force.
pub(crate) struct UpstreamPool {
    pool: ArcSwapOption<Pool>,
    any: AtomicBool,
    file: Mutex<Option<ResolvConf>>,
    /// Our own addresses: asking ourselves would be a loop.
    own: Vec<SocketAddr>,
}

impl fmt::Debug for UpstreamPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamPool").field("any", &self.any).finish_non_exhaustive()
    }
}

/// A resolv.conf and its state when it was last read.
#[derive(Debug)]
struct ResolvConf {
    path: PathBuf,
    checked: Instant,
    /// `None`: could not be read.
    modified: Option<SystemTime>,
}

impl UpstreamPool {
    /// The configured upstreams. An unreadable resolv.conf is a warning: it may come.
    pub(crate) fn new(upstreams: &Upstreams, own: Vec<SocketAddr>) -> Result<Self, DnsError> {
        let (pool, any, file) = (ArcSwapOption::empty(), AtomicBool::new(false), Mutex::default());
        let new = Self { pool, any, file, own };
        new.retarget(upstreams)?;
        Ok(new)
    }

    /// Asks these from now on; queries that wait for the others' answers still get them.
    pub(super) fn retarget(&self, upstreams: &Upstreams) -> Result<(), DnsError> {
        let (file, addresses) = match upstreams {
            Upstreams::Addresses(addresses) => (None, addresses.clone()),
            Upstreams::ResolvConf(path) => {
                let modified = modified(path);
                let file = ResolvConf { path: path.clone(), checked: Instant::now(), modified };
                (Some(file), read_file(path))
            }
        };
        // Replaced as a whole: what it was before a panic does not matter.
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        self.set(addresses)
    }

    /// Whether there is anyone to ask.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Forwards one question and returns what came back, or the response code to give.
    pub(super) async fn ask(
        &self,
        request: &Request,
        name: Name,
        qtype: RecordType,
    ) -> Result<Message, ResponseCode> {
        self.reread_if_changed();
        let pool = self.pool.load_full().ok_or(ResponseCode::Refused)?;
        let asking = pool.send(question(request, name, qtype)).first_answer();
        match timeout(TIMEOUT, asking).await {
            Ok(Ok(response)) => Ok(response.into_message()),
            Ok(Err(NetError::Dns(UpstreamError::NoRecordsFound(none)))) => {
                let mut message = Message::query();
                message.metadata.response_code = none.response_code;
                message.authorities = match (none.authorities, none.soa) {
                    (Some(authorities), _) => authorities.to_vec(),
                    (None, soa) => soa.map(|soa| soa.into_record_of_rdata()).into_iter().collect(),
                };
                Ok(message)
            }
            Ok(Err(NetError::Dns(UpstreamError::ResponseCode(code)))) => Err(code),
            Ok(Err(_)) | Err(_) => Err(ResponseCode::ServFail),
        }
    }

    fn set(&self, addresses: Vec<SocketAddr>) -> Result<(), DnsError> {
        let (own, others): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| self.is_own(address));
        if !own.is_empty() {
            tracing::warn!(
                ?own,
                "DNS: an upstream is this server itself, left out: name the real one with --upstream"
            );
        }
        if others.is_empty() {
            tracing::warn!("DNS: no upstream: names outside the cluster's domain are refused");
        } else {
            tracing::info!(upstreams = ?others, "DNS: forwarding names of others");
        }
        let pool = if others.is_empty() { None } else { Some(Arc::new(pool(&others)?)) };
        self.any.store(pool.is_some(), Ordering::Relaxed);
        self.pool.store(pool);
        Ok(())
    }

    fn is_own(&self, upstream: &SocketAddr) -> bool {
        self.own.iter().any(|own| {
            let same_ip = own.ip() == upstream.ip();
            let by_wildcard = own.ip().is_unspecified() && upstream.ip().is_loopback();
            own.port() == upstream.port() && (same_ip || by_wildcard)
        })
    }

    /// Looks at resolv.conf's time stamp, at most once per interval.
    fn reread_if_changed(&self) {
        let Ok(mut file) = self.file.try_lock() else { return };
        let Some(file) = file.as_mut() else { return };
        if file.checked.elapsed() < FILE_CHECK_INTERVAL {
            return;
        }
        file.checked = Instant::now();
        let now = modified(&file.path);
        if now == file.modified {
            return;
        }
        file.modified = now;
        let addresses = read_file(&file.path);
        // An empty or half-written file must not take names away that resolve now.
        if addresses.is_empty() {
            return;
        }
        if let Err(error) = self.set(addresses) {
            tracing::error!("{error}");
        }
    }

    /// Gives a file that had no upstream at the start another chance.
    pub(super) fn reread_if_none(&self) {
        if !self.any() {
            self.reread_if_changed();
        }
    }
}

/// The client's question as our own: a new id, our own EDNS size, the flags that change the answer
/// (CD, DO).
fn question(request: &Request, name: Name, qtype: RecordType) -> DnsRequest {
    let mut message = Message::query();
    message.metadata.recursion_desired = request.metadata.recursion_desired;
    message.metadata.checking_disabled = request.metadata.checking_disabled;
    message.metadata.authentic_data = request.metadata.authentic_data;
    message.queries.push(Query::query(name, qtype));
    let mut edns = Edns::new();
    edns.set_max_payload(u16::try_from(UDP_REPLY_BYTES_MAX).unwrap_or(u16::MAX));
    edns.set_dnssec_ok(request.edns.as_ref().is_some_and(|asked| asked.flags().dnssec_ok));
    message.edns = Some(edns);
    DnsRequest::new(message, DnsRequestOptions::default())
}

fn pool(addresses: &[SocketAddr]) -> Result<Pool, DnsError> {
    let forwarding = |error: NetError| DnsError::Forwarding(Box::new(error));
    let mut options = ResolverOpts::default();
    options.timeout = TIMEOUT;
    options.max_active_requests = TCP_REQUESTS_MAX;
    let servers = addresses.iter().map(|address| {
        let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = address.port();
            connection
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    });
    let context = PoolContext::new(options, TlsConfig::new().map_err(forwarding)?);
    Ok(NameServerPool::from_config(servers, Arc::new(context), TokioRuntimeProvider::new()))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The `nameserver` lines; none, with a warning, if the file cannot be read or has none.
fn read_file(path: &Path) -> Vec<SocketAddr> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(path = %path.display(), "DNS: cannot read upstreams: {error}");
            return vec![];
        }
    };
    match parse_resolv_conf(text) {
        Ok((config, _)) => {
            let servers = config.name_servers().iter();
            servers.map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect()
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), "DNS: no upstreams there: {error}");
            vec![]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool_of(file: &Path, own: &str) -> UpstreamPool {
        UpstreamPool::new(&Upstreams::ResolvConf(file.to_owned()), vec![own.parse().unwrap()])
            .unwrap()
    }

    #[tokio::test]
    async fn a_server_that_is_its_own_upstream_does_not_ask_itself() {
        // A pod's resolv.conf names the cluster's DNS: a loop that would eat every permit.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        let cases = [
            ("nameserver 127.0.0.1\n", "0.0.0.0:53", false),
            ("nameserver 10.96.0.10\n", "10.96.0.10:53", false),
            ("nameserver ::1\n", "[::]:53", false),
            ("nameserver 127.0.0.1\n", "127.0.0.1:5353", true),
            ("nameserver 127.0.0.53\n", "10.96.0.10:53", true),
            ("nameserver 10.96.0.10\nnameserver 192.0.2.1\n", "10.96.0.10:53", true),
            ("search example.com\n", "0.0.0.0:53", false),
        ];
        for (text, own, any) in cases {
            fs::write(&file, text).unwrap();
            assert_eq!(pool_of(&file, own).any(), any, "{text:?} on {own}");
        }
        assert!(!pool_of(&dir.path().join("none"), "0.0.0.0:53").any(), "no such file");
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_an_emptied_one_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        fs::write(&file, "").unwrap();
        let upstreams = pool_of(&file, "0.0.0.0:53");
        assert!(!upstreams.any());
        let write = |text: &str, at: u64| {
            fs::write(&file, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        };
        let later = || {
            let mut file = upstreams.file.lock().unwrap();
            file.as_mut().unwrap().checked =
                Instant::now().checked_sub(FILE_CHECK_INTERVAL).unwrap();
        };
        write("nameserver 192.0.2.1\n", 1000);
        upstreams.reread_if_none();
        assert!(!upstreams.any(), "looked at a moment ago");
        later();
        upstreams.reread_if_none();
        assert!(upstreams.any());
        write("", 2000);
        later();
        upstreams.reread_if_changed();
        assert!(upstreams.any());
    }
}
