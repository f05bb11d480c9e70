//! What happened, counted per thread and summed when asked.

mod uncopied;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::StatusCode;

pub use self::uncopied::Uncopied;

/// Status codes are counted from 100 up to this.
const CODES: usize = 500;

/// Why a request was not routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// Not HTTP, or HTTP that cannot be read (over HTTP/2 a reset); a body that is none.
    Malformed,
    /// No Host, and not HTTP/1.0.
    HostMissing,
    /// More than one Host.
    HostDuplicate,
    /// Bytes that are not a host name.
    HostInvalid,
    /// Host and the request target name different hosts.
    HostMismatch,
    /// CONNECT or TRACE.
    Method,
    /// Path and query are too long.
    UriTooLong,
    /// The path has no safe normal form.
    Path,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// More than one Content-Length, or one that is no number.
    Length,
    /// Both a length and a transfer coding.
    LengthAndCoding,
    /// Too many fields, or too long ones.
    FieldsTooMany,
    /// What guards the route cannot be read, so nobody is let in.
    Misconfigured,
    /// Expressions of the host take more steps for the path than a request is given.
    Expressions,
    /// The client's address is not let in.
    Address,
    /// The client asks too often.
    RequestRate,
    /// The client has too many requests in service.
    ClientConnections,
    /// Nobody is let in without saying who he is, or whoever is asked said no.
    Authentication,
    /// The client has no certificate that is taken.
    Certificate,
    /// The client is of those that are let in nowhere.
    Blocked,
    /// A connection without the PROXY header that is required.
    ProxyHeader,
    /// A connection above what one peer may have before their PROXY headers have come, closed at once.
    ProxyHeaderLimit,
    /// An HTTP/2 connection that kept us busy for nothing, closed.
    Flood,
    /// A request above what an HTTP/2 connection may have at once, reset.
    StreamLimit,
    /// A connection above the limit, closed at once.
    ConnectionLimit,
    /// A connection above what one client's address may have, closed at once.
    ClientConnectionLimit,
}

impl Refused {
    /// All reasons, in the order they are shown.
    pub const ALL: [Refused; 26] = [
        Refused::Malformed,
        Refused::HostMissing,
        Refused::HostDuplicate,
        Refused::HostInvalid,
        Refused::HostMismatch,
        Refused::Method,
        Refused::UriTooLong,
        Refused::Path,
        Refused::TransferCoding,
        Refused::Length,
        Refused::LengthAndCoding,
        Refused::FieldsTooMany,
        Refused::Misconfigured,
        Refused::Expressions,
        Refused::Address,
        Refused::RequestRate,
        Refused::ClientConnections,
        Refused::Authentication,
        Refused::Certificate,
        Refused::Blocked,
        Refused::ProxyHeader,
        Refused::ProxyHeaderLimit,
        Refused::Flood,
        Refused::StreamLimit,
        Refused::ConnectionLimit,
        Refused::ClientConnectionLimit,
    ];

    /// The name used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Malformed => "malformed",
            Refused::HostMissing => "host_missing",
            Refused::HostDuplicate => "host_duplicate",
            Refused::HostInvalid => "host_invalid",
            Refused::HostMismatch => "host_mismatch",
            Refused::Method => "method",
            Refused::UriTooLong => "uri_too_long",
            Refused::Path => "path",
            Refused::TransferCoding => "transfer_coding",
            Refused::Length => "length",
            Refused::LengthAndCoding => "length_and_coding",
            Refused::FieldsTooMany => "fields_too_many",
            Refused::Misconfigured => "misconfigured",
            Refused::Expressions => "expressions",
            Refused::Address => "address",
            Refused::RequestRate => "request_rate",
            Refused::ClientConnections => "client_connections",
            Refused::Authentication => "authentication",
            Refused::Certificate => "certificate",
            Refused::Blocked => "blocked",
            Refused::ProxyHeader => "proxy_header",
            Refused::ProxyHeaderLimit => "proxy_header_limit",
            Refused::Flood => "flood",
            Refused::StreamLimit => "stream_limit",
            Refused::ConnectionLimit => "connection_limit",
            Refused::ClientConnectionLimit => "client_connection_limit",
        }
    }

    /// What the client is answered.
    pub fn status(self) -> StatusCode {
        match self {
            Refused::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refused::UriTooLong => StatusCode::URI_TOO_LONG,
            Refused::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Refused::FieldsTooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refused::Address | Refused::Certificate | Refused::Blocked => StatusCode::FORBIDDEN,
            Refused::Authentication => StatusCode::UNAUTHORIZED,
            Refused::Flood => StatusCode::TOO_MANY_REQUESTS,
            // nginx: limit_req_status, limit_conn_status; ingress-nginx: a denied location.
            Refused::RequestRate
            | Refused::ClientConnections
            | Refused::Misconfigured
            | Refused::Expressions
            | Refused::StreamLimit
            | Refused::ProxyHeaderLimit
            | Refused::ConnectionLimit
            | Refused::ClientConnectionLimit => StatusCode::SERVICE_UNAVAILABLE,
            Refused::Malformed
            | Refused::HostMissing
            | Refused::HostDuplicate
            | Refused::HostInvalid
            | Refused::HostMismatch
            | Refused::Length
            | Refused::LengthAndCoding
            | Refused::ProxyHeader
            | Refused::Path => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sums over all data threads since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Responses by status code.
    pub responses: BTreeMap<u16, u64>,
    /// Requests and connections not routed, by reason.
    pub refused: BTreeMap<Refused, u64>,
    /// Client connections accepted.
    pub connections: u64,
    /// Client connections one thread accepted and another served.
    pub connections_moved: u64,
    /// Client connections open now.
    pub connections_open: u64,
    /// TLS handshakes completed.
    pub tls_handshakes: u64,
    /// TLS handshakes failed or given up; those to be passed on that reached no endpoint, too.
    pub tls_failures: u64,
    /// Connections closed because the client was too slow or idle for too long.
    pub client_timeouts: u64,
    /// Connections made to endpoints.
    pub upstream_connects: u64,
    /// Connections that could not be made.
    pub upstream_connect_failures: u64,
    /// TLS handshakes with endpoints that failed, certificates that are not accepted included.
    pub upstream_tls_failures: u64,
    /// Requests sent on a connection used before.
    pub upstream_reuses: u64,
    /// Requests sent again, to the same or another endpoint.
    pub upstream_retries: u64,
    /// Requests an endpoint did not answer in time.
    pub upstream_timeouts: u64,
    /// WebSockets opened.
    pub tunnels: u64,
    /// TLS connections passed on unopened.
    pub passthroughs: u64,
    /// Connections and clients of TCP and UDP services.
    pub streams: u64,
    /// Of those, connections that reached no endpoint or were above the limit; and datagrams that
    /// were lost.
    pub streams_failed: u64,
    /// Clients of UDP services that gave way to others before they were idle long enough.
    pub streams_displaced: u64,
    /// Answers that were sent as they are because their thread compressed as many as it may.
    pub uncompressed: u64,
    /// Requests that were to be read whole, and went on before they were: too large, or no room.
    pub requests_unbuffered: u64,
    /// Answers that were to be read ahead and found no room, so that their endpoints waited for
    /// clients.
    pub answers_unbuffered: u64,
    /// Bytes that went from one connection to the other within the kernel: of long bodies, TCP
    /// services and TLS passed on.
    pub spliced_bytes: u64,
    /// Copies of requests a mirror answered.
    pub copies: u64,
    /// Those that were not made or not answered, by reason.
    pub uncopied: BTreeMap<Uncopied, u64>,
    /// Lines of the access log.
    pub log_lines: u64,
    /// Of those, lines that were not written: the queue was full, or the file could not be written.
    pub log_dropped: u64,
    /// Spans of requests that were traced.
    pub trace_spans: u64,
    /// Of those, spans the collector was not told: the queue was full, or it took none.
    pub trace_dropped: u64,
}

/// Where the counters of a role are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    pub(crate) threads: Vec<Arc<ThreadCounters>>,
    /// Lines of the access log that reached the writing thread and no further.
    pub(crate) log_lost: Arc<AtomicU64>,
    /// Spans that reached the exporting thread and no further.
    pub(crate) traces_lost: Arc<AtomicU64>,
}

impl Meter {
    pub(crate) fn read(&self) -> Counters {
        let mut sum = Counters::sum(self.threads.iter().map(|counters| &**counters));
        sum.log_dropped += self.log_lost.load(Relaxed);
        sum.trace_dropped += self.traces_lost.load(Relaxed);
        sum
    }
}

/// One thread's counters. Only that thread writes.
#[derive(Debug)]
pub(crate) struct ThreadCounters {
    codes: Box<[AtomicU64]>,
    refused: [AtomicU64; Refused::ALL.len()],
    uncopied: [AtomicU64; Uncopied::ALL.len()],
    pub(crate) copies: Counter,
    pub(crate) connections: Counter,
    pub(crate) connections_closed: Counter,
    pub(crate) connections_moved: Counter,
    pub(crate) tls_handshakes: Counter,
    pub(crate) tls_failures: Counter,
    pub(crate) client_timeouts: Counter,
    pub(crate) upstream_connects: Counter,
    pub(crate) upstream_connect_failures: Counter,
    pub(crate) upstream_tls_failures: Counter,
    pub(crate) upstream_reuses: Counter,
    pub(crate) upstream_retries: Counter,
    pub(crate) upstream_timeouts: Counter,
    pub(crate) tunnels: Counter,
    pub(crate) passthroughs: Counter,
    pub(crate) streams: Counter,
    pub(crate) streams_ended: Counter,
    pub(crate) streams_failed: Counter,
    pub(crate) streams_displaced: Counter,
    pub(crate) uncompressed: Counter,
    pub(crate) requests_unbuffered: Counter,
    pub(crate) answers_unbuffered: Counter,
    pub(crate) spliced_bytes: Counter,
    pub(crate) log_lines: Counter,
    pub(crate) log_dropped: Counter,
    pub(crate) trace_spans: Counter,
    pub(crate) trace_dropped: Counter,
}

/// A number one thread adds to and all may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.add_all(1);
    }

    pub(crate) fn add_all(&self, count: u64) {
        // One writer: no locked instruction needed.
        self.0.store(self.0.load(Relaxed) + count, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One writer: no locked instruction needed.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

impl ThreadCounters {
    pub(crate) fn new() -> Self {
        Self {
            codes: (0..CODES).map(|_| AtomicU64::new(0)).collect(),
            refused: Default::default(),
            uncopied: Default::default(),
            copies: Counter::default(),
            connections: Counter::default(),
            connections_closed: Counter::default(),
            connections_moved: Counter::default(),
            tls_handshakes: Counter::default(),
            tls_failures: Counter::default(),
            client_timeouts: Counter::default(),
            upstream_connects: Counter::default(),
            upstream_connect_failures: Counter::default(),
            upstream_tls_failures: Counter::default(),
            upstream_reuses: Counter::default(),
            upstream_retries: Counter::default(),
            upstream_timeouts: Counter::default(),
            tunnels: Counter::default(),
            passthroughs: Counter::default(),
            streams: Counter::default(),
            streams_ended: Counter::default(),
            streams_failed: Counter::default(),
            streams_displaced: Counter::default(),
            uncompressed: Counter::default(),
            requests_unbuffered: Counter::default(),
            answers_unbuffered: Counter::default(),
            spliced_bytes: Counter::default(),
            log_lines: Counter::default(),
            log_dropped: Counter::default(),
            trace_spans: Counter::default(),
            trace_dropped: Counter::default(),
        }
    }

    pub(crate) fn response(&self, status: StatusCode) {
        let slot = usize::from(status.as_u16().saturating_sub(100)).min(CODES - 1);
        if let Some(counter) = self.codes.get(slot) {
            bump(counter);
        }
    }

    pub(crate) fn refused(&self, reason: Refused) {
        if let Some(counter) = self.refused.get(reason as usize) {
            bump(counter);
        }
    }

    pub(crate) fn uncopied(&self, reason: Uncopied) {
        if let Some(counter) = self.uncopied.get(reason as usize) {
            bump(counter);
        }
    }
}

impl Counters {
    pub(crate) fn sum<'a>(threads: impl Iterator<Item = &'a ThreadCounters>) -> Self {
        let mut sum = Self::default();
        for thread in threads {
            for (code, counter) in (100u16..).zip(&thread.codes) {
                let count = counter.load(Relaxed);
                if count > 0 {
                    *sum.responses.entry(code).or_default() += count;
                }
            }
            for (reason, counter) in Refused::ALL.iter().zip(&thread.refused) {
                *sum.refused.entry(*reason).or_default() += counter.load(Relaxed);
            }
            for (reason, counter) in Uncopied::ALL.iter().zip(&thread.uncopied) {
                *sum.uncopied.entry(*reason).or_default() += counter.load(Relaxed);
            }
            sum.copies += thread.copies.get();
            let closed = thread.connections_closed.get();
            sum.connections += thread.connections.get();
            sum.connections_moved += thread.connections_moved.get();
            sum.connections_open += thread.connections.get().saturating_sub(closed);
            sum.tls_handshakes += thread.tls_handshakes.get();
            sum.tls_failures += thread.tls_failures.get();
            sum.client_timeouts += thread.client_timeouts.get();
            sum.upstream_connects += thread.upstream_connects.get();
            sum.upstream_connect_failures += thread.upstream_connect_failures.get();
            sum.upstream_tls_failures += thread.upstream_tls_failures.get();
            sum.upstream_reuses += thread.upstream_reuses.get();
            sum.upstream_retries += thread.upstream_retries.get();
            sum.upstream_timeouts += thread.upstream_timeouts.get();
            sum.tunnels += thread.tunnels.get();
            sum.passthroughs += thread.passthroughs.get();
            sum.streams += thread.streams.get();
            sum.streams_failed += thread.streams_failed.get();
            sum.streams_displaced += thread.streams_displaced.get();
            sum.uncompressed += thread.uncompressed.get();
            sum.requests_unbuffered += thread.requests_unbuffered.get();
            sum.answers_unbuffered += thread.answers_unbuffered.get();
            sum.spliced_bytes += thread.spliced_bytes.get();
            sum.log_lines += thread.log_lines.get();
            sum.log_dropped += thread.log_dropped.get();
            sum.trace_spans += thread.trace_spans.get();
            sum.trace_dropped += thread.trace_dropped.get();
        }
        sum
    }

    /// All responses.
    pub fn requests(&self) -> u64 {
        self.responses.values().sum()
    }
}
