//! Requests that share connections: streams of HTTP/2.
//!
//! A watch holds its stream for minutes, and a server gives a connection only so many (RFC 9113
//! §5.1.2). Clients keep one connection to a server and let the next request wait for a stream; here
//! it gets another connection. A server that speaks only HTTP/1.1 gets one for each request.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::HOST};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{
    client::conn::{http1, http2},
    rt,
};
use hyper_util::{
    client::legacy::connect::{Connection, HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::client::Body;
use tower::BoxError;

use super::dial::{Dialler, Unreachable};

/// Streams taken of a connection: what an API server gives that is not told otherwise
/// (`--http2-max-streams-per-connection`). Of one that gives fewer, fewer are taken.
const STREAMS_MAX: u16 = 100;
/// What the server may send on a stream before it is read: what HTTP/2 begins with (RFC 9113 §6.9.2),
/// and the largest Secret in two dozen turns. A connection's is that of all its streams: those that
/// nobody reads leave the others theirs.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// Age at which a connection takes no more requests: the shortest time a watch lasts. It ends with
/// its last one, so that a detour ends, and watches spread over servers again.
const TAKING_MAX: Duration = Duration::from_secs(240);
/// Silence after which the server is asked whether it is there, and how long it has to answer.
const PING_AFTER: Duration = Duration::from_secs(15);
const PING_PATIENCE: Duration = Duration::from_secs(15);
/// Stands for a server's limit that has not come: SETTINGS carries 32 bits, and one that says no limit
/// is `usize::MAX` to h2.
const UNTOLD: usize = usize::MAX - 1;
/// How often is looked whether it has come.
const UNTOLD_TICK: Duration = Duration::from_millis(2);
/// Connections made for a request that the server closes before they take it.
const MADE_MAX: u32 = 3;

/// An answer, whoever carries it.
pub(super) type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// TLS where the address says so, over TCP.
pub(super) type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

/// Marks a request that may share its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sharing;

/// Connections to an API server, and the streams of them that are free.
pub(super) struct Streams {
    dialler: Dialler<Connector>,
    lanes: Mutex<Vec<Lane>>,
    /// Connections are made one after the other: who waits here takes a stream of the one that is
    /// being made, or shares its failure.
    turn: tokio::sync::Mutex<Option<Failure>>,
    /// The server does not speak HTTP/2, as far as is known.
    is_alone: AtomicBool,
}

/// A connection that takes requests.
struct Lane {
    requests: http2::SendRequest<Body>,
    since: Instant,
    /// How many streams the server gives; 0 once the connection has ended.
    given: Box<dyn Fn() -> usize + Send>,
    /// A reference more than streams are taken.
    users: Arc<()>,
}

/// A stream of a connection, taken until this and the answer's body are gone.
struct Stream {
    requests: http2::SendRequest<Body>,
    user: Arc<()>,
}

struct Failure {
    when: Instant,
    why: Unreachable,
}

/// What carries a request.
enum Way {
    Shared(Stream),
    New(Stream),
    Alone(http1::SendRequest<Body>),
}

impl Streams {
    pub(super) fn new(dialler: Dialler<Connector>) -> Self {
        Self {
            dialler,
            lanes: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            is_alone: AtomicBool::new(false),
        }
    }

    /// Sends a request whose address is absolute.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Answer, BoxError> {
        let uri = request.uri().clone();
        let mut made = 0;
        while made < MADE_MAX {
            let Stream { mut requests, user } = match self.way(&uri).await? {
                Way::Shared(stream) => stream,
                Way::New(stream) => {
                    made += 1;
                    stream
                }
                Way::Alone(requests) => return alone(requests, request).await,
            };
            match requests.try_send_request(request).await {
                Ok(answer) => {
                    return Ok(answer.map(|body| {
                        let counted = body.map_frame(move |frame| {
                            let _taken: &Arc<()> = &user;
                            frame
                        });
                        counted.boxed_unsync()
                    }));
                }
                Err(mut failed) => match failed.take_message() {
                    // Closed meanwhile (GOAWAY), which only a request finds out; it was not sent.
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        Err("the server closes connections before a request is sent".into())
    }

    async fn way(&self, uri: &Uri) -> Result<Way, BoxError> {
        if let Some(stream) = self.free() {
            return Ok(Way::Shared(stream));
        }
        let asked = Instant::now();
        let mut turn = None;
        if !self.is_alone.load(Ordering::Relaxed) {
            let failed = self.turn.lock().await;
            if let Some(stream) = self.free() {
                return Ok(Way::Shared(stream));
            }
            if let Some(failure) = failed.as_ref().filter(|failure| failure.when >= asked) {
                return Err(failure.why.clone().into());
            }
            turn = Some(failed);
        }
        let connection = match self.dialler.connect(uri).await {
            Ok(connection) => connection,
            Err(why) => {
                if let Some(failed) = &mut turn {
                    **failed = Some(Failure { when: Instant::now(), why: why.clone() });
                }
                return Err(why.into());
            }
        };
        let is_shared = connection.connected().is_negotiated_h2();
        self.is_alone.store(!is_shared, Ordering::Relaxed);
        if is_shared {
            let lane = Lane::over(connection).await?;
            let stream = lane.stream();
            locked(&self.lanes).push(lane);
            return Ok(Way::New(stream));
        }
        let (requests, connection) = http1::handshake(connection).await?;
        // It ends with its request, which is told what went wrong.
        tokio::spawn(connection);
        Ok(Way::Alone(requests))
    }

    /// A stream of the oldest connection that has one.
    fn free(&self) -> Option<Stream> {
        let mut lanes = locked(&self.lanes);
        lanes.retain(|lane| !lane.requests.is_closed() && lane.since.elapsed() < TAKING_MAX);
        lanes.iter().find(|lane| lane.has_room()).map(Lane::stream)
    }
}

impl Lane {
    async fn over<T>(connection: T) -> Result<Self, hyper::Error>
    where
        T: rt::Read + rt::Write + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(UNTOLD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_PATIENCE)
            // Else one whose server is gone, and whose requests have been given up, takes the next.
            .keep_alive_while_idle(true);
        let (requests, connection) = builder.handshake::<T, Body>(connection).await?;
        let running = Arc::new(Mutex::new(Some(connection)));
        let seen = running.clone();
        let given = move || {
            let running = locked(&seen);
            running.as_ref().map_or(0, http2::Connection::current_max_send_streams)
        };
        tokio::spawn(poll_fn(move |context| {
            let mut running = locked(&running);
            match running.as_mut().map(|connection| Pin::new(connection).poll(context)) {
                Some(Poll::Pending) => Poll::Pending,
                // Dropped, so that `requests` is closed; each request is told what went wrong.
                Some(Poll::Ready(_)) | None => {
                    *running = None;
                    Poll::Ready(())
                }
            }
        }));
        // A server says it first of all (RFC 9113 §3.4), but hyper tells nobody that it has come.
        while given() == UNTOLD {
            tokio::time::sleep(UNTOLD_TICK).await;
        }
        Ok(Self { requests, since: Instant::now(), given: Box::new(given), users: Arc::default() })
    }

    fn has_room(&self) -> bool {
        Arc::strong_count(&self.users) <= usize::from(STREAMS_MAX).min((self.given)())
    }

    fn stream(&self) -> Stream {
        Stream { requests: self.requests.clone(), user: self.users.clone() }
    }
}

/// Sends by HTTP/1.1 what would have gone by HTTP/2: RFC 9112 §3.2.1, origin-form and Host.
async fn alone(
    mut requests: http1::SendRequest<Body>,
    mut request: Request<Body>,
) -> Result<Answer, BoxError> {
    let uri = std::mem::take(request.uri_mut()).into_parts();
    if let Some(authority) = uri.authority {
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    }
    *request.uri_mut() = uri.path_and_query.map_or_else(Uri::default, Uri::from);
    Ok(requests.send_request(request).await?.map(BodyExt::boxed_unsync))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole whenever it is not held, whoever panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
