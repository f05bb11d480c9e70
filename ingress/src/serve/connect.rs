//! TCP, and perhaps TLS, to an endpoint.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{clock::Watch, upstream::UpstreamConnection, wire::Wire, worker::Worker};
use crate::routes::Endpoint;

/// Why an endpoint could not be reached. No byte was sent, so any request may go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectError {
    /// It refused, or there is no way to it.
    Refused,
    /// It did not answer in time.
    TimedOut,
}

/// A new connection to an endpoint.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    connect_ms: u64,
) -> Result<Box<UpstreamConnection>, ConnectError> {
    let (wire, watch) = establish(worker, endpoint, connect_ms).await?;
    Ok(UpstreamConnection::new(wire, endpoint.clone(), watch))
}

/// TCP and TLS; the watch's deadline is still that of connecting.
pub(super) async fn establish(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    connect_ms: u64,
) -> Result<(Wire, Arc<Watch>), ConnectError> {
    let connected = open(worker, endpoint, connect_ms).await;
    note(worker, endpoint, connected.is_ok());
    connected
}

/// TCP alone, for bytes that are not ours to read.
pub(super) async fn plain(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    connect_ms: u64,
) -> Result<TcpStream, ConnectError> {
    let connected = reach(worker, endpoint, connect_ms).await.map(|(stream, _)| stream);
    note(worker, endpoint, connected.is_ok());
    connected
}

fn note(worker: &Worker, endpoint: &Endpoint, is_connected: bool) {
    if is_connected {
        endpoint.worked();
        worker.counters.upstream_connects.add();
    } else {
        endpoint.failed();
        worker.counters.upstream_connect_failures.add();
    }
}

async fn open(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    connect_ms: u64,
) -> Result<(Wire, Arc<Watch>), ConnectError> {
    let (stream, watch) = reach(worker, endpoint, connect_ms).await?;
    Ok((encrypt(worker, endpoint, stream, &watch).await?, watch))
}

async fn reach(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    connect_ms: u64,
) -> Result<(TcpStream, Arc<Watch>), ConnectError> {
    let watch = worker.clock.watch();
    watch.arm(connect_ms);
    watch.wake_each_tick();
    let mut connecting = pin!(TcpStream::connect(endpoint.address()));
    let outcome = poll_fn(|cx| {
        watch.register(cx.waker());
        match connecting.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            // An address that is nobody's any more does not even refuse.
            Poll::Pending if watch.expired() || endpoint.is_gone() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match outcome {
        Some(Ok(stream)) => {
            // Fails on a connection already reset; the next write says so.
            let _ = stream.set_nodelay(true);
            watch.wake_when_expired();
            Ok((stream, watch))
        }
        Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(ConnectError::TimedOut),
        Some(Err(_)) => Err(ConnectError::Refused),
        None => Err(ConnectError::TimedOut),
    }
}

async fn encrypt(
    worker: &Worker,
    endpoint: &Endpoint,
    stream: TcpStream,
    watch: &Watch,
) -> Result<Wire, ConnectError> {
    let Some(tls) = endpoint.tls() else { return Ok(Wire::plain(stream)) };
    let connector = TlsConnector::from(tls.config.clone());
    match watch.limit(pin!(connector.connect(tls.name.clone(), stream))).await {
        Some(Ok(stream)) => Ok(Wire::tls(stream)),
        Some(Err(error)) => {
            tracing::debug!(endpoint = %endpoint.address(), %error, "TLS to an endpoint");
            worker.counters.upstream_tls_failures.add();
            Err(ConnectError::Refused)
        }
        None => Err(ConnectError::TimedOut),
    }
}
