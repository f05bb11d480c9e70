//! One request as a span: names are OpenTelemetry's semantic conventions for HTTP servers, and
//! what ingress-nginx adds.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use fairlead_state::Name;
use http::{HeaderValue, Method, header::USER_AGENT, request::Parts};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::Context;

/// Of a path, a query and an agent's name.
const TEXT_BYTES_MAX: usize = 1_024;

/// What is told of a request, as far as its head knows.
#[derive(Debug)]
pub(crate) struct Span {
    context: Context,
    name: String,
    method: Method,
    path: String,
    query: Option<String>,
    host: String,
    scheme: &'static str,
    client: IpAddr,
    agent: Option<HeaderValue>,
}

/// The rest.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) span: Box<Span>,
    pub(crate) end: SystemTime,
    pub(crate) took: Duration,
    pub(crate) status: u16,
    /// Who answered.
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) place: Option<Place>,
}

/// The rule that decided.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) namespace: Name,
    pub(crate) ingress: Name,
    pub(crate) path: Name,
    pub(crate) service: Name,
}

impl Span {
    pub(crate) fn new(
        context: Context,
        name: &str,
        head: &Parts,
        host: &str,
        scheme: &'static str,
        client: IpAddr,
    ) -> Box<Self> {
        Box::new(Self {
            context,
            name: cut(name),
            method: head.method.clone(),
            path: cut(head.uri.path()),
            query: head.uri.query().map(cut),
            host: host.to_owned(),
            scheme,
            client,
            agent: head.headers.get(USER_AGENT).cloned(),
        })
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

impl Finished {
    /// As it is sent.
    pub(super) fn data(self, scope: &InstrumentationScope) -> SpanData {
        let attributes = self.attributes();
        let Self { span, end, took, status, .. } = self;
        let Context { trace_id, span_id, parent_id, .. } = span.context;
        let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
        let flags = TraceFlags::SAMPLED;
        SpanData {
            span_context: SpanContext::new(trace_id, span_id, flags, false, TraceState::default()),
            parent_span_id: parent_id.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: parent_id.is_some(),
            span_kind: SpanKind::Server,
            name: span.name.into(),
            start_time: end.checked_sub(took).unwrap_or(end),
            end_time: end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if status >= 500 { Status::error("") } else { Status::Unset },
            instrumentation_scope: scope.clone(),
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let span = &self.span;
        let mut all = vec![
            KeyValue::new("http.request.method", span.method.to_string()),
            KeyValue::new("url.scheme", span.scheme),
            KeyValue::new("url.path", span.path.clone()),
            KeyValue::new("server.address", span.host.clone()),
            KeyValue::new("client.address", span.client.to_string()),
            KeyValue::new("http.response.status_code", i64::from(self.status)),
        ];
        if let Some(query) = &span.query {
            all.push(KeyValue::new("url.query", query.clone()));
        }
        if let Some(agent) = &span.agent {
            all.push(KeyValue::new("user_agent.original", text(agent)));
        }
        if self.status >= 500 {
            all.push(KeyValue::new("error.type", self.status.to_string()));
        }
        if let Some(endpoint) = self.endpoint {
            all.push(KeyValue::new("ingress.upstream", endpoint.to_string()));
        }
        if let Some(Place { namespace, ingress, path, service }) = &self.place {
            all.push(KeyValue::new("http.route", path.to_string()));
            all.push(KeyValue::new("ingress.namespace", namespace.to_string()));
            all.push(KeyValue::new("ingress.name", ingress.to_string()));
            all.push(KeyValue::new("ingress.service_name", service.to_string()));
        }
        all
    }
}

/// Strings of OTLP are UTF-8.
fn text(value: &HeaderValue) -> String {
    cut(&String::from_utf8_lossy(value.as_bytes()))
}
