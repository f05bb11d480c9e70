//! A client's connection, as all that is served on it sees it: deadlines and draining end it.

use std::{
    cell::{Cell, OnceCell},
    future::{Future, poll_fn},
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use http::HeaderValue;
use hyper::rt::Executor;
use rustls::ProtocolVersion;
use tokio::task::spawn_local;

use super::{
    clock::Watch,
    fields::Origin,
    identity::Shown,
    observed::Observer,
    preamble::Ends,
    worker::{Open, Stage, Worker},
};
use crate::{admission::Finding, config::ForwardedHeaders, counters::Refused, routes::Upstream};

/// A client's connection, as requests on it see it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    _open: Open,
    pub(crate) origin: Origin,
    pub(crate) tls: bool,
    tls_protocol: Cell<&'static str>,
    /// Whether it is believed what it says of who asked it.
    pub(crate) forwarded: ForwardedHeaders,
    /// The client, whatever stands in between.
    pub(crate) peer: IpAddr,
    /// Who connected, if a PROXY header names the client.
    pub(crate) balancer: Option<IpAddr>,
    /// The port the client connected to.
    pub(crate) port: u16,
    /// Once it was asked for a certificate.
    pub(super) shown: OnceCell<Shown>,
    h2: Cell<bool>,
    /// Requests so far.
    begun: Cell<u64>,
    /// Requests in service.
    requests: Cell<usize>,
    /// Bodies on their way to endpoints: one may go on when its answer is over.
    bodies: Cell<usize>,
    live: Arc<Liveness>,
    /// The last answer was given while the client was still sending.
    unread: Cell<bool>,
}

/// What bytes on the wire mean for the deadlines.
#[derive(Debug)]
pub(crate) struct Liveness {
    watch: Arc<Watch>,
    /// Between two requests: the next byte begins a head.
    idle: AtomicBool,
    /// Which request of the connection is refused for its bytes, and why; packed, 0 for none.
    finding: AtomicU64,
    /// HTTP is over: what is read is a tunnel's.
    tunnel: AtomicBool,
    header_read_ms: u64,
    client_send_ms: u64,
}

/// A request for as long as it is served, its response's body included.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Client>);

/// Why a connection is polled no longer.
#[derive(Debug)]
pub(super) enum End<T> {
    /// It is over.
    Of(T),
    /// A deadline came first.
    Late,
    /// Nothing came for a while, and nothing is under way.
    Rest,
}

/// hyper's tasks stay on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl Client {
    pub(super) fn new(open: Open, ends: Ends, tls: bool) -> Rc<Self> {
        let worker = open.worker().clone();
        let config = worker.config();
        let timeouts = &config.timeouts;
        let live = Arc::new(Liveness {
            watch: worker.clock.watch(),
            idle: AtomicBool::new(false),
            finding: AtomicU64::new(0),
            tunnel: AtomicBool::new(false),
            header_read_ms: timeouts.header_read_ms,
            client_send_ms: timeouts.client_send_ms,
        });
        live.watch.arm(timeouts.header_read_ms);
        let text = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        let origin = Origin {
            client: text(ends.client.ip().to_canonical().to_string()),
            port: HeaderValue::from(ends.port),
            scheme: HeaderValue::from_static(if tls { "https" } else { "http" }),
        };
        Rc::new(Self {
            worker,
            _open: open,
            origin,
            tls,
            tls_protocol: Cell::new(""),
            forwarded: config.forwarded_by(ends.client.ip()),
            peer: ends.client.ip().to_canonical(),
            balancer: ends.balancer,
            port: ends.port,
            shown: OnceCell::new(),
            h2: Cell::new(false),
            begun: Cell::new(0),
            requests: Cell::new(0),
            bodies: Cell::new(0),
            live,
            unread: Cell::new(false),
        })
    }

    pub(super) fn live(&self) -> &Arc<Liveness> {
        &self.live
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.live.watch
    }

    /// As nginx names it; empty without TLS.
    pub(crate) fn tls_protocol(&self) -> &'static str {
        self.tls_protocol.get()
    }

    pub(super) fn speaks(&self, version: Option<ProtocolVersion>) {
        self.tls_protocol.set(match version {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        });
    }

    /// The handshake is over.
    pub(super) fn connected(&self, h2: bool) {
        self.h2.set(h2);
        self.live.watch.arm(self.live.header_read_ms);
    }

    pub(crate) fn is_h2(&self) -> bool {
        self.h2.get()
    }

    /// There was a request.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.get() > 0
    }

    /// A request's head is there.
    pub(crate) fn begin(self: &Rc<Self>) -> Busy {
        self.begun.set(self.begun.get() + 1);
        // Over HTTP/1 hyper has read what was left of the one before, or there would be none.
        self.unread.set(false);
        self.hold()
    }

    /// Something is in service.
    pub(crate) fn hold(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        self.live.idle.store(false, Relaxed);
        self.live.watch.stay();
        self.live.watch.disarm();
        Busy(self.clone())
    }

    /// A number that grows by one with each request to the upstream.
    pub(crate) fn turn(&self, upstream: &Upstream) -> usize {
        self.worker.pool.turn(upstream, self.worker.clock.now_ms())
    }

    /// Requests so far, the one that began last included.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Why the request that began last is not to be served, if it is HTTP/1's.
    pub(crate) fn finding(&self) -> Option<Refused> {
        // What came with the preface was looked at as if it were text.
        if self.is_h2() {
            return None;
        }
        let finding = unpack(self.live.finding.load(Relaxed))?;
        (finding.request + 1 == self.begun.get()).then_some(finding.reason)
    }

    /// hyper has the connection again, perhaps without a request.
    pub(super) fn resumes(&self) {
        if self.live.idle.load(Relaxed) {
            self.live.watch.rest_soon();
        }
    }

    /// A request's body goes to an endpoint.
    pub(crate) fn begin_body(&self) {
        self.bodies.set(self.bodies.get() + 1);
    }

    /// It was sent whole, or is given up.
    pub(crate) fn end_body(&self) {
        self.bodies.set(self.bodies.get() - 1);
    }

    /// Nobody misses what hyper holds: it is between two requests, and has been for a while. Amid a
    /// body hyper alone knows how much is to come: what is left of it would be the next request.
    fn may_rest(&self) -> bool {
        self.live.idle.load(Relaxed)
            && self.live.watch.may_rest()
            && !self.unread.get()
            && self.bodies.get() == 0
    }

    /// What follows is not HTTP.
    pub(crate) fn becomes_tunnel(&self) {
        self.live.tunnel.store(true, Relaxed);
    }

    /// Part of a request was left unread.
    pub(crate) fn leave_unread(&self) {
        self.unread.set(true);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.get()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let client = &self.0;
        client.requests.set(client.requests.get() - 1);
        if client.requests.get() == 0 {
            // In HTTP/2 bytes may be frames of no stream: they do not begin a request.
            client.live.idle.store(!client.is_h2(), Relaxed);
            client.live.watch.rest_soon();
            client.live.watch.arm(client.worker.config().timeouts.keep_alive_idle_ms);
        }
    }
}

impl Liveness {
    /// The next request is not to be served.
    pub(super) fn find(&self, finding: Finding) {
        self.finding.store(pack(finding), Relaxed);
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }
}

impl Observer for Arc<Liveness> {
    fn read(&mut self, _: &[u8]) {
        if self.idle.load(Relaxed) {
            self.idle.store(false, Relaxed);
            self.watch.stay();
            self.watch.arm(self.header_read_ms);
        }
    }

    fn written(&self) {
        self.watch.written();
    }

    fn blocked(&self) {
        self.watch.write_blocked(self.client_send_ms);
    }
}

/// Reasons are fewer than this.
const REASON_BITS: u32 = 8;

fn pack(finding: Finding) -> u64 {
    (finding.request << REASON_BITS) | (finding.reason as u64 + 1)
}

fn unpack(packed: u64) -> Option<Finding> {
    let reason = usize::try_from(packed & ((1 << REASON_BITS) - 1)).ok()?.checked_sub(1)?;
    let reason = *Refused::ALL.get(reason)?;
    Some(Finding { request: packed >> REASON_BITS, reason })
}

/// Polls a connection to its end.
pub(super) async fn drive<C, T>(
    connection: &mut C,
    client: &Client,
    mut tell: impl FnMut(Pin<&mut C>),
) -> End<T>
where
    C: Future<Output = T> + Unpin,
{
    let mut told = false;
    poll_fn(|cx: &mut Context<'_>| {
        client.live.watch.register(cx.waker());
        if !told && client.worker.stage.get() >= Stage::Closing {
            told = true;
            tell(Pin::new(connection));
        }
        match Pin::new(&mut *connection).poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(End::Of(outcome)),
            Poll::Pending if client.live.watch.expired() => Poll::Ready(End::Late),
            Poll::Pending if !told && client.may_rest() => Poll::Ready(End::Rest),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

impl<F> Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}
