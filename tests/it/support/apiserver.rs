//! A small Kubernetes API server: list and watch, as much as a list-and-watch client can tell, and
//! reading and writing single objects.
//!
//! Paged and streaming lists, resourceVersions, bookmarks, field selectors on `metadata.name` and
//! `spec.nodeName`, 410 Gone, and every way of not answering. Objects are JSON, taken as they are:
//! it checks nothing, so that tests can store what a real one never would.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod authority;
mod http;
mod objects;
mod storage;
mod tls;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::Method;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::http::Requests;
use self::{storage::Storage, tls::Tls};

/// Longest wait for a client to write something.
const PATIENCE: Duration = Duration::from_secs(30);
/// Streams of an HTTP/2 connection, as a real one gives them.
const STREAMS_MAX: u32 = 100;
/// What a client has to show.
const TOKEN: &str = "test-token";

/// A running server. It stops when it is dropped.
pub(crate) struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    connections: Arc<Mutex<CancellationToken>>,
    listening: Mutex<Listening>,
    kubeconfig: TempDir,
    tls: Option<Tls>,
}

enum Listening {
    Yes(JoinHandle<()>),
    /// The port stays ours; connections to it are refused.
    No(TcpSocket),
}

/// What connections share.
struct Shared {
    state: Mutex<State>,
    /// Counts up whenever watches should look again, but for those of one object.
    wake: watch::Sender<u64>,
}

struct State {
    storage: Storage,
    requests: Requests,
    behaviour: Behaviour,
    watches: CancellationToken,
    leaving: CancellationToken,
}

/// How requests are answered.
#[derive(Clone, Debug)]
struct Behaviour {
    streaming_lists: bool,
    /// Answers everything with this status.
    status: Option<u16>,
    /// Resources (`secrets`) this account may not read.
    forbidden: Vec<String>,
    absent: Vec<String>,
    /// Requests that are refused, by method and how their paths begin, and the `Status` they get.
    refused: Vec<(Method, String, Value)>,
    /// Requests of which the next is done and never answered, by method and how their paths begin.
    unanswered: Vec<(Method, String)>,
    /// How many bookmarks each watch is owed.
    bookmarks: u64,
    /// Streams of each HTTP/2 connection that is taken from now on.
    streams_max: u32,
}

impl ApiServer {
    /// Starts a server without objects.
    pub(crate) async fn start() -> Self {
        Self::start_as(None)
    }

    /// Starts a server that speaks HTTPS, HTTP/2 too, with a certificate authority of its own.
    pub(crate) async fn start_with_tls() -> Self {
        Self::start_as(Some(Tls::new()))
    }

    fn start_as(tls: Option<Tls>) -> Self {
        let server = Self::bound(tls);
        server.resume();
        server
    }

    /// Takes a port at which nothing answers until [`ApiServer::resume`]. Needs a tokio runtime.
    pub(crate) fn start_unreachable() -> Self {
        Self::bound(None)
    }

    /// A further server of the same cluster: same objects, same certificate, an address of its own.
    /// Nothing answers there until [`ApiServer::resume`].
    pub(crate) fn peer(&self, ip: &str) -> Self {
        Self::bound_at(ip, self.shared.clone(), self.tls.clone())
    }

    fn bound(tls: Option<Tls>) -> Self {
        let state = State {
            storage: Storage::default(),
            requests: Requests::default(),
            behaviour: Behaviour {
                streaming_lists: true,
                status: None,
                forbidden: Vec::new(),
                absent: Vec::new(),
                refused: Vec::new(),
                unanswered: Vec::new(),
                bookmarks: 0,
                streams_max: STREAMS_MAX,
            },
            watches: CancellationToken::new(),
            leaving: CancellationToken::new(),
        };
        let shared = Shared { state: Mutex::new(state), wake: watch::Sender::new(0) };
        Self::bound_at("127.0.0.1", Arc::new(shared), tls)
    }

    fn bound_at(ip: &str, shared: Arc<Shared>, tls: Option<Tls>) -> Self {
        let socket = bind(SocketAddr::new(ip.parse().unwrap(), 0));
        let address = socket.local_addr().unwrap();
        let kubeconfig = TempDir::new().unwrap();
        let text = kubeconfig_text(address, tls.as_ref());
        std::fs::write(kubeconfig.path().join("config"), text).unwrap();
        let listening = Mutex::new(Listening::No(socket));
        Self { address, shared, connections: Arc::default(), listening, kubeconfig, tls }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", scheme(self.tls.as_ref()), self.address)
    }

    /// A kubeconfig file that leads here.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.path().join("config")
    }

    /// Stores an object, by its `kind`, namespace and name; returns its resourceVersion.
    pub(crate) fn put(&self, object: Value) -> u64 {
        self.put_all([object])
    }

    /// Stores many; watches see them together.
    pub(crate) fn put_all(&self, objects: impl IntoIterator<Item = Value>) -> u64 {
        self.change(|state| {
            objects.into_iter().map(|object| state.storage.put(object)).last().unwrap_or_default()
        })
    }

    /// An object as it is now; resource as in paths (`ingresses`).
    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.lock().storage.get(resource, namespace, name)
    }

    /// All objects of a resource, as soon as they are as wanted.
    pub(crate) async fn await_all(
        &self,
        resource: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let mut woken = self.shared.wake.subscribe();
        let mut seen = Vec::new();
        let awaited = async {
            loop {
                seen = self.shared.lock().storage.all(&storage::Selection::of(resource));
                if wanted(&seen) {
                    return;
                }
                woken.changed().await.unwrap();
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, awaited).await.is_ok();
        assert!(in_time, "{resource} do not become what is wanted: {}", json!(seen));
        seen
    }

    /// Removes an object that is there. Cluster-scoped ones have an empty namespace.
    pub(crate) fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.change(|state| state.storage.delete(kind, namespace, name));
    }

    /// Forgets what happened so far: who has not seen it gets 410 Gone.
    pub(crate) fn compact(&self) {
        self.change(|state| state.storage.compact());
    }

    /// Sends every watch a bookmark.
    pub(crate) fn bookmark(&self) {
        self.change(|state| {
            state.behaviour.bookmarks += 1;
            state.storage.call_followers();
        });
    }

    /// Breaks every connection off.
    pub(crate) fn disconnect_all(&self) {
        std::mem::take(&mut *self.connections.lock().unwrap()).cancel();
    }

    /// Ends every watch the way a server does after `timeoutSeconds`.
    pub(crate) fn end_watches(&self) {
        let mut state = self.shared.lock();
        std::mem::take(&mut state.watches).cancel();
    }

    /// Takes no more requests on the connections there are, and answers those it has: as a server
    /// does before it stops, and now and then (`--goaway-chance`).
    pub(crate) fn go_away(&self) {
        let mut state = self.shared.lock();
        std::mem::take(&mut state.leaving).cancel();
    }

    /// Breaks every connection off and refuses new ones.
    pub(crate) fn pause(&self) {
        let mut listening = self.listening.lock().unwrap();
        if let Listening::Yes(task) = &*listening {
            task.abort();
            // The aborted task drops its listener at its next turn; both may hold the port.
            *listening = Listening::No(bind(self.address));
        }
        drop(listening);
        self.disconnect_all();
    }

    /// Takes connections (again).
    pub(crate) fn resume(&self) {
        let mut listening = self.listening.lock().unwrap();
        let socket = match &mut *listening {
            Listening::No(socket) => std::mem::replace(socket, TcpSocket::new_v4().unwrap()),
            Listening::Yes(_) => return,
        };
        let listener = socket.listen(1024).unwrap();
        let accepting =
            accept(listener, self.shared.clone(), self.connections.clone(), self.tls.clone());
        *listening = Listening::Yes(tokio::spawn(accepting));
    }

    /// Answers as a server from before streaming lists (1.26 and older).
    pub(crate) fn without_streaming_lists(&self) {
        self.change(|state| state.behaviour.streaming_lists = false);
    }

    /// Gives fewer streams, or more, as `--http2-max-streams-per-connection` does.
    pub(crate) fn give_streams(&self, streams_max: u32) {
        self.change(|state| state.behaviour.streams_max = streams_max);
    }

    /// Answers every request with this status; `None` ends that.
    pub(crate) fn answer_with(&self, status: Option<u16>) {
        self.change(|state| state.behaviour.status = status);
    }

    /// The account may not read these resources (`secrets`).
    pub(crate) fn forbid(&self, resources: &[&str]) {
        let resources = resources.iter().map(ToString::to_string).collect();
        self.change(|state| state.behaviour.forbidden = resources);
    }

    /// Answers requests of this method whose paths begin like that with a 403 in these words, as
    /// authorizers and admission do.
    pub(crate) fn refuse(&self, method: Method, path: &str, message: &str, cause: Option<&str>) {
        let causes: Vec<Value> = cause.into_iter().map(|cause| json!({"reason": cause})).collect();
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
            "reason": "Forbidden", "message": message, "details": {"causes": causes},
        });
        self.change(|state| state.behaviour.refused.push((method, path.to_owned(), status)));
    }

    /// The next request of this method at this path is done, and its client never hears the whole of it.
    pub(crate) fn leave_unanswered(&self, method: Method, path: &str) {
        self.change(|state| state.behaviour.unanswered.push((method, path.to_owned())));
    }

    /// The server is too old for these resources.
    pub(crate) fn without(&self, resources: &[&str]) {
        let resources = resources.iter().map(ToString::to_string).collect();
        self.change(|state| state.behaviour.absent = resources);
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Requests {
        self.shared.lock().requests.clone()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.lock());
        self.shared.wake.send_modify(|turn| *turn += 1);
        result
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.connections.lock().unwrap().cancel();
        if let Listening::Yes(task) = &*self.listening.lock().unwrap() {
            task.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<Mutex<CancellationToken>>,
    tls: Option<Tls>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        shared.lock().requests.connections += 1;
        let (shared, tls) = (shared.clone(), tls.clone());
        let broken_off = connections.lock().unwrap().clone();
        tokio::spawn(async move {
            let served = async {
                match tls {
                    None => serve(stream, shared).await,
                    Some(tls) => serve(tls.accept(stream).await?, shared).await,
                }
                std::io::Result::Ok(())
            };
            tokio::select! {
                _ = served => {}
                () = broken_off.cancelled() => {}
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, shared: Arc<Shared>) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(shared.lock().behaviour.streams_max);
    let leaving = shared.lock().leaving.clone();
    let answer = hyper::service::service_fn(move |request| http::answer(request, shared.clone()));
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = leaving.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // A client that breaks off is what some tests are about.
    let _ = connection.await;
}

fn scheme(tls: Option<&Tls>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}

fn kubeconfig_text(address: SocketAddr, tls: Option<&Tls>) -> String {
    let authority = tls.map(|tls| {
        let authority = STANDARD.encode(tls.authority());
        format!(", certificate-authority-data: {authority}")
    });
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: '{}://{address}'{}}}}}]\n\
         users: [{{name: test, user: {{token: {TOKEN}}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
        scheme(tls),
        authority.unwrap_or_default()
    )
}
