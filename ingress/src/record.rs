//! One request, from its head to its last byte. Dropping the record counts the request and writes
//! its line.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, StatusCode, Version, header::STRICT_TRANSPORT_SECURITY, request::Parts};
use smallvec::SmallVec;

use crate::{
    access_log::Written,
    config::IngressConfig,
    routes::{InFlight, Route},
    series::{Asked, Sample, method_slot},
    serve::{Client, front::Front},
    traces::{Finished, Place, Span},
};

/// nginx: the client left before there was an answer.
const CLIENT_LEFT: u16 = 499;
/// Between the method, the target and the protocol, and at the line's end.
const REQUEST_LINE_BYTES: usize = 4;
/// `HTTP/1.1 200 ` without its reason, its line end, and the empty line behind all fields.
const STATUS_LINE_BYTES: usize = 17;
/// Between a field's name and its value, and at the line's end.
const FIELD_BYTES: usize = 4;

/// What is told of a request when it is over.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) client: Rc<Client>,
    /// Has the log's format.
    pub(crate) config: Rc<IngressConfig>,
    pub(crate) begun: Instant,
    /// How the client asked.
    pub(crate) front: Front,
    /// `None`: the request is not logged.
    pub(crate) written: Option<Written>,
    method: u8,
    pub(crate) head_bytes: u64,
    /// Its id, if the client gave none.
    pub(crate) own_id: u128,
    /// TLS ends here, and the host is one of HTTPS.
    secured: Cell<bool>,
    /// When it might be sent on.
    admitted: Cell<Instant>,
    status: Cell<u16>,
    pub(crate) head_bytes_sent: Cell<u64>,
    pub(crate) body_bytes_received: Cell<u64>,
    pub(crate) body_bytes_sent: Cell<u64>,
    /// When the last endpoint was asked; `None`: none was.
    asked: Cell<Option<Instant>>,
    connect: Cell<Duration>,
    /// When it answered.
    answered: Cell<Option<Instant>>,
    /// `None`: the request is not traced.
    span: RefCell<Option<Box<Span>>>,
    /// At the endpoint that was asked last; `None`: that decides nothing there.
    in_flight: RefCell<Option<InFlight>>,
    /// All that were asked, nearly always one; none without a log or a trace.
    pub(crate) attempts: RefCell<SmallVec<[Attempt; 1]>>,
    /// The rule that decides; none of those that no rule did.
    pub(crate) route: OnceCell<Arc<Route>>,
    pub(crate) is_canary: Cell<bool>,
}

/// An endpoint that was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) address: SocketAddr,
    pub(crate) begun: Instant,
    /// Until there was a new connection; `None`: there was one, or never.
    pub(crate) connect: Option<Duration>,
    /// Until the head of its answer; `None`: no answer.
    pub(crate) header: Option<Duration>,
    /// 0: no answer yet, nor will there be one by any fault of its own.
    pub(crate) status: u16,
    /// Until its answer, or until it was given up; `None`: its answer is still being read.
    pub(crate) took: Option<Duration>,
}

impl Record {
    /// Writes down what only the head knows.
    pub(crate) fn begin(client: &Rc<Client>, head: &Parts) -> Rc<Self> {
        let config = client.worker.config();
        let target = target(head);
        let log = config.access_log.as_ref();
        let log = log.filter(|log| log.skip.is_empty() || !log.skips(target.as_bytes()));
        let front = Front::of(client, &head.headers);
        let buffers = || client.worker.lines.take_buffers();
        let written = log.map(|log| Written::of(client, head, &front, log, buffers()));
        let begun = Instant::now();
        Rc::new(Self {
            client: client.clone(),
            begun,
            front,
            written,
            method: method_slot(&head.method),
            head_bytes: head_bytes(head, target),
            own_id: rand::random(),
            secured: Cell::new(false),
            admitted: Cell::new(begun),
            status: Cell::new(0),
            head_bytes_sent: Cell::new(0),
            body_bytes_received: Cell::new(0),
            body_bytes_sent: Cell::new(0),
            asked: Cell::new(None),
            connect: Cell::new(Duration::ZERO),
            answered: Cell::new(None),
            span: RefCell::default(),
            in_flight: RefCell::default(),
            attempts: RefCell::default(),
            route: OnceCell::new(),
            is_canary: Cell::new(false),
            config,
        })
    }

    /// It met a host; `is_secured`: whether that is one of HTTPS.
    pub(crate) fn hosted(&self, is_secured: bool) {
        self.secured.set(self.client.tls && is_secured);
    }

    /// Has an answer say that the host is one of HTTPS (RFC 6797 7.2: by HTTPS alone).
    pub(crate) fn secure(&self, headers: &mut HeaderMap) {
        if self.secured.get()
            && let Some(hsts) = &self.config.hsts
        {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.value().clone());
        }
    }

    /// It is traced.
    pub(crate) fn traced(&self, span: Box<Span>) {
        *self.span.borrow_mut() = Some(span);
    }

    /// The rule that decides.
    pub(crate) fn routed(&self, route: &Arc<Route>) -> &Arc<Route> {
        self.route.get_or_init(|| route.clone())
    }

    /// Whoever was asked lets it in: that took no endpoint's time.
    pub(crate) fn admitted(&self) {
        self.admitted.set(Instant::now());
    }

    /// The canary's Service was taken.
    pub(crate) fn tries_canary(&self) {
        self.is_canary.set(true);
    }

    /// An endpoint is asked.
    pub(crate) fn asks(&self, address: SocketAddr) {
        let is_first = self.asked.get().is_none();
        let begun = if is_first { self.admitted.get() } else { Instant::now() };
        self.asked.set(Some(begun));
        self.connect.set(Duration::ZERO);
        if self.written.is_some() || self.span.borrow().is_some() {
            let (connect, header, took) = Default::default();
            let attempt = Attempt { address, begun, connect, header, status: 0, took };
            self.attempts.borrow_mut().push(attempt);
        }
    }

    /// It is busy with it until it is given up or the request is over.
    pub(crate) fn keeps(&self, in_flight: InFlight) {
        *self.in_flight.borrow_mut() = Some(in_flight);
    }

    /// It had to be connected to first.
    pub(crate) fn connected(&self, took: Duration) {
        self.connect.set(took);
        if let Some(attempt) = self.attempts.borrow_mut().last_mut() {
            attempt.connect = Some(took);
        }
    }

    /// It answered; what follows is read now, unless somebody else is asked.
    pub(crate) fn answered(&self, status: StatusCode) {
        let now = Instant::now();
        self.answered.set(Some(now));
        if let Some(attempt) = self.attempts.borrow_mut().last_mut() {
            attempt.status = status.as_u16();
            attempt.header = Some(now - attempt.begun);
        }
    }

    /// It gave no answer, and is told of as nginx does (ngx_http_upstream_next): by the status that nobody
    /// else's answer would take the place of. Of what its client is to blame for nothing is.
    pub(crate) fn fails(&self, status: StatusCode) {
        if status.is_server_error()
            && let Some(attempt) = self.attempts.borrow_mut().last_mut()
        {
            attempt.status = status.as_u16();
        }
        self.leaves();
    }

    /// It is given up.
    pub(crate) fn leaves(&self) {
        self.answered.set(None);
        self.heard();
    }

    /// It has said everything, whoever has still to take it.
    pub(crate) fn heard(&self) {
        *self.in_flight.borrow_mut() = None;
        if let Some(attempt) = self.attempts.borrow_mut().last_mut() {
            attempt.took = Some(attempt.begun.elapsed());
        }
    }

    /// What the client is answered.
    pub(crate) fn answers(&self, status: StatusCode, headers: &HeaderMap) {
        self.status.set(status.as_u16());
        let line = STATUS_LINE_BYTES + status.canonical_reason().map_or(0, str::len);
        self.head_bytes_sent.set((line + field_bytes(headers)) as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.body_bytes_sent.set(self.body_bytes_sent.get() + bytes as u64);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.body_bytes_received.set(self.body_bytes_received.get() + bytes as u64);
    }

    pub(crate) fn status(&self) -> u16 {
        match self.status.get() {
            0 => CLIENT_LEFT,
            status => status,
        }
    }

    /// Line, head and body.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.head_bytes + self.body_bytes_received.get()
    }

    /// Line, head and body.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.head_bytes_sent.get() + self.body_bytes_sent.get()
    }

    /// What no rule decided is nobody's.
    fn count(&self, now: Instant) {
        let Some(route) = self.route.get() else { return };
        let asked = self.asked.get().zip(self.answered.get()).map(|(asked, answered)| Asked {
            connect: self.connect.get(),
            header: answered - asked,
            response: now - asked,
        });
        let sample = Sample {
            status: self.status(),
            method: self.method,
            is_canary: self.is_canary.get(),
            took: now - self.begun,
            asked,
            received_bytes: self.received_bytes(),
            sent_bytes: self.sent_bytes(),
        };
        route.series.count(self.client.worker.index, &sample);
    }
}

impl Record {
    /// Tells the collector, if the request is traced.
    fn trace(&self, now: Instant) {
        let (Some(span), Some(traces)) = (self.span.take(), &self.config.traces) else { return };
        let place = self.route.get().map(|route| Place {
            namespace: route.ingress.namespace.clone(),
            ingress: route.ingress.name.clone(),
            path: route.path.clone(),
            service: route.series.service().clone(),
        });
        let finished = Finished {
            span,
            end: SystemTime::now(),
            took: now - self.begun,
            status: self.status(),
            endpoint: self.attempts.borrow().last().map(|attempt| attempt.address),
            place,
        };
        let worker = &self.client.worker;
        worker.counters.trace_spans.add();
        if !worker.shared.traces.send(finished, traces.queue_spans_max) {
            worker.counters.trace_dropped.add();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        self.count(now);
        self.trace(now);
        self.log(now);
    }
}

/// Path and query as received.
pub(crate) fn target(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// As nginx names it.
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn head_bytes(head: &Parts, target: &str) -> u64 {
    let line = head.method.as_str().len() + target.len() + protocol(head.version).len();
    let bytes = line + REQUEST_LINE_BYTES + field_bytes(&head.headers) + 2;
    bytes as u64
}

fn field_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
}
