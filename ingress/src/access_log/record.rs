//! One request, from its head to its last byte. Dropping the record writes the line.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, StatusCode, Version, header::HOST, request::Parts};

use super::{
    AccessLog,
    format::{Early, Late, Part},
    lines::Now,
    text::{Escape, push_address, push_number, push_seconds},
};
use crate::{
    config::IngressConfig,
    cookies, host, path,
    routes::{Route, UpstreamKey},
    serve::{Client, argument, hex_id, sent_request_id, user},
};

/// nginx: the client left before there was an answer.
const CLIENT_LEFT: u16 = 499;
/// Between the method, the target and the protocol, and at the line's end.
const REQUEST_LINE_BYTES: usize = 4;
/// `HTTP/1.1 200 ` without its reason, its line end, and the empty line behind all fields.
const STATUS_LINE_BYTES: usize = 17;
/// Between a field's name and its value, and at the line's end.
const FIELD_BYTES: usize = 4;

/// What a line will be made of.
#[derive(Debug)]
pub(crate) struct Record {
    client: Rc<Client>,
    /// Has the format.
    config: Rc<IngressConfig>,
    begun: Instant,
    /// The early parts, each ending where `ends` says.
    text: Vec<u8>,
    ends: Vec<usize>,
    head_bytes: u64,
    sent_id: Option<HeaderValue>,
    own_id: Cell<u128>,
    status: Cell<u16>,
    head_bytes_sent: Cell<u64>,
    body_bytes_received: Cell<u64>,
    body_bytes_sent: Cell<u64>,
    attempts: RefCell<Vec<Attempt>>,
    route: RefCell<Option<Arc<Route>>>,
    is_canary: Cell<bool>,
    is_silent: Cell<bool>,
}

/// An endpoint that was asked.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    address: SocketAddr,
    begun: Instant,
    /// 0: no answer.
    status: u16,
    /// Until its answer, or until it was given up; `None`: its answer is still being read.
    took: Option<Duration>,
}

impl Record {
    /// Writes down what only the head knows. `None`: the request is not logged.
    pub(crate) fn begin(client: &Rc<Client>, head: &Parts) -> Option<Rc<Self>> {
        let config = client.worker.config();
        let log = config.access_log.as_ref()?;
        let target = target(head);
        if !log.skip.is_empty() && log.skips(target.as_bytes()) {
            return None;
        }
        let (mut text, mut ends) = client.worker.lines.take_buffers();
        for part in &*log.format.parts {
            if let Part::Early(early) = part {
                early.push(head, log.format.escape, &mut text);
                ends.push(text.len());
            }
        }
        Some(Rc::new(Self {
            client: client.clone(),
            begun: Instant::now(),
            text,
            ends,
            head_bytes: head_bytes(head, target),
            sent_id: sent_request_id(&head.headers).cloned(),
            own_id: Cell::new(0),
            status: Cell::new(0),
            head_bytes_sent: Cell::new(0),
            body_bytes_received: Cell::new(0),
            body_bytes_sent: Cell::new(0),
            attempts: RefCell::default(),
            route: RefCell::default(),
            is_canary: Cell::new(false),
            is_silent: Cell::new(false),
            config,
        }))
    }

    /// The id it was given here, if the client gave none.
    pub(crate) fn identify(&self, own_id: u128) {
        self.own_id.set(own_id);
    }

    /// The rule that decided.
    pub(crate) fn routed(&self, route: Arc<Route>) {
        self.is_silent.set(!route.policy.is_logged);
        *self.route.borrow_mut() = Some(route);
    }

    /// The canary's Service was taken.
    pub(crate) fn tries_canary(&self) {
        self.is_canary.set(true);
    }

    /// An endpoint is asked.
    pub(crate) fn asks(&self, address: SocketAddr) {
        let mut attempts = self.attempts.borrow_mut();
        let begun = if attempts.is_empty() { self.begun } else { Instant::now() };
        attempts.push(Attempt { address, begun, status: 0, took: None });
    }

    /// It answered; what follows is read now, unless somebody else is asked.
    pub(crate) fn answered(&self, status: StatusCode) {
        if let Some(attempt) = self.attempts.borrow_mut().last_mut() {
            attempt.status = status.as_u16();
        }
    }

    /// It is given up.
    pub(crate) fn leaves(&self) {
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

    fn log(&self) -> Option<&AccessLog> {
        self.config.access_log.as_ref()
    }

    fn push(&self, log: &AccessLog, now: &Now<'_>, out: &mut Vec<u8>) {
        let (mut start, mut ends) = (0, self.ends.iter());
        for part in &*log.format.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Early(_) => {
                    let end = ends.next().copied().unwrap_or(start);
                    out.extend_from_slice(self.text.get(start..end).unwrap_or_default());
                    start = end;
                }
                Part::Late(late) => self.push_late(*late, log.format.escape, now, out),
            }
        }
        out.push(b'\n');
    }

    fn push_late(&self, late: Late, escape: Escape, now: &Now<'_>, out: &mut Vec<u8>) {
        let client = &self.client;
        match late {
            Late::RemoteAddr => out.extend_from_slice(client.origin.client.as_bytes()),
            Late::ServerPort => push_number(client.port.into(), out),
            Late::Scheme => out.extend_from_slice(client.origin.scheme.as_bytes()),
            Late::TlsProtocol => escape.push(client.tls_protocol().as_bytes(), out),
            Late::TimeLocal => out.extend_from_slice(now.local.as_bytes()),
            Late::TimeIso8601 => out.extend_from_slice(now.iso8601.as_bytes()),
            Late::Msec => push_seconds(now.since_epoch, out),
            Late::Status => push_number(self.status().into(), out),
            Late::BodyBytesSent => push_number(self.body_bytes_sent.get(), out),
            Late::BytesSent => {
                push_number(self.head_bytes_sent.get() + self.body_bytes_sent.get(), out);
            }
            Late::RequestLength => {
                push_number(self.head_bytes + self.body_bytes_received.get(), out);
            }
            Late::RequestTime => push_seconds(now.instant - self.begun, out),
            Late::RequestId => match &self.sent_id {
                Some(id) => escape.push(id.as_bytes(), out),
                None => out.extend_from_slice(hex_id(self.own_id.get()).as_bytes()),
            },
            Late::UpstreamName => match self.upstream(false) {
                Some(key) => push_name(&key, escape, out),
                None => escape.push_nothing(out),
            },
            // nginx: a variable that is set to nothing is nothing.
            Late::AlternativeName => {
                if let Some(key) = self.upstream(true) {
                    push_name(&key, escape, out);
                }
            }
            Late::Namespace | Late::IngressName | Late::LocationPath => {
                let route = self.route.borrow();
                let text = route.as_ref().map(|route| match late {
                    Late::Namespace => &*route.ingress.namespace,
                    Late::IngressName => &*route.ingress.name,
                    _ => &*route.path,
                });
                escape.push(text.unwrap_or_default().as_bytes(), out);
            }
            Late::ServiceName => {
                let key = self.upstream(false);
                escape.push(key.as_ref().map_or("", |key| &key.service.name).as_bytes(), out);
            }
            Late::ServicePort => {
                let key = self.upstream(false);
                escape.push(key.map(|key| key.port_text()).unwrap_or_default().as_bytes(), out);
            }
            Late::UpstreamAddr => self.push_attempts(escape, out, |attempt, _, out| {
                push_address(attempt.address, out);
            }),
            Late::UpstreamStatus => self.push_attempts(escape, out, |attempt, _, out| {
                // nginx: whoever did not answer is told of as if it had.
                push_number(if attempt.status == 0 { 502 } else { attempt.status.into() }, out);
            }),
            Late::UpstreamResponseTime => self.push_attempts(escape, out, |attempt, _, out| {
                push_seconds(attempt.took.unwrap_or_else(|| now.instant - attempt.begun), out);
            }),
            Late::UpstreamResponseLength => self.push_attempts(escape, out, |_, is_last, out| {
                push_number(if is_last { self.body_bytes_sent.get() } else { 0 }, out);
            }),
        }
    }

    /// One after the other, in the order they were asked.
    fn push_attempts(
        &self,
        escape: Escape,
        out: &mut Vec<u8>,
        push: impl Fn(&Attempt, bool, &mut Vec<u8>),
    ) {
        let attempts = self.attempts.borrow();
        if attempts.is_empty() {
            return escape.push_nothing(out);
        }
        for (i, attempt) in attempts.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            push(attempt, i + 1 == attempts.len(), out);
        }
    }

    fn status(&self) -> u16 {
        match self.status.get() {
            0 => CLIENT_LEFT,
            status => status,
        }
    }

    fn upstream(&self, is_canary: bool) -> Option<UpstreamKey> {
        let route = self.route.borrow();
        let route = route.as_ref()?;
        if is_canary {
            let canary = route.canary.as_ref().filter(|_| self.is_canary.get())?;
            return Some(canary.upstream.key().clone());
        }
        Some(route.upstream.as_ref()?.key().clone())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let client = self.client.clone();
        let lines = &client.worker.lines;
        if let Some(log) = self.log().filter(|_| !self.is_silent.get()) {
            lines.add(&self.config, &client.worker.counters, |now, out| {
                self.push(log, now, out);
            });
        }
        lines.give_back(std::mem::take(&mut self.text), std::mem::take(&mut self.ends));
    }
}

/// `NAMESPACE-SERVICE-PORT`, as ingress-nginx names its upstreams.
fn push_name(key: &UpstreamKey, escape: Escape, out: &mut Vec<u8>) {
    for part in [&*key.service.namespace, &*key.service.name] {
        escape.push(part.as_bytes(), out);
        out.push(b'-');
    }
    escape.push(key.port_text().as_bytes(), out);
}

fn target(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |target| target.as_str())
}

fn head_bytes(head: &Parts, target: &str) -> u64 {
    let line = head.method.as_str().len() + target.len() + protocol(head.version).len();
    let bytes = line + REQUEST_LINE_BYTES + field_bytes(&head.headers) + 2;
    bytes as u64
}

fn field_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

impl Early {
    fn push(&self, head: &Parts, escape: Escape, out: &mut Vec<u8>) {
        let text = |text: &str, out: &mut Vec<u8>| escape.push(text.as_bytes(), out);
        match self {
            Self::Request => {
                text(head.method.as_str(), out);
                out.push(b' ');
                text(target(head), out);
                out.push(b' ');
                text(protocol(head.version), out);
            }
            Self::RequestUri => text(target(head), out),
            Self::Uri => {
                let path = head.uri.path();
                text(&path::normalise(path).unwrap_or_else(|_| path.into()), out);
            }
            Self::Args => text(head.uri.query().unwrap_or_default(), out),
            Self::IsArgs => {
                if head.uri.query().is_some() {
                    out.push(b'?');
                }
            }
            Self::Method => text(head.method.as_str(), out),
            Self::Protocol => text(protocol(head.version), out),
            Self::Host => {
                let sent = http_host(head);
                text(&host::normalise(sent).unwrap_or_else(|| sent.into()), out);
            }
            Self::HttpHost => text(http_host(head), out),
            Self::RemoteUser => text(&user(&head.headers), out),
            Self::Header(name) => {
                let value = head.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
                escape.push(value, out);
            }
            Self::Cookie(name) => {
                text(cookies::find(&head.headers, name).unwrap_or_default(), out);
            }
            Self::Arg(name) => text(argument(head.uri.query(), name).unwrap_or_default(), out),
        }
    }
}

fn http_host(head: &Parts) -> &str {
    let field = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    field.or_else(|| head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default()
}
