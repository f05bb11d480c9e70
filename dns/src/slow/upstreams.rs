//! Asking others: hickory's name servers (random source ports and ids, replies checked against question
//! and sender and otherwise waited past, TCP after truncation, one query to each for equal questions in
//! flight), one at a time.

mod connections;
mod counts;
mod files;
mod health;
mod line;
pub(crate) mod loops;
mod manner;
mod pool;
mod question;
mod tls;
mod upstream;
mod watch;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{sync::Semaphore, time::timeout};

use self::{
    counts::Counts, files::Files, loops::Probes, manner::Manner, pool::Pool, question::Question,
};

use crate::{
    cache::Flavour,
    corefile::{ForwardOptions, HealthCheck, To},
    error::DnsError,
    policy::{ZoneName, zone_names},
    wire::name::LowerName,
};

/// Longest wait for upstreams, of all lines that are asked together. Clients ask again after 5 s
/// (resolv.conf(5)); they should get an error before.
pub(super) const TIMEOUT: Duration = Duration::from_secs(4);
/// Failures are said no more often.
const FAILURE_INTERVAL: Duration = Duration::from_secs(10);

/// One `forward` line at work.
#[derive(Debug)]
pub(crate) struct Forward {
    from: ZoneName,
    except: Box<[ZoneName]>,
    pool: Arc<UpstreamPool>,
    /// `next` and `next_on_nodata`.
    next: Box<[ResponseCode]>,
    next_on_nodata: bool,
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
            next: options.next.as_slice().into(),
            next_on_nodata: options.next_on_nodata,
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

    /// Whether a name is forwarded here.
    pub(crate) fn takes(&self, name: &LowerName) -> bool {
        self.from.holds(name) && !self.except.iter().any(|zone| zone.holds(name))
    }

    /// Whether, after such a reply, the lines that follow are asked.
    pub(super) fn passes_on(&self, asked: &Result<Message, ResponseCode>) -> bool {
        let (code, is_empty) = match asked {
            Ok(reply) => (reply.metadata.response_code, reply.answers.is_empty()),
            Err(code) => (*code, true),
        };
        let is_nodata = code == ResponseCode::NoError && is_empty;
        self.next.contains(&code) || (self.next_on_nodata && is_nodata)
    }

    /// Whom it asks, in words: addresses and files that name them.
    pub(crate) fn targets(&self) -> Vec<String> {
        let servers = self.pool.servers.iter().map(ToString::to_string);
        let files = self.pool.files.lock().unwrap_or_else(PoisonError::into_inner);
        servers.chain(files.paths().map(|path| path.display().to_string())).collect()
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

    /// Gives files that had no upstream at the start another chance.
    pub(super) fn reread_if_none(&self) {
        if !self.pool.any() {
            self.pool.reread_if_changed();
        }
    }

    /// Forwards one question and returns what came back before `most` was over, or the response code to give:
    /// SERVFAIL where no upstream answered, while an upstream's own is a reply.
    pub(super) async fn ask(
        &self,
        name: Name,
        qtype: RecordType,
        wishes: Wishes,
        most: Duration,
    ) -> Result<Message, ResponseCode> {
        let _permit = match &self.permits {
            // CoreDNS refuses as well; a client then asks its next server.
            Some(permits) => Some(permits.try_acquire().map_err(|_| {
                self.rejects.fetch_add(1, Ordering::Relaxed);
                ResponseCode::Refused
            })?),
            None => None,
        };
        self.pool.ask(name, qtype, wishes, most).await
    }
}

/// A reply that says SERVFAIL.
pub(super) fn failure() -> Message {
    let mut failure = Message::query();
    failure.metadata.response_code = ResponseCode::ServFail;
    failure
}

impl UpstreamPool {
    fn new(options: &ForwardOptions, own: Vec<SocketAddr>) -> Result<Self, DnsError> {
        let (mut servers, mut paths) = (vec![], vec![]);
        for to in &options.to {
            match to {
                To::Server(address) | To::Tls { address, .. } => servers.push(*address),
                To::File(path) => paths.push(path.clone()),
            }
        }
        let files = Files::new(paths);
        let addresses = servers.iter().copied().chain(files.servers()).collect();
        let new = Self {
            pool: ArcSwapOption::empty(),
            any: AtomicBool::new(false),
            servers,
            files: Mutex::new(files),
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
        most: Duration,
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
        let question = Question { name, qtype, wishes, random_case };
        let asked = timeout(most, pool.ask(&question, most, || self.suspect())).await;
        let Ok(Some(result)) = asked else {
            self.suspect();
            return Err(ResponseCode::ServFail);
        };
        let code = result.as_ref().map_or_else(|code| *code, |m| m.metadata.response_code);
        self.counts.took(code, begun.elapsed());
        // What takes an OPT record to say is said of ours (RFC 6891 §6.1.3). A client without one would read
        // BADVERS as NOERROR.
        if code.high() > 0 || code == ResponseCode::ServFail { Ok(failure()) } else { result }
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
    fn leave_out(&self, mut down: Vec<SocketAddr>) {
        let mut usable = self.usable.lock().unwrap_or_else(PoisonError::into_inner);
        // A file may have named others while these were probed.
        down.retain(|server| usable.all.contains(server));
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

    /// What files name now, if they have changed.
    fn reread_if_changed(&self) {
        let Ok(mut files) = self.files.try_lock() else { return };
        // An empty or half-written file must not take names away that resolve now.
        let Some(named) = files.changed().filter(|named| !named.is_empty()) else { return };
        if let Err(error) = self.set(self.servers.iter().copied().chain(named).collect()) {
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests;
