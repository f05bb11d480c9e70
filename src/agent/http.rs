//! The small HTTP servers beside the data plane: health and metrics. GET only, no state of their
//! own.

pub(super) mod connections;
pub(super) mod listen;
mod reports;

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
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{self, HeaderValue},
};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use self::{
    connections::{Accept, accept},
    listen::listen,
};
use super::holder::{self, Transport};

pub(crate) use reports::Reports;

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
pub(crate) struct Texts<P> {
    pages: Arc<P>,
    reports: Reports,
}

impl<P> Clone for Texts<P> {
    fn clone(&self) -> Self {
        Self { pages: self.pages.clone(), reports: self.reports.clone() }
    }
}

impl<P: Fn(&Uri) -> Option<Page> + Send + Sync + 'static> Texts<P> {
    pub(crate) fn new(pages: P) -> Self {
        Self { pages: Arc::new(pages), reports: Reports::default() }
    }
}

impl<P: Fn(&Uri) -> Option<Page> + Send + Sync + 'static> Site for Texts<P> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return response(StatusCode::METHOD_NOT_ALLOWED, "read-only\n".into());
        }
        let uri = request.uri().clone();
        let path = uri.path().to_owned();
        let is_data = uri.path().starts_with(DATA_PREFIX);
        let page = if is_data || path == METRICS_PATH {
            let pages = self.pages.clone();
            self.reports.make(move || pages(&uri)).await.unwrap_or_else(|| {
                Some((StatusCode::INTERNAL_SERVER_ERROR, "this broke down, see the log\n".into()))
            })
        } else {
            (self.pages)(&uri)
        };
        let (status, text) =
            page.unwrap_or_else(|| (StatusCode::NOT_FOUND, "no such page\n".into()));
        let is_json = (is_data && status == StatusCode::OK) || text.starts_with('{');
        let mut response = response(status, text);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type(&path, is_json));
        response
    }
}

/// Binds now, so that a taken port is known at start, and serves until `cancel`.
pub(crate) async fn serve(
    what: &'static str,
    address: SocketAddr,
    site: impl Site,
    cancel: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let listener = listen(address).map_err(|error| {
        let taken = error.kind() == io::ErrorKind::AddrInUse;
        let cure = if taken { "another process has it: stop it or " } else { "" };
        let error = anyhow::anyhow!(
            "{what}: cannot listen on {address} ({error}): {cure}choose another address"
        );
        let holder = taken.then(|| holder::of(address, Transport::Tcp)).flatten();
        holder::named(error, holder.as_deref())
    })?;
    let bound = listener.local_addr()?;
    answer_at(listener, site, cancel);
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
    answer_at(listener, site, cancel);
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

/// Until `cancel`.
fn answer_at(listener: impl Accept, site: impl Site, cancel: CancellationToken) {
    let answering = async move { accept(&listener, |_| Some(site.clone())).await };
    tokio::spawn(cancel.run_until_cancelled_owned(answering));
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

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
