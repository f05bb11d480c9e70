//! The two requests that are made, list and watch, and what can go wrong with them.

use std::{error::Error as _, pin::Pin, sync::Arc, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt};
use kube::{
    Client,
    api::{ListParams, WatchParams},
    core::Request,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{dial::Unreachable, streams::Sharing};
use crate::model::{Kind, ObjectRef};

/// Longest wait for an answer to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a page of a list.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// A watch that says nothing for so long is taken up anew; servers send a bookmark every minute.
const SILENCE_MAX: Duration = Duration::from_secs(150);
/// The server ends a watch after this many seconds, so that watches spread over its replicas again.
const WATCH_SECONDS: std::ops::Range<u32> = 240..480;
/// Requests for single objects that wait for their answers to begin; more wait here. A start, and an
/// API server that comes back, meet thousands of them at once, and it may hold each for 100 ms until
/// its cache is known to be fresh.
const BEGINNING_MAX: usize = 128;
/// Longest event. etcd takes objects of up to 1.5 MiB; their JSON form is larger.
const EVENT_BYTES_MAX: usize = 32 << 20;

/// An API server.
pub(super) struct Api {
    client: Client,
    server: Arc<str>,
    beginning: Semaphore,
}

/// Which objects: a kind, or one object of it.
#[derive(Clone, Debug)]
pub(super) struct Query {
    kind: Kind,
    request: Request,
    field: Option<String>,
    /// It is about one object: there are many like it.
    is_single: bool,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum From<'a> {
    /// With every object there is, then an end mark, then changes (KEP-3157).
    Everything,
    /// With the changes after this resourceVersion.
    Version(&'a str),
}

/// The answer to a watch.
pub(super) struct Events {
    reader: Pin<Box<dyn AsyncBufRead + Send>>,
    partial: Vec<u8>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The version asked for is compacted: list again.
    #[error("the server no longer holds that version")]
    Gone,
    /// The server answered, with an error.
    #[error("it answered {code}: {message}")]
    Status { code: u16, message: String },
    /// No connection, or a broken one.
    #[error("{}", chain(.0))]
    Transport(#[source] Box<kube::Error>),
    /// An established watch broke off.
    #[error("the watch broke off: {0}")]
    BrokeOff(#[source] std::io::Error),
    /// Nothing came for too long.
    #[error("nothing came for {} s", .0.as_secs())]
    Silent(Duration),
    /// The answer is not what a Kubernetes API server sends.
    #[error("it sent no Kubernetes answer: {0}")]
    Garbled(String),
}

impl Api {
    pub(super) fn new(client: Client, server: Arc<str>) -> Self {
        Self { client, server, beginning: Semaphore::new(BEGINNING_MAX) }
    }

    pub(super) fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// A page of a list, from the start or after `token`.
    pub(super) async fn list(
        &self,
        query: &Query,
        limit: Option<u32>,
        token: Option<String>,
    ) -> Result<String, ApiError> {
        let field_selector = query.field.clone();
        let params =
            ListParams { field_selector, limit, continue_token: token, ..Default::default() };
        let mut request = query.request.list(&params).map_err(kube::Error::BuildRequest)?;
        let _turn = self.turn(query, &mut request).await;
        let page = timeout(PAGE_TIMEOUT, self.client.request_text(request));
        Ok(page.await.map_err(|_| ApiError::Silent(PAGE_TIMEOUT))??)
    }

    /// Begins a watch.
    pub(super) async fn watch(&self, query: &Query, from: From<'_>) -> Result<Events, ApiError> {
        let (send_initial_events, version) = match from {
            From::Everything => (true, ""),
            From::Version(version) => (false, version),
        };
        let params = WatchParams {
            field_selector: query.field.clone(),
            timeout: Some(rand::random_range(WATCH_SECONDS)),
            bookmarks: true,
            send_initial_events,
            ..Default::default()
        };
        let mut request =
            query.request.watch(&params, version).map_err(kube::Error::BuildRequest)?;
        let _turn = self.turn(query, &mut request).await;
        let answer = timeout(ANSWER_TIMEOUT, self.client.request_stream(request));
        let reader = answer.await.map_err(|_| ApiError::Silent(ANSWER_TIMEOUT))??;
        Ok(Events { reader: Box::pin(reader), partial: Vec::new() })
    }

    /// Until its answer begins a request holds a turn, if there are many like it; those share
    /// connections, too.
    async fn turn(
        &self,
        query: &Query,
        request: &mut http::Request<Vec<u8>>,
    ) -> Option<SemaphorePermit<'_>> {
        if !query.is_single {
            return None;
        }
        request.extensions_mut().insert(Sharing);
        // Nobody closes it.
        self.beginning.acquire().await.ok()
    }
}

impl Query {
    /// Every object of a kind in the cluster; of Pods only those of one node, if one is named.
    pub(super) fn whole_kind(kind: Kind, pods_of: Option<&str>) -> Self {
        let node = pods_of.filter(|_| kind == Kind::Pod);
        let field = node.map(|name| format!("spec.nodeName={name}"));
        let path = format!("{}/{}", root(kind), kind.resource());
        Self { kind, request: Request::new(path), field, is_single: false }
    }

    /// One object, as a list of one or none: a right to it is all that RBAC has to give.
    pub(super) fn one(object: &ObjectRef) -> Self {
        let (path, field) = list_of_one(object);
        Self { kind: object.kind, request: Request::new(path), field: Some(field), is_single: true }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }
}

impl Events {
    /// The next whole events, one a line; `None` when the server has ended the watch.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        loop {
            let chunk = timeout(SILENCE_MAX, self.reader.fill_buf()).await;
            let chunk = chunk.map_err(|_| ApiError::Silent(SILENCE_MAX))?;
            let chunk = chunk.map_err(ApiError::BrokeOff)?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let (read, held) = (chunk.len(), self.partial.len());
            let end = chunk.iter().rposition(|byte| *byte == b'\n');
            self.partial.extend_from_slice(chunk);
            self.reader.as_mut().consume(read);
            if let Some(end) = end {
                let rest = self.partial.split_off(held + end + 1);
                return Ok(Some(std::mem::replace(&mut self.partial, rest)));
            }
            if self.partial.len() > EVENT_BYTES_MAX {
                return Err(ApiError::Garbled(format!("an event of over {EVENT_BYTES_MAX} bytes")));
            }
        }
    }
}

impl ApiError {
    /// From a `Status`, which comes as an answer or as an event.
    pub(super) fn status(code: u16, message: String) -> Self {
        match code {
            410 => ApiError::Gone,
            _ => ApiError::Status { code, message },
        }
    }

    /// The server, not this request, is at fault or out of reach.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            ApiError::Transport(_) | ApiError::Silent(_) | ApiError::BrokeOff(_) => true,
            ApiError::Status { code, .. } => *code >= 500 || *code == 429,
            ApiError::Gone | ApiError::Garbled(_) => false,
        }
    }

    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, ApiError::Status { code: 403, .. })
    }

    /// The server has no such kind.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, ApiError::Status { code: 404, .. })
    }

    /// A server without streaming lists says 400 or 422 to a request for one.
    pub(super) fn is_invalid(&self) -> bool {
        matches!(self, ApiError::Status { code: 400 | 422, .. })
    }

    /// What a person can do about it, in a pod or elsewhere.
    pub(super) fn cure(&self, kind: Kind, is_in_cluster: bool) -> String {
        match self {
            ApiError::Status { code: 401, .. } => {
                "its credentials (kubeconfig or service account) are not accepted".to_owned()
            }
            ApiError::Status { code: 403, .. } => {
                format!("grant this account list and watch on {} (RBAC)", kind.resource())
            }
            ApiError::Garbled(_) => "check that the address is an API server's".to_owned(),
            _ if is_in_cluster => "check that it runs; if Services do not work on this node yet, \
                 name an address that works without them: --api-server HOST:PORT (in the chart: \
                 apiServer.host)"
                .to_owned(),
            _ => "check that it runs and that the address is right (--kubeconfig)".to_owned(),
        }
    }
}

impl std::convert::From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let message =
                    if status.message.is_empty() { status.reason } else { status.message };
                ApiError::status(status.code, message)
            }
            other => ApiError::Transport(Box::new(other)),
        }
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("server", &self.server).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("partial_bytes", &self.partial.len()).finish()
    }
}

/// The innermost causes in one line; kube's own text names each of them several times.
pub(super) fn chain(error: &kube::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(unreachable) = cause.downcast_ref::<Unreachable>() {
            return unreachable.to_string();
        }
        causes.push(cause.to_string());
        next = cause.source();
    }
    match causes.split_last() {
        None => error.to_string(),
        Some((last, earlier)) => {
            let context = earlier.last().filter(|text| !text.contains(last.as_str()));
            context.map_or(last.clone(), |context| format!("{context}: {last}"))
        }
    }
}

/// The path and the field selector of the list that has this object alone.
pub(crate) fn list_of_one(object: &ObjectRef) -> (String, String) {
    let (kind, namespace) = (object.kind, &object.key.namespace);
    let path = match kind.is_namespaced() {
        true => format!("{}/namespaces/{namespace}/{}", root(kind), kind.resource()),
        false => format!("{}/{}", root(kind), kind.resource()),
    };
    (path, format!("metadata.name={}", object.key.name))
}

fn root(kind: Kind) -> String {
    match kind.api_version() {
        "v1" => "/api/v1".to_owned(),
        group => format!("/apis/{group}"),
    }
}
