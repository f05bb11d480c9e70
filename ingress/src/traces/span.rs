//! One request as a span: names are OpenTelemetry's semantic conventions for HTTP servers, and
//! what ingress-nginx adds.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use fairlead_state::Name;
use http::{HeaderValue, header::USER_AGENT, request::Parts};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::Context;
use crate::series::method_name;

/// Of a path, a query and an agent's name.
const TEXT_BYTES_MAX: usize = 1_024;
/// OpenTelemetry: methods nobody registered, so that their number is bounded.
const OTHER_METHOD: &str = "_OTHER";
/// Arguments that let in whoever knows them (OpenTelemetry: url.query; and those AWS signs with now).
const SECRET_ARGUMENTS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
    "sig",
];

/// What is told of a request, as far as its head knows. Texts are its own: a part of the head would
/// keep the whole of it for as long as the span waits.
#[derive(Debug)]
pub(crate) struct Span {
    context: Context,
    name: String,
    method: &'static str,
    path: String,
    query: Option<String>,
    host: String,
    scheme: &'static str,
    client: IpAddr,
    agent: Option<String>,
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
            method: method_name(&head.method).unwrap_or(OTHER_METHOD),
            path: cut(head.uri.path()),
            query: head.uri.query().map(scrubbed),
            host: host.to_owned(),
            scheme,
            client,
            agent: head.headers.get(USER_AGENT).map(text),
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
            KeyValue::new("http.request.method", span.method),
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
            all.push(KeyValue::new("user_agent.original", agent.clone()));
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

/// Without what is a secret by its name.
fn scrubbed(query: &str) -> String {
    let query = cut(query);
    let arguments = query.split('&').map(|argument| match argument.split_once('=') {
        Some((name, _)) if SECRET_ARGUMENTS.contains(&name) => format!("{name}=REDACTED"),
        _ => argument.to_owned(),
    });
    arguments.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Request};

    use super::{super::Sampling, *};

    fn span(method: &str, target: &str, agent: &str) -> Box<Span> {
        let request = Request::builder().method(method).uri(target).header(USER_AGENT, agent);
        let (head, ()) = request.body(()).unwrap().into_parts();
        let context = Context::begin(&HeaderMap::new(), true, Sampling::default());
        Span::new(context, "name", &head, "a.example", "http", [192, 0, 2, 1].into())
    }

    #[test]
    fn secrets_of_a_query_are_not_told() {
        for (query, told) in [
            ("a=b&c", "a=b&c"),
            ("a=b&sig=s3cret&c=d", "a=b&sig=REDACTED&c=d"),
            ("X-Amz-Signature=s3cret&X-Amz-Date=1", "X-Amz-Signature=REDACTED&X-Amz-Date=1"),
            ("signature=kept", "signature=kept"),
            ("sig", "sig"),
        ] {
            let span = span("GET", &format!("/?{query}"), "x");
            assert_eq!(span.query.as_deref(), Some(told));
        }
    }

    #[test]
    fn attack_cardinality_methods_nobody_registered_are_one_and_texts_are_cut() {
        for (method, told) in [("GET", "GET"), ("PATCH", "PATCH"), ("BREW", "_OTHER")] {
            assert_eq!(span(method, "/", "x").method, told);
        }
        let long = "x".repeat(2 * TEXT_BYTES_MAX);
        let span = span("GET", &format!("/{long}?{long}"), &long);
        let lengths = [Some(&span.path), span.query.as_ref(), span.agent.as_ref()];
        assert_eq!(lengths.map(|text| text.map(String::len)), [Some(TEXT_BYTES_MAX); 3]);
    }
}
