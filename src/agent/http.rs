//! The small HTTP servers beside the data plane: health and metrics. GET only, no state of their
//! own.

use std::{
    convert::Infallible,
    fs,
    future::Future,
    io,
    net::SocketAddr,
    os::unix::{
        self,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
};
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
/// Request line and fields together; hyper takes no less.
const HEAD_BYTES_MAX: usize = 8192;
/// Pages below it are JSON and may take a while.
const DATA_PREFIX: &str = "/v1/";
/// Has a line for each bucket of each path.
const METRICS_PATH: &str = "/metrics";
/// Root, and the members of the group.
const SOCKET_MODE: u32 = 0o660;
/// Its members may ask, if there is such a group.
const SOCKET_GROUP: &str = "fairlead";

/// What one path answers: status and text.
pub(crate) type Page = (StatusCode, String);

/// What a response carries: a text, or a stream without end.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What answers requests.
pub(crate) trait Site: Clone + Send + Sync + 'static {
    /// Answers one; a failure is an answer, too.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// Texts by path, read-only.
#[derive(Debug)]
pub(crate) struct Texts<P>(Arc<P>);

impl<P> Clone for Texts<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Fn(&Uri) -> Option<Page> + Send + Sync + 'static> Texts<P> {
    pub(crate) fn new(pages: P) -> Self {
        Self(Arc::new(pages))
    }
}

impl<P: Fn(&Uri) -> Option<Page> + Send + Sync + 'static> Site for Texts<P> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        answer(request, self.0.clone()).await
    }
}

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
    site: impl Site,
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
    tokio::spawn(cancel.run_until_cancelled_owned(async move { accept(&listener, site).await }));
    Ok(bound)
}

/// The same on a Unix socket, which takes the place of one that nobody listens on any more.
pub(crate) fn serve_at(
    what: &'static str,
    path: &Path,
    site: impl Site,
    cancel: CancellationToken,
) -> anyhow::Result<Taken> {
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
    admit(path).with_context(|| format!("{what}: {shown}"))?;
    let taken = Taken::of(path)?;
    tokio::spawn(cancel.run_until_cancelled_owned(async move { accept(&listener, site).await }));
    Ok(taken)
}

/// A socket in the file system, taken away with this.
#[derive(Debug)]
pub(crate) struct Taken {
    path: PathBuf,
    /// By these nobody else's socket of the same name is taken for it.
    device: u64,
    inode: u64,
}

impl Taken {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let is_ours = |at: fs::Metadata| (at.dev(), at.ino()) == (self.device, self.inode);
        if fs::metadata(&self.path).is_ok_and(is_ours) {
            // Whoever comes next takes its place in any case.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A group's number in the text of /etc/group (group(5)).
fn group_id(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1))?)?.parse().ok()
}

/// Who may connect.
fn admit(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    // Not by getgrnam(3): a static program that loads the system's NSS modules may crash in them.
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    if let Some(group) = group_id(&groups, SOCKET_GROUP) {
        match unix::fs::chown(path, None, Some(group)) {
            // Without CAP_CHOWN, as in a pod, where nobody but the agent's own user comes here.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::debug!(%error, group = SOCKET_GROUP, "the admin socket is the owner's alone");
            }
            other => other?,
        }
    }
    Ok(())
}

async fn accept(listener: &impl Accept, site: impl Site) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok(stream) = listener.next().await else {
            // Out of descriptors: the connection stays in the backlog until one is free.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let site = site.clone();
        let service = hyper::service::service_fn(move |request| {
            let site = site.clone();
            async move { Ok::<_, Infallible>(site.answer(request).await) }
        });
        tokio::spawn(async move {
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
            connection.max_buf_size(HEAD_BYTES_MAX);
            // A client that hangs up is no event of ours.
            drop(connection.serve_connection(TokioIo::new(stream), service).await);
            drop(permit);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    pages: Arc<impl Fn(&Uri) -> Option<Page> + Send + Sync + 'static>,
) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, "read-only\n".into());
    }
    let uri = request.uri().clone();
    let path = uri.path().to_owned();
    let is_data = uri.path().starts_with(DATA_PREFIX);
    // Reports are work: reading maps, planning. They must not hold up those who watch.
    let page = if is_data || path == METRICS_PATH {
        tokio::task::spawn_blocking(move || pages(&uri)).await.unwrap_or_else(|_| {
            Some((StatusCode::INTERNAL_SERVER_ERROR, "this broke down, see the log\n".into()))
        })
    } else {
        pages(&uri)
    };
    let (status, text) = page.unwrap_or_else(|| (StatusCode::NOT_FOUND, "no such page\n".into()));
    let kind = content_type(&path, (is_data && status == StatusCode::OK) || text.starts_with('{'));
    let mut response = response(status, text);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A response with a text.
pub(crate) fn response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::<Bytes>::from(text).boxed_unsync());
    *response.status_mut() = status;
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn content_type(path: &str, is_json: bool) -> HeaderValue {
    HeaderValue::from_static(match path {
        METRICS_PATH => "text/plain; version=0.0.4; charset=utf-8",
        _ if is_json => "application/json",
        _ => "text/plain; charset=utf-8",
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn groups_are_read_from_the_file_without_the_systems_modules() {
        let groups = "root:x:0:\nfairlead:x:998:alice,bob\nbroken\nodd:x:many:\n";
        for (name, expected) in [
            ("fairlead", Some(998)),
            ("root", Some(0)),
            ("odd", None),
            ("broken", None),
            ("no", None),
        ] {
            assert_eq!(group_id(groups, name), expected, "{name}");
        }
    }

    /// The thread that answers is the one that follows the cluster.
    #[tokio::test]
    async fn long_reports_are_made_on_threads_of_their_own() {
        let here = std::thread::current().id();
        let pages = Texts::new(move |_: &Uri| {
            let is_here = std::thread::current().id() == here;
            Some((StatusCode::OK, if is_here { "here" } else { "elsewhere" }.to_owned()))
        });
        let cancel = CancellationToken::new();
        let _ends = cancel.clone().drop_guard();
        let bound = serve("--listen", ([127, 0, 0, 1], 0).into(), pages, cancel).await.unwrap();
        for (path, made) in
            [("/healthz", "here"), ("/metrics", "elsewhere"), ("/v1/status", "elsewhere")]
        {
            let mut stream = TcpStream::connect(bound).await.unwrap();
            let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with(&format!("\r\n\r\n{made}")), "{path}: {answer}");
        }
    }
}
