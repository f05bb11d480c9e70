//! Requests and answers.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Collected, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::HeaderValue,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    Shared, State,
    objects::Call,
    storage::{Page, Selection},
};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What was asked so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Connections that were taken.
    pub(crate) connections: usize,
    /// First pages of lists.
    pub(crate) lists: usize,
    /// Further pages.
    pub(crate) pages: usize,
    /// Watches from a version.
    pub(crate) watches: usize,
    /// Watches that begin with a streaming list.
    pub(crate) streaming_lists: usize,
    /// How often each path was asked for.
    pub(crate) paths: BTreeMap<String, usize>,
}

struct Query(BTreeMap<String, String>);

/// A watch that is being answered.
struct Watch {
    shared: Arc<Shared>,
    selection: Selection,
    position: u64,
    bookmarks: u64,
    woken: watch::Receiver<u64>,
    lines: mpsc::Sender<String>,
}

pub(super) async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let query = Query::of(request.uri().query().unwrap_or_default());
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(Collected::to_bytes) else {
        return Ok(status(400, "BadRequest", "the body broke off"));
    };
    let mut state = shared.lock();
    *state.requests.paths.entry(path.clone()).or_default() += 1;
    let shown = head.headers.get("authorization").map(HeaderValue::as_bytes);
    if shown != Some(format!("Bearer {}", super::TOKEN).as_bytes()) {
        return Ok(status(401, "Unauthorized", "Unauthorized"));
    }
    let is_meant = |(method, begin, _): &&(Method, String, Value)| {
        *method == head.method && path.starts_with(begin.as_str())
    };
    if let Some((.., said)) = state.behaviour.refused.iter().find(is_meant) {
        return Ok(whole(StatusCode::FORBIDDEN, said));
    }
    if let Some(call) = Call::of(head.method.clone(), &path, &body) {
        if let Some(refused) = state.refusal(call.resource()) {
            return Ok(refused);
        }
        let answered = call.answer(&mut state);
        let unanswered = &mut state.behaviour.unanswered;
        let is_meant = |(method, begin): &(Method, String)| {
            *method == head.method && path.starts_with(begin.as_str())
        };
        let left = unanswered.iter().position(is_meant).map(|at| unanswered.swap_remove(at));
        drop(state);
        shared.wake.send_modify(|turn| *turn += 1);
        if left.is_some() {
            let never = stream::pending::<Result<Frame<Bytes>, Infallible>>();
            return Ok(Response::new(StreamBody::new(never).boxed()));
        }
        return Ok(match answered {
            Ok(object) => whole(StatusCode::OK, &object),
            Err((code, reason)) => status(code, reason, reason),
        });
    }
    let selection = selection(&path, &query);
    if let Some(refused) = state.refusal(&selection.resource) {
        return Ok(refused);
    }
    if query.is("watch", "true") {
        return Ok(begin_watch(&mut state, shared.clone(), selection, &query));
    }
    let token = query.get("continue");
    *(if token.is_some() { &mut state.requests.pages } else { &mut state.requests.lists }) += 1;
    let limit = query.get("limit").and_then(|limit| limit.parse().ok());
    Ok(match state.storage.page(&selection, limit, token) {
        Ok(page) => list(&selection, page),
        Err(_) => status(410, "Expired", "The provided continue parameter is too old"),
    })
}

impl State {
    fn refusal(&self, resource: &str) -> Option<Answer> {
        if let Some(code) = self.behaviour.status {
            return Some(status(code, "InternalError", "as the test asked for"));
        }
        if self.behaviour.absent.iter().any(|absent| absent == resource) {
            let message = "the server could not find the requested resource";
            return Some(status(404, "NotFound", message));
        }
        let forbidden = self.behaviour.forbidden.iter().any(|forbidden| forbidden == resource);
        let message = format!("User \"test\" cannot list resource \"{resource}\"");
        forbidden.then(|| status(403, "Forbidden", &message))
    }
}

fn begin_watch(
    state: &mut State,
    shared: Arc<Shared>,
    selection: Selection,
    query: &Query,
) -> Answer {
    let streaming = query.is("sendInitialEvents", "true");
    if streaming && !state.behaviour.streaming_lists {
        let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch \
                       unless the WatchList feature gate is enabled";
        return status(422, "Invalid", message);
    }
    *(if streaming { &mut state.requests.streaming_lists } else { &mut state.requests.watches }) +=
        1;
    let mut initial = Vec::new();
    let mut position = state.storage.version();
    if streaming {
        assert!(query.is("resourceVersionMatch", "NotOlderThan"), "the API demands it");
        assert!(query.is("allowWatchBookmarks", "true"), "the API demands it");
        let all = state.storage.all(&selection);
        initial.extend(all.into_iter().map(|object| event("ADDED", &object)));
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        initial.push(bookmark(&selection, position, &annotations));
    } else if let Some(version) = query.get("resourceVersion") {
        position = version.parse().unwrap_or(position);
    }
    let (lines, received) = mpsc::channel(16);
    let bookmarks = state.behaviour.bookmarks;
    let ended = state.watches.clone();
    let woken = match selection.single() {
        Some(id) => state.storage.follow(id),
        None => shared.wake.subscribe(),
    };
    let watch = Watch { shared, selection, position, bookmarks, woken, lines };
    tokio::spawn(async move {
        tokio::select! {
            _ = watch.run(initial) => {}
            () = ended.cancelled() => {}
        }
    });
    let lines = stream::unfold(received, async |mut received| {
        let line = received.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), received))
    });
    Response::new(BoxBody::new(StreamBody::new(lines)))
}

impl Watch {
    /// Sends what happens until the client or the test has enough.
    async fn run(mut self, initial: Vec<String>) -> Option<()> {
        for chunk in initial.chunks(500) {
            self.lines.send(chunk.concat()).await.ok()?;
        }
        loop {
            let (lines, gone) = self.news();
            if !lines.is_empty() {
                self.lines.send(lines).await.ok()?;
            }
            if gone {
                return None;
            }
            tokio::select! {
                woken = self.woken.changed() => woken.ok()?,
                () = self.lines.closed() => return None,
            }
        }
    }

    fn news(&mut self) -> (String, bool) {
        let state = self.shared.lock();
        let Ok(events) = state.storage.events(&self.selection, self.position) else {
            let expired = failure(410, "Expired", "too old resource version");
            return (event("ERROR", &expired), true);
        };
        self.position = state.storage.version();
        let mut lines: String = events.iter().map(|(kind, object)| event(kind, object)).collect();
        if self.bookmarks < state.behaviour.bookmarks {
            self.bookmarks = state.behaviour.bookmarks;
            lines.push_str(&bookmark(&self.selection, self.position, &json!({})));
        }
        (lines, false)
    }
}

impl Query {
    /// Only what clients send here: no `+`, and no bytes outside of ASCII.
    fn of(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (name.to_owned(), unescape(value))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }
}

fn unescape(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        plain.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        plain.push_str(rest);
    }
    plain
}

/// `/api/v1/services`, `/apis/GROUP/VERSION/namespaces/NAMESPACE/ingresses`.
fn selection(path: &str, query: &Query) -> Selection {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let parts = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
    let (namespace, resource) = match parts {
        ["namespaces", namespace, resource] => (Some((*namespace).to_owned()), *resource),
        [resource] => (None, *resource),
        _ => panic!("{path} is not served here"),
    };
    let field = |name: &str| {
        let (field, value) = query.get("fieldSelector")?.split_once('=')?;
        (field == name).then(|| value.to_owned())
    };
    Selection {
        resource: resource.to_owned(),
        namespace,
        name: field("metadata.name"),
        node_name: field("spec.nodeName"),
    }
}

/// Items of a real list carry neither kind nor apiVersion.
fn list(selection: &Selection, page: Page) -> Answer {
    let items = page.items.into_iter().map(|mut item| {
        item.as_object_mut().unwrap().retain(|field, _| field != "kind" && field != "apiVersion");
        item
    });
    let items: Vec<Value> = items.collect();
    let metadata = json!({"resourceVersion": page.version.to_string(), "continue": page.next});
    let (api_version, kind) = kind(selection);
    let kind = format!("{kind}List");
    let list =
        json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items});
    whole(StatusCode::OK, &list)
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn bookmark(selection: &Selection, version: u64, annotations: &Value) -> String {
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    let (api_version, kind) = kind(selection);
    let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
    event("BOOKMARK", &object)
}

/// What objects of a resource are, as client-go wants to be told in lists and bookmarks.
fn kind(selection: &Selection) -> (&'static str, &'static str) {
    match selection.resource.as_str() {
        "services" => ("v1", "Service"),
        "namespaces" => ("v1", "Namespace"),
        "nodes" => ("v1", "Node"),
        "pods" => ("v1", "Pod"),
        "secrets" => ("v1", "Secret"),
        "configmaps" => ("v1", "ConfigMap"),
        "endpointslices" => ("discovery.k8s.io/v1", "EndpointSlice"),
        "ingresses" => ("networking.k8s.io/v1", "Ingress"),
        "ingressclasses" => ("networking.k8s.io/v1", "IngressClass"),
        "servicecidrs" => ("networking.k8s.io/v1", "ServiceCIDR"),
        "serviceimports" => ("multicluster.x-k8s.io/v1alpha1", "ServiceImport"),
        other => panic!("{other} is not served here"),
    }
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    whole(StatusCode::from_u16(code).unwrap(), &failure(code, reason, message))
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

fn whole(code: StatusCode, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string()));
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.boxed())
        .unwrap()
}
