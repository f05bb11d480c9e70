//! Small servers to stand behind the role; each counts what reached it.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const FIELDS_MAX: usize = 200;

/// Ends with the test.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
pub(crate) struct Counts {
    leaving: CancellationToken,
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Counts {
    pub(crate) fn request(&self) -> usize {
        self.requests.fetch_add(1, SeqCst) + 1
    }
}

impl Upstream {
    /// Answers with its name, the request's head and body, line by line.
    pub(crate) async fn echo(name: &'static str) -> Self {
        Self::serve(move |request| echoed(name, request)).await
    }

    /// The same by HTTP/2.
    pub(crate) async fn echo2(name: &'static str) -> Self {
        Self::serve2(move |request| echoed(name, request)).await
    }

    /// Answers with nothing: 200 to those it knows by their fields, and `otherwise` to the others.
    pub(crate) async fn knowing(is_known: fn(&HeaderMap) -> bool, otherwise: StatusCode) -> Self {
        Self::serve(move |request| async move {
            let mut response = Response::new(Full::<Bytes>::default());
            if !is_known(request.headers()) {
                *response.status_mut() = otherwise;
            }
            response
        })
        .await
    }

    pub(crate) async fn serve<F, R, B>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<B>> + Send + 'static,
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::raw(move |stream, counts| {
            let (answer, leaving) = (answer.clone(), counts.leaving.clone());
            async move {
                let service = service_fn(move |request| {
                    counts.request();
                    let answer = answer(request);
                    async move { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let io = TokioIo::new(stream);
                // More than the role lets through, so that its own limit is what is seen.
                let mut server = http1::Builder::new();
                server.max_headers(FIELDS_MAX).max_buf_size(1 << 20);
                let mut serving = std::pin::pin!(server.serve_connection(io, service));
                tokio::select! {
                    _ = &mut serving => {}
                    () = leaving.cancelled() => {
                        serving.as_mut().graceful_shutdown();
                        let _ = serving.await;
                    }
                }
            }
        })
        .await
    }

    /// HTTP/2 without TLS, as gRPC servers speak it.
    pub(crate) async fn serve2<F, R, B>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<B>> + Send + 'static,
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::raw(move |stream, counts| {
            let (answer, leaving) = (answer.clone(), counts.leaving.clone());
            async move {
                let service = service_fn(move |request| {
                    counts.request();
                    let answer = answer(request);
                    async move { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let server = http2::Builder::new(TokioExecutor::new());
                let serving = server.serve_connection(TokioIo::new(stream), service);
                let mut serving = std::pin::pin!(serving);
                tokio::select! {
                    _ = &mut serving => {}
                    () = leaving.cancelled() => {
                        serving.as_mut().graceful_shutdown();
                        let _ = serving.await;
                    }
                }
            }
        })
        .await
    }

    /// Hands each connection to `answer`, which counts requests itself.
    pub(crate) async fn raw<F, R>(answer: F) -> Self
    where
        F: Fn(TcpStream, Arc<Counts>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let host = u8::try_from(2 + NEXT.fetch_add(1, SeqCst) % 200).unwrap();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, host], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let seen = counts.clone();
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            let leaving = seen.leaving.clone();
            while let Some(Ok((stream, _))) = leaving.run_until_cancelled(listener.accept()).await {
                seen.connections.fetch_add(1, SeqCst);
                serving.spawn(answer(stream, seen.clone()));
            }
            drop(listener);
            serving.join_all().await;
        });
        Self { address, counts, task }
    }

    /// What servers do at SIGTERM: nothing new is accepted, idle connections are closed.
    pub(crate) async fn leave(mut self) {
        self.counts.leaving.cancel();
        let _ = (&mut self.task).await;
    }

    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echoed(name: &'static str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await;
    let trailers = body.as_ref().ok().and_then(|body| body.trailers().cloned());
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut text = format!("{name}\n{} {}\n", head.method, head.uri);
    for (field, value) in &head.headers {
        text.push_str(&format!("{field}: {}\n", value.to_str().unwrap_or("?")));
    }
    for (field, value) in trailers.iter().flatten() {
        text.push_str(&format!("trailer {field:?}: {}\n", value.to_str().unwrap_or("?")));
    }
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&body));
    Response::new(Full::new(Bytes::from(text)))
}

/// A port nobody listens on.
pub(crate) async fn dead() -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    listener.local_addr().unwrap()
}
