//! Asking others: hickory's pool of name servers (random source ports and ids, replies checked
//! against question and sender and otherwise waited past, TCP after truncation, one query for equal
//! questions in flight).

mod connections;
mod health;
pub(crate) mod loops;
mod pool;
mod tls;

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RecordType},
};
use hickory_resolver::{
    net::{
        DnsError as UpstreamError, NetError,
        xfer::{DnsHandle, FirstAnswer},
    },
    system_conf::parse_resolv_conf,
};
use tokio::{sync::Semaphore, time::timeout};

use self::{
    loops::Probes,
    pool::{Manner, Pool, question, without_case},
};

use crate::{
    cache::Flavour,
    corefile::{ForwardOptions, HealthCheck, To},
    counters::{DURATION_BOUNDS, ForwardReport, Histogram, HistogramReport, RCODES, nanoseconds},
    error::DnsError,
    policy::{ZoneName, zone_names},
    wire::name::LowerName,
};

/// Longest wait for an upstream. Clients ask again after 5 s (resolv.conf(5)); they should get an
/// error before.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Port of an upstream that names none.
const DNS_PORT: u16 = 53;
/// A changed resolv.conf is noticed after so long at most, by the next query that needs it.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Failures are said no more often.
const FAILURE_INTERVAL: Duration = Duration::from_secs(10);

/// One `forward` line at work.
#[derive(Debug)]
pub(crate) struct Forward {
    from: ZoneName,
    except: Box<[ZoneName]>,
    pool: Arc<UpstreamPool>,
    /// `max_concurrent`.
    permits: Option<Semaphore>,
    /// When a failure was last said.
    said: Mutex<Option<Instant>>,
    /// Questions beyond `max_concurrent`.
    rejects: AtomicU64,
}

/// The upstreams in force.
struct UpstreamPool {
    pool: ArcSwapOption<Pool>,
    any: AtomicBool,
    servers: Vec<SocketAddr>,
    files: Mutex<Files>,
    manner: Manner,
    check: HealthCheck,
    probing: AtomicBool,
    usable: Mutex<Usable>,
    /// Our own addresses: asking ourselves would be a loop.
    own: Vec<SocketAddr>,
    counts: Counts,
}

/// What became of questions to upstreams.
#[derive(Debug, Default)]
struct Counts {
    /// By response code.
    durations: [OnceLock<Box<Histogram<{ DURATION_BOUNDS.len() }>>>; RCODES],
    /// Questions asked while no upstream was known to answer.
    broken: AtomicU64,
    failed_probes: Mutex<BTreeMap<SocketAddr, u64>>,
}

/// Upstreams that may be asked, and those of them that do not answer.
#[derive(Debug, Default)]
struct Usable {
    all: Vec<SocketAddr>,
    down: Vec<SocketAddr>,
    /// Those that lead back here.
    looping: Vec<SocketAddr>,
}

impl fmt::Debug for UpstreamPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamPool").field("any", &self.any).finish_non_exhaustive()
    }
}

/// Files that name upstreams, and their state when they were last read.
#[derive(Debug)]
struct Files {
    checked: Instant,
    files: Vec<ResolvConf>,
}

#[derive(Debug)]
struct ResolvConf {
    path: PathBuf,
    /// `None`: could not be read.
    modified: Option<SystemTime>,
}

/// What changes an upstream's answer, beside name and type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    pub(crate) recursion_desired: bool,
    pub(crate) authentic_data: bool,
    pub(crate) flavour: Flavour,
}

impl Forward {
    /// Prepares asking. An unreadable resolv.conf is a warning: it may come.
    pub(crate) fn new(options: &ForwardOptions, own: &[SocketAddr]) -> Result<Self, DnsError> {
        Ok(Self {
            from: ZoneName::new(&options.from)?,
            except: zone_names(&options.except)?,
            pool: Arc::new(UpstreamPool::new(options, own.to_vec())?),
            permits: options.max_concurrent.map(Semaphore::new),
            said: Mutex::default(),
            rejects: AtomicU64::new(0),
        })
    }

    /// Looks for upstreams that lead back here from now on; needs a runtime.
    pub(crate) fn watch_loops(&self, probes: Arc<Probes>) {
        let pool = Arc::downgrade(&self.pool);
        tokio::spawn(loops::watch(pool, self.from.name.clone(), probes));
    }

    /// Labels of the zone that is forwarded.
    pub(crate) fn labels(&self) -> usize {
        self.from.labels
    }

    /// Whether a name is forwarded here.
    pub(crate) fn takes(&self, name: &LowerName) -> bool {
        self.from.holds(name) && !self.except.iter().any(|zone| zone.holds(name))
    }

    /// Whom it asks, in words: addresses and files that name them.
    pub(crate) fn targets(&self) -> Vec<String> {
        let servers = self.pool.servers.iter().map(ToString::to_string);
        let files = self.pool.files.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.files.iter().map(|file| file.path.display().to_string());
        servers.chain(files).collect()
    }

    /// Whether there is anyone to ask.
    pub(crate) fn any(&self) -> bool {
        self.pool.any.load(Ordering::Relaxed)
    }

    /// Says that a question failed, once in a while: clients must not fill the log.
    pub(super) fn say_failed(&self, name: &Name, qtype: RecordType) {
        let Ok(mut said) = self.said.try_lock() else { return };
        if said.is_none_or(|at| at.elapsed() >= FAILURE_INTERVAL) {
            *said = Some(Instant::now());
            tracing::warn!("DNS: {name} {qtype}: no upstream answered; more may have failed");
        }
    }

    /// Forwards one question and returns what came back, or the response code to give.
    pub(super) async fn ask(
        &self,
        name: Name,
        qtype: RecordType,
        wishes: Wishes,
    ) -> Result<Message, ResponseCode> {
        let _permit = match &self.permits {
            // CoreDNS refuses as well; a client then asks its next server.
            Some(permits) => Some(permits.try_acquire().map_err(|_| {
                self.rejects.fetch_add(1, Ordering::Relaxed);
                ResponseCode::Refused
            })?),
            None => None,
        };
        self.pool.ask(name, qtype, wishes).await
    }
}

impl UpstreamPool {
    fn new(options: &ForwardOptions, own: Vec<SocketAddr>) -> Result<Self, DnsError> {
        let mut servers = vec![];
        let mut files = vec![];
        for to in &options.to {
            match to {
                To::Server(address) | To::Tls { address, .. } => servers.push(*address),
                To::File(path) => {
                    files.push(ResolvConf { path: path.clone(), modified: modified(path) });
                }
            }
        }
        let from_files = files.iter().flat_map(|file| read_file(&file.path));
        let addresses = servers.iter().copied().chain(from_files).collect();
        let new = Self {
            pool: ArcSwapOption::empty(),
            any: AtomicBool::new(false),
            servers,
            files: Mutex::new(Files { checked: Instant::now(), files }),
            manner: Manner::new(options)?,
            check: options.health_check.clone(),
            probing: AtomicBool::new(false),
            usable: Mutex::default(),
            own,
            counts: Counts::default(),
        };
        new.set(addresses)?;
        Ok(new)
    }

    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    async fn ask(
        self: &Arc<Self>,
        name: Name,
        qtype: RecordType,
        wishes: Wishes,
    ) -> Result<Message, ResponseCode> {
        self.reread_if_changed();
        let pool = self.pool.load_full().ok_or(ResponseCode::Refused)?;
        if self.all_are_down() {
            self.counts.broken.fetch_add(1, Ordering::Relaxed);
            if self.check.fail_fast {
                return Err(ResponseCode::ServFail);
            }
        }
        let begun = Instant::now();
        let random_case = self.manner.random_case;
        let spelling = random_case.then(|| name.clone());
        let asking = pool.send(question(name, qtype, wishes, random_case)).first_answer();
        let asked = timeout(TIMEOUT, asking).await;
        let failed = !matches!(asked, Ok(Ok(_) | Err(NetError::Dns(_))));
        if failed || begun.elapsed() >= health::SUSPICIOUS {
            self.suspect();
        }
        let mut result = match asked {
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
        };
        if let (Ok(message), Some(spelling)) = (&mut result, &spelling) {
            without_case(message, spelling);
        }
        if !failed {
            let code = result.as_ref().map_or_else(|code| *code, |m| m.metadata.response_code);
            self.counts.took(code, begun.elapsed());
        }
        result
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
        let mut usable = self.usable.lock().unwrap_or_else(PoisonError::into_inner);
        usable.down.retain(|server| others.contains(server));
        usable.looping.retain(|server| others.contains(server));
        usable.all = others;
        self.renew(&usable)
    }

    /// A pool of those that answer; if none does, of all that do not lead back here.
    fn renew(&self, usable: &Usable) -> Result<(), DnsError> {
        let others: Vec<_> =
            usable.all.iter().copied().filter(|server| !usable.looping.contains(server)).collect();
        let answering = others.iter().copied().filter(|server| !usable.down.contains(server));
        let mut asked: Vec<_> = answering.collect();
        if asked.is_empty() {
            asked = others;
        }
        let pool = match &asked[..] {
            [] => None,
            some => Some(Arc::new(self.manner.pool(some)?)),
        };
        self.any.store(pool.is_some(), Ordering::Relaxed);
        self.pool.store(pool);
        Ok(())
    }

    /// All that may be asked, answering or not.
    fn all(&self) -> Vec<SocketAddr> {
        self.usable.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    fn all_are_down(&self) -> bool {
        let usable = self.usable.lock().unwrap_or_else(PoisonError::into_inner);
        usable.down.len() >= usable.all.len()
    }

    /// From now on these are not asked, all others are.
    fn leave_out(&self, down: Vec<SocketAddr>) {
        let mut usable = self.usable.lock().unwrap_or_else(PoisonError::into_inner);
        if usable.down == down {
            return;
        }
        for server in down.iter().filter(|server| !usable.down.contains(server)) {
            tracing::warn!(%server, "DNS: an upstream does not answer: left out until it does");
        }
        for server in usable.down.iter().filter(|server| !down.contains(server)) {
            tracing::info!(%server, "DNS: an upstream answers again");
        }
        usable.down = down;
        if let Err(error) = self.renew(&usable) {
            tracing::error!("{error}");
        }
    }

    fn is_own(&self, upstream: &SocketAddr) -> bool {
        self.own.iter().any(|own| {
            let same_ip = own.ip() == upstream.ip();
            let by_wildcard = own.ip().is_unspecified() && upstream.ip().is_loopback();
            own.port() == upstream.port() && (same_ip || by_wildcard)
        })
    }

    /// Looks at the files' time stamps, at most once per interval.
    fn reread_if_changed(&self) {
        let Ok(mut files) = self.files.try_lock() else { return };
        if files.files.is_empty() || files.checked.elapsed() < FILE_CHECK_INTERVAL {
            return;
        }
        files.checked = Instant::now();
        let mut changed = false;
        for file in &mut files.files {
            let now = modified(&file.path);
            changed |= now != file.modified;
            file.modified = now;
        }
        if !changed {
            return;
        }
        let addresses: Vec<_> = files.files.iter().flat_map(|file| read_file(&file.path)).collect();
        // An empty or half-written file must not take names away that resolve now.
        if addresses.is_empty() {
            return;
        }
        if let Err(error) = self.set(self.servers.iter().copied().chain(addresses).collect()) {
            tracing::error!("{error}");
        }
    }
}

impl Counts {
    fn took(&self, code: ResponseCode, duration: Duration) {
        let code = usize::from(u16::from(code)).min(RCODES - 1);
        if let Some(histogram) = self.durations.get(code) {
            let histogram = histogram.get_or_init(Box::default);
            histogram.observe(&DURATION_BOUNDS, nanoseconds(duration));
        }
    }
}

impl Forward {
    /// What became of its questions.
    pub(crate) fn report(&self) -> ForwardReport {
        let counts = &self.pool.counts;
        let durations = (0_u16..).zip(&counts.durations).filter_map(|(code, histogram)| {
            let mut report = HistogramReport::default();
            histogram.get()?.add_to(&mut report);
            Some((code, report))
        });
        let failed = counts.failed_probes.lock().unwrap_or_else(PoisonError::into_inner);
        ForwardReport {
            to: self.targets().join(","),
            rejects: self.rejects.load(Ordering::Relaxed),
            broken: counts.broken.load(Ordering::Relaxed),
            durations: durations.collect(),
            failed_probes: failed.iter().map(|(server, count)| (*server, *count)).collect(),
        }
    }

    /// Gives files that had no upstream at the start another chance.
    pub(super) fn reread_if_none(&self) {
        if !self.pool.any() {
            self.pool.reread_if_changed();
        }
    }
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
mod tests;
