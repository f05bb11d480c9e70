//! HTTP/2 to an endpoint: connections of a thread, shared by its requests (gRPC).

use std::{
    cell::{Cell, RefCell},
    error::Error,
    iter::successors,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    Request, Response, Uri, Version,
    header::{CONNECTION, HOST, UPGRADE},
    uri::{PathAndQuery, Scheme},
};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{Mutex, Notify},
    task::spawn_local,
};

use super::{
    body::{RequestBody, Upload},
    client::Local,
    clock::Watch,
    connect::{ConnectError, establish},
    observed::{Observed, Observer},
    upstream::{SendError, broken, upload},
    worker::Worker,
};
use crate::{
    codec::h2::Overheard,
    record::Record,
    routes::{Endpoint, Patience},
};

/// An answer that its client does not read holds this much, at each of its streams: a quarter of what clients' uploads
/// may, as anybody has many streams.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Strangers share a connection, so it never fills: all its streams' windows are a sixteenth of it. Half
/// of it is what h2 grants small frames for being more than their bytes, before it ends the connection.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// On one connection at a time, or fewer if its endpoint says so. Servers need not take more than a hundred
/// (RFC 9113 6.5.2): one more would wait for the end of another, which may be hours away.
const STREAMS_MAX: usize = 64;
/// How long an endpoint is waited for to say so: it is the first thing it says (RFC 9113 3.4).
const SETTINGS_WAIT: Duration = Duration::from_millis(200);

/// Where a connection to one endpoint is kept, or made by whoever needs it first.
#[derive(Debug)]
pub(crate) struct Shared2 {
    sender: Mutex<Option<SendRequest<RequestBody>>>,
    /// Of the connection that takes requests.
    allowance: RefCell<Rc<Allowance>>,
    streams: Cell<usize>,
    /// Attempts that failed: who waited for one does not make the next.
    failures: Cell<u64>,
    last_failure: Cell<ConnectError>,
    used_ms: Cell<u64>,
}

/// How many streams of a connection its endpoint takes at a time.
#[derive(Debug)]
struct Allowance {
    streams_max: Cell<usize>,
    /// Once its settings are known, or never will be.
    is_said: Notify,
}

/// Learns of them.
struct Listening {
    overheard: Overheard,
    allowance: Rc<Allowance>,
}

/// A connection that takes requests.
struct Taken {
    sender: SendRequest<RequestBody>,
    /// How long it was waited for; `None`: it was there.
    waited: Option<Duration>,
    is_reused: bool,
}

/// A request's place on a connection, until its answer is read or given up.
#[derive(Debug)]
pub(crate) struct Stream2 {
    shared: Rc<Shared2>,
    /// There will be no more connections: it waits if this one is full.
    may_wait: bool,
    /// What its answer's parts are waited for with.
    watch: Arc<Watch>,
}

impl Stream2 {
    pub(super) fn on(shared: &Rc<Shared2>, watch: Arc<Watch>, may_wait: bool) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self { shared: shared.clone(), may_wait, watch }
    }

    /// As many came before the endpoint said that it takes fewer.
    fn is_too_much(&self) -> bool {
        self.shared.streams() > self.shared.streams_max() && !self.may_wait
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Stream2 {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get() - 1);
    }
}

impl Shared2 {
    /// Perhaps an endpoint that is known to take no more streams at a time.
    pub(super) fn new(streams_max: Option<usize>) -> Self {
        Self {
            sender: Mutex::default(),
            allowance: RefCell::new(Allowance::of(streams_max.unwrap_or(STREAMS_MAX))),
            streams: Cell::new(0),
            failures: Cell::new(0),
            last_failure: Cell::new(ConnectError::Refused),
            used_ms: Cell::new(0),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.streams() < self.streams_max()
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    pub(super) fn streams_max(&self) -> usize {
        self.allowance.borrow().streams_max.get()
    }

    pub(super) fn used_ms(&self) -> u64 {
        self.used_ms.get()
    }

    /// Whoever did not answer in time may be gone without a word, which the kernel believes after a
    /// quarter of an hour only: the next request has a new connection. What is on this one goes on.
    fn leave(&self) {
        if let Ok(mut sender) = self.sender.try_lock() {
            *sender = None;
        }
    }

    /// What became of one stream, and not of its connection.
    fn one_alone(&self, error: &hyper::Error) -> SendError {
        let mut sources = successors(error.source(), |&error| error.source());
        let error = sources.find_map(|source| source.downcast_ref::<h2::Error>());
        // RFC 9113 8.7.
        match error {
            Some(error) if error.is_remote() && error.is_go_away() => {
                // A stream above the last one, and so is the next.
                self.leave();
                SendError::Unprocessed
            }
            Some(error)
                if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) =>
            {
                SendError::Unprocessed
            }
            Some(error) if error.is_reset() => SendError::Reset,
            _ => SendError::Broken,
        }
    }

    /// The connection, made if there is none that still takes requests.
    async fn sender(
        &self,
        worker: &Rc<Worker>,
        endpoint: &Arc<Endpoint>,
        connect_ms: u64,
    ) -> Result<Taken, ConnectError> {
        self.used_ms.set(worker.clock.now_ms());
        let failures = self.failures.get();
        let (mut sender, waiting) = match self.sender.try_lock() {
            Ok(sender) => (sender, None),
            // Somebody makes it just now.
            Err(_) => {
                let waiting = Instant::now();
                (self.sender.lock().await, Some(waiting))
            }
        };
        if let Some(sender) = sender.as_ref().filter(|sender| !sender.is_closed()) {
            let waited = waiting.map(|since| since.elapsed());
            return Ok(Taken { sender: sender.clone(), waited, is_reused: true });
        }
        if self.failures.get() != failures {
            return Err(self.last_failure.get());
        }
        let waiting = waiting.unwrap_or_else(Instant::now);
        match connect(worker, endpoint, connect_ms).await {
            Ok((new, allowance)) => {
                self.allowance.replace(allowance);
                *sender = Some(new.clone());
                Ok(Taken { sender: new, waited: Some(waiting.elapsed()), is_reused: false })
            }
            Err(error) => {
                *sender = None;
                self.failures.set(failures + 1);
                self.last_failure.set(error);
                Err(error)
            }
        }
    }
}

impl Allowance {
    fn of(streams_max: usize) -> Rc<Self> {
        Rc::new(Self { streams_max: Cell::new(streams_max), is_said: Notify::new() })
    }
}

impl Observer for Listening {
    fn read(&mut self, bytes: &[u8]) {
        let heard = self.overheard.read(bytes);
        if let Some(streams_max) = heard.streams_max {
            let streams_max = usize::try_from(streams_max).unwrap_or(STREAMS_MAX);
            // None at all is for a while (RFC 9113 6.5.2), and a request may wait as long.
            self.allowance.streams_max.set(streams_max.clamp(1, STREAMS_MAX));
        }
        if heard.has_settings {
            self.allowance.is_said.notify_one();
        }
    }

    fn written(&self) {}

    fn blocked(&self) {}
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.allowance.is_said.notify_one();
    }
}

async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    connect_ms: u64,
) -> Result<(SendRequest<RequestBody>, Rc<Allowance>), ConnectError> {
    let (wire, watch) = establish(worker, endpoint, connect_ms).await?;
    let allowance = Allowance::of(STREAMS_MAX);
    let listening = Listening { overheard: Overheard::default(), allowance: allowance.clone() };
    let head_bytes_max = worker.config().limits.head_bytes_max;
    let header_list_bytes = u32::try_from(head_bytes_max).unwrap_or(u32::MAX);
    let shaking = Builder::new(Local)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(header_list_bytes)
        .handshake(TokioIo::new(Observed::new(wire, listening)));
    match watch.limit(pin!(shaking)).await {
        Some(Ok((sender, connection))) => {
            // How it ends is told to the requests on it.
            spawn_local(async { drop(connection.await) });
            // Whoever says nothing is asked all the same.
            _ = worker.shared.timer.timeout(SETTINGS_WAIT, allowance.is_said.notified()).await;
            Ok((sender, allowance))
        }
        Some(Err(_)) => Err(ConnectError::Refused),
        None => Err(ConnectError::TimedOut),
    }
}

/// A place on a connection to the endpoint that takes one more request, and that connection.
async fn place(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    connect_ms: u64,
) -> Result<(Stream2, Taken), ConnectError> {
    let mut waited = None::<Duration>;
    loop {
        let stream = worker.pool.stream2(endpoint, worker.clock.watch());
        let taken = stream.shared.sender(worker, endpoint, connect_ms).await?;
        if let Some(again) = taken.waited {
            waited = Some(waited.unwrap_or_default() + again);
        }
        if !stream.is_too_much() {
            if taken.is_reused {
                worker.counters.upstream_reuses.add();
            }
            return Ok((stream, Taken { waited, ..taken }));
        }
    }
}

/// A response, and the place it comes on.
pub(super) type Answer2 = (Response<Incoming>, Stream2);

/// Why there is none.
#[derive(Debug)]
pub(super) enum Failed2 {
    /// No connection: the request was not sent.
    Connect(ConnectError, Box<Request<RequestBody>>),
    /// As on HTTP/1.
    Send(SendError),
}

/// Sends a request on a connection to the endpoint and waits for the head of its response.
pub(super) async fn send(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    mut request: Box<Request<RequestBody>>,
    patience: &Patience,
    record: Option<&Record>,
) -> Result<Answer2, Failed2> {
    let (stream, mut taken) = match place(worker, endpoint, patience.connect_ms).await {
        Ok(placed) => placed,
        Err(error) => return Err(Failed2::Connect(error, request)),
    };
    if let (Some(record), Some(waited)) = (record, taken.waited) {
        record.connected(waited);
    }
    let watch = &stream.watch;
    let progress = request.body_mut().begin(watch, patience);
    let has_host = request.headers().contains_key(HOST);
    let sent = taken.sender.try_send_request(with_authority(*request, endpoint));
    match watch.limit(pin!(sent)).await {
        Some(Ok(response)) => {
            watch.disarm();
            Ok((response, stream))
        }
        Some(Err(mut failed)) => Err(Failed2::Send(match failed.take_message() {
            Some(request) => SendError::Unsent(Box::new(with_host(request, has_host))),
            None => match broken(progress.as_ref()) {
                SendError::Broken => stream.shared.one_alone(failed.error()),
                error => error,
            },
        })),
        None if upload(progress.as_ref()) == Upload::Receiving => {
            Err(Failed2::Send(SendError::ClientTimedOut))
        }
        None => {
            worker.counters.upstream_timeouts.add();
            stream.shared.leave();
            Err(Failed2::Send(SendError::TimedOut))
        }
    }
}

/// `:authority` instead of Host (RFC 9113 8.3.1). Of HTTP/1.0 there may be no Host; what is asked then is the
/// endpoint itself.
fn with_authority(mut request: Request<RequestBody>, endpoint: &Endpoint) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_2;
    // Fields of a connection, which a stream is none.
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().remove(UPGRADE);
    let host = request.headers_mut().remove(HOST);
    let host = host.and_then(|host| host.as_bytes().try_into().ok());
    let known = request.uri().clone();
    let mut parts = known.clone().into_parts();
    let is_tls = endpoint.tls().is_some();
    parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = host.or_else(|| endpoint.address().to_string().parse().ok());
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    // Never another path than the one that was asked for.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or(known);
    request
}

/// Back again: the next endpoint may speak HTTP/1. `has_host`: the authority was the client's.
fn with_host(mut request: Request<RequestBody>, has_host: bool) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_11;
    let mut parts = request.uri().clone().into_parts();
    let authority = parts.authority.take().filter(|_| has_host);
    if let Some(host) = authority.and_then(|host| host.as_str().parse().ok()) {
        request.headers_mut().insert(HOST, host);
    }
    if let Some(target) = parts.path_and_query {
        *request.uri_mut() = Uri::from(target);
    }
    request
}
