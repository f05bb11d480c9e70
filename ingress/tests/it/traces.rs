//! Traces, as a collector is told them.

use std::sync::Arc;

use fairlead_ingress::IngressConfig;
use fairlead_state::{Key, Object};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use tokio::sync::mpsc;

use crate::{
    annotations::site,
    support::{
        PATIENCE, World,
        client::{Answer, connect, request, send},
        objects::{IngressExt, backend, class, config_map},
        upstream::{Upstream, dead},
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector that speaks OTLP over gRPC, and what it is told.
struct Collector {
    server: Upstream,
    told: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
}

impl Collector {
    async fn new() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let server = Upstream::serve2(move |request| {
            let tell = tell.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                // A message of gRPC: not compressed, its length, the message.
                let _ = tell.send(ExportTraceServiceRequest::decode(&body[5..]).unwrap());
                let nothing = Full::new(Bytes::from_static(&[0; 5]));
                let mut response = Response::new(nothing.with_trailers(async {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    Some(Ok(trailers))
                }));
                let kind = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert("content-type", kind);
                response
            }
        });
        Self { server: server.await, told }
    }

    fn options(&self) -> Vec<(String, String)> {
        options(self.server.address)
    }

    /// The next one, and the name of the service it is of.
    async fn span(&mut self) -> (Span, String) {
        let told = tokio::time::timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap();
        let of = &told.resource_spans[0];
        let service = text(&of.resource.as_ref().unwrap().attributes, "service.name");
        (of.scope_spans[0].spans[0].clone(), service.unwrap())
    }
}

fn options(collector: std::net::SocketAddr) -> Vec<(String, String)> {
    [
        ("otlp-collector-host", collector.ip().to_string()),
        ("otlp-collector-port", collector.port().to_string()),
        ("otel-schedule-delay-millis", "1".to_owned()),
        ("otel-service-name", "edge".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A role with these options and this Ingress, before an endpoint that echoes.
async fn world(
    options: &[(String, String)],
    annotations: &[(&str, &str)],
) -> (World, Arc<Upstream>) {
    let upstream = Arc::new(Upstream::echo("web").await);
    let mut objects: Vec<Object> = backend("web", &[upstream.address]);
    objects.push(site("a", annotations).object());
    objects.push(class("fairlead", "fairlead.io/ingress"));
    let data: Vec<(&str, &str)> = options.iter().map(|(n, v)| (&**n, &**v)).collect();
    objects.push(config_map("nginx", &data));
    let map = Some(Key::new("default", "nginx"));
    let config = IngressConfig { config_map: map, ..crate::support::config() };
    (World::with(config, objects).await, upstream)
}

async fn ask(world: &World, traceparent: Option<&str>) -> Answer {
    let mut request = request("a.example", "/shop?q=1");
    if let Some(value) = traceparent {
        request.headers_mut().insert("traceparent", value.parse().unwrap());
        request.headers_mut().insert("tracestate", HeaderValue::from_static("a=b"));
    }
    send(&mut connect(world.http()).await, request).await
}

#[tokio::test]
async fn a_request_is_a_span_with_its_caller_as_parent() {
    let mut collector = Collector::new().await;
    let on = ("enable-opentelemetry", "true");
    let name = ("opentelemetry-operation-name", "HTTP $request_method");
    let distrusting = ("opentelemetry-trust-incoming-span", "false");
    let caller = format!("00-{TRACE}-{CALLER}-01");
    for (annotations, sent, named, is_child) in [
        (&[on][..], Some(&*caller), "GET /", true),
        (&[on, name], Some(&*caller), "HTTP GET", true),
        (&[on, distrusting], Some(&*caller), "GET /", false),
        (&[on], None, "GET /", false),
    ] {
        let (world, upstream) = world(&collector.options(), annotations).await;
        let answer = ask(&world, sent).await;
        assert_eq!(answer.status, 200);
        let (span, service) = collector.span().await;
        assert_eq!((&*span.name, &*service), (named, "edge"));
        assert_eq!(hex(&span.trace_id) == TRACE, is_child, "{annotations:?}");
        let parent = if is_child { CALLER } else { "" };
        assert_eq!(hex(&span.parent_span_id), parent, "{annotations:?}");
        // The endpoint is called by the span, and by nobody else.
        let told = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
        assert_eq!(answer.saw("traceparent"), Some(&*told), "{annotations:?}");
        assert_eq!(answer.saw("tracestate"), is_child.then_some("a=b"), "{annotations:?}");
        let endpoint = upstream.address.to_string();
        for (name, value) in [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("http.route", "/"),
            ("url.path", "/shop"),
            ("url.query", "q=1"),
            ("server.address", "a.example"),
            ("client.address", "127.0.0.1"),
            ("ingress.namespace", "default"),
            ("ingress.name", "a"),
            ("ingress.service_name", "web"),
            ("ingress.upstream", &endpoint),
        ] {
            assert_eq!(text(&span.attributes, name).as_deref(), Some(value), "{name}");
        }
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        world.eventually(|counters| counters.trace_spans == 1).await;
        assert_eq!(world.running.counters().trace_dropped, 0);
    }
}

#[tokio::test]
async fn what_a_rule_answers_itself_is_a_span_without_an_endpoint() {
    let mut collector = Collector::new().await;
    let annotations =
        [("enable-opentelemetry", "true"), ("permanent-redirect", "https://b.example/")];
    let (world, upstream) = world(&collector.options(), &annotations).await;
    assert_eq!(ask(&world, None).await.status, 301);
    let (span, _) = collector.span().await;
    for (name, value) in [
        ("http.response.status_code", Some("301")),
        ("http.route", Some("/")),
        ("ingress.upstream", None),
    ] {
        assert_eq!(text(&span.attributes, name).as_deref(), value, "{name}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn what_is_not_sampled_is_no_span_and_endpoints_are_told_so() {
    let mut collector = Collector::new().await;
    let mut options = collector.options();
    options.push(("otel-sampler".to_owned(), "AlwaysOff".to_owned()));
    let (world, _upstream) = world(&options, &[("enable-opentelemetry", "true")]).await;
    let unsampled = format!("00-{TRACE}-{CALLER}-00");
    let answer = ask(&world, Some(&unsampled)).await;
    assert_eq!(answer.saw("traceparent"), Some(&*unsampled), "the caller stays the parent");
    let answer = ask(&world, None).await;
    assert!(answer.saw("traceparent").unwrap().ends_with("-00"), "{answer:?}");
    // Whoever asks and is sampled decides.
    ask(&world, Some(&format!("00-{TRACE}-{CALLER}-01"))).await;
    assert_eq!(hex(&collector.span().await.0.trace_id), TRACE);
    assert_eq!(world.running.counters().trace_spans, 1);
}

#[tokio::test]
async fn traces_that_are_off_leave_a_request_as_it_is() {
    let collector = Collector::new().await;
    let caller = format!("00-{TRACE}-{CALLER}-01");
    for (options, annotations) in
        [(collector.options(), &[][..]), (Vec::new(), &[("enable-opentelemetry", "true")])]
    {
        let (world, _upstream) = world(&options, annotations).await;
        let answer = ask(&world, Some(&caller)).await;
        assert_eq!(answer.saw("traceparent"), Some(&*caller));
        assert_eq!(ask(&world, None).await.saw("traceparent"), None);
        assert_eq!(world.running.counters().trace_spans, 0);
        let is_told = world.reasons("a").iter().any(|r| r.contains("otlp-collector-host"));
        assert_eq!(is_told, options.is_empty(), "{:?}", world.reasons("a"));
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_and_no_request() {
    let (world, _upstream) =
        world(&options(dead().await), &[("enable-opentelemetry", "true")]).await;
    for _ in 0..3 {
        assert_eq!(ask(&world, None).await.status, 200);
    }
    world.eventually(|counters| counters.trace_dropped == 3).await;
}

/// Takes connections and never says a word.
async fn silent() -> Upstream {
    Upstream::raw(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

#[tokio::test]
async fn a_collector_that_never_answers_delays_no_request_and_no_end() {
    let collector = silent().await;
    let mut options = options(collector.address);
    // Told one by one, these would take longer than anybody has patience.
    options.push(("otel-max-export-batch-size".to_owned(), "1".to_owned()));
    let (mut world, _upstream) = world(&options, &[("enable-opentelemetry", "true")]).await;
    for _ in 0..8 {
        assert_eq!(ask(&world, None).await.status, 200);
    }
    world.cancel.cancel();
    tokio::time::timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
    let counters = world.running.counters();
    assert_eq!((counters.trace_spans, counters.trace_dropped), (8, 8));
}

#[tokio::test]
async fn what_waits_for_a_batch_is_told_at_the_end() {
    let mut collector = Collector::new().await;
    let mut options = collector.options();
    options.push(("otel-schedule-delay-millis".to_owned(), "600000".to_owned()));
    let (mut world, _upstream) = world(&options, &[("enable-opentelemetry", "true")]).await;
    let answer = ask(&world, None).await;
    world.cancel.cancel();
    tokio::time::timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
    let (span, _) = collector.span().await;
    let own = answer.saw("traceparent").unwrap();
    assert!(own.contains(&hex(&span.trace_id)), "{own}");
    assert_eq!(world.running.counters().trace_dropped, 0);
}

#[tokio::test]
async fn whoever_is_asked_on_a_requests_behalf_is_told_of_its_span() {
    let mut collector = Collector::new().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let authority = Upstream::serve(move |request| {
        let parent = request.headers().get("traceparent").map(|v| v.to_str().unwrap().to_owned());
        let _ = tell.send(parent);
        async { Response::new(Full::new(Bytes::new())) }
    })
    .await;
    let url = format!("http://{}/", authority.address);
    for name in ["auth-url", "mirror-target"] {
        let distrusting = ("opentelemetry-trust-incoming-span", "false");
        let annotations = [("enable-opentelemetry", "true"), distrusting, (name, &*url)];
        let (world, _upstream) = world(&collector.options(), &annotations).await;
        assert_eq!(ask(&world, Some(&format!("00-{TRACE}-{CALLER}-01"))).await.status, 200);
        let (span, _) = collector.span().await;
        let own = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
        let parent = tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
        assert_eq!(parent, Some(own), "{name}");
    }
}
