//! The small HTTP servers beside the data plane: health and metrics. GET only, no state of their
//! own.

use std::{
    convert::Infallible, fs, future::Future, io, net::SocketAddr, os::unix, path::Path, sync::Arc,
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::holder::{self, Transport};

/// A scraper or kubelet needs one; more than this is somebody else.
const CONNECTIONS_MAX: usize = 64;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What one path answers: status and text.
pub(crate) type Page = (StatusCode, String);

/// Where connections come from.
trait Accept: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Binds now, so that a taken port is known at start, and serves until `cancel`.
pub(crate) async fn serve(
    what: &'static str,
    address: SocketAddr,
    pages: Arc<impl Fn(&str) -> Option<Page> + Send + Sync + 'static>,
    cancel: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let taken = error.kind() == io::ErrorKind::AddrInUse;
        let cure = if taken { "another process has it: stop it or " } else { "" };
        let error = anyhow::anyhow!(
            "{what}: cannot listen on {address} ({error}): {cure}choose another address"
        );
        let holder = taken.then(|| holder::of(address, Transport::Tcp)).flatten();
        holder::named(error, holder.as_deref())
    })?;
    let bound = listener.local_addr()?;
    tokio::spawn(cancel.run_until_cancelled_owned(accept(listener, pages)));
    Ok(bound)
}

/// The same on a Unix socket, which takes the place of one that nobody listens on any more.
pub(crate) fn serve_at(
    what: &'static str,
    path: &Path,
    pages: Arc<impl Fn(&str) -> Option<Page> + Send + Sync + 'static>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let shown = path.display();
    if unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("{what}: another agent listens on {shown}: choose another path");
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("{what}: making {}", parent.display()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{what}: replacing {shown}"));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("{what}: cannot listen on {shown}"))?;
    tokio::spawn(cancel.run_until_cancelled_owned(accept(listener, pages)));
    Ok(())
}

async fn accept(
    listener: impl Accept,
    pages: Arc<impl Fn(&str) -> Option<Page> + Send + Sync + 'static>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok(stream) = listener.next().await else {
            // Out of descriptors: the connection stays in the backlog until one is free.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = pages.clone();
        let service = hyper::service::service_fn(move |request| {
            let response = answer(&request, &*pages);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
            // A client that hangs up is no event of ours.
            drop(connection.serve_connection(TokioIo::new(stream), service).await);
            drop(permit);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    pages: &(impl Fn(&str) -> Option<Page> + ?Sized),
) -> Response<Full<Bytes>> {
    let (status, text) = if request.method() == Method::GET || request.method() == Method::HEAD {
        let page = pages(request.uri().path());
        page.unwrap_or_else(|| (StatusCode::NOT_FOUND, "no such page\n".into()))
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "read-only\n".into())
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
