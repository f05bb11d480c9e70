//! One line a request, whatever becomes of it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use fairlead_ingress::{
    AccessLog, ForwardedHeaders, IngressConfig, LogFormat, LogTarget, ProxyProtocol, Refused,
    TextMatch,
};
use fairlead_state::Object;
use http::{HeaderValue, Method, Response, header::USER_AGENT};
use http_body_util::Full;
use hyper::body::Bytes;
use regex::Regex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    annotations::{annotated, site},
    support::{
        PATIENCE, World,
        client::{connect, get, get2, http2, read_until, request, send},
        frames::{
            END_HEADERS, END_STREAM, Field, HEADERS, Outcome, answered, block, frame, length,
        },
        objects::{IngressExt, backend, class, ingress},
        upstream::{Upstream, dead},
    },
    websocket::{ASK, echoing},
};

/// A log in a directory of its own.
struct Log(tempfile::TempDir);

impl Log {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("access.log")
    }

    fn config(&self, format: &str) -> IngressConfig {
        let target = LogTarget::File(self.path());
        let format: LogFormat = format.parse().unwrap();
        IngressConfig {
            threads: Some(1),
            access_log: Some(AccessLog { format, ..AccessLog::to(target) }),
            ..crate::support::config()
        }
    }

    async fn world(&self, format: &str, objects: Vec<Object>) -> World {
        World::with(self.config(format), objects).await
    }

    /// Once there are so many lines.
    async fn lines(&self, count: usize) -> Vec<String> {
        let path = self.path();
        let looking = async {
            loop {
                let lines = lines(&path);
                if lines.len() >= count {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        let lines = found.unwrap_or_else(|_| lines(&path));
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_line_is_ingress_nginxs() {
    let log = Log::new();
    let upstream = Upstream::serve(|_| async { Response::new(Full::new(Bytes::from("hello"))) });
    let upstream = upstream.await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let world = log.world("upstreaminfo", objects).await;
    let mut post = request("a.example", "/x?y=1");
    *post.method_mut() = Method::POST;
    *post.body_mut() = Full::new(Bytes::from("four"));
    post.headers_mut().insert("x-request-id", HeaderValue::from_static("0123"));
    post.headers_mut().insert("authorization", HeaderValue::from_static("Basic YW5uOng="));
    post.headers_mut().insert("referer", HeaderValue::from_static("https://b.example/"));
    post.headers_mut().insert(USER_AGENT, HeaderValue::from_static("test/1.0"));
    assert_eq!(send(&mut connect(world.http()).await, post).await.status, 200);
    assert_eq!(get(world.http(), "nobody.example", "/").await.status, 404);
    let lines = log.lines(2).await;
    let address = regex::escape(&upstream.address.to_string());
    let time = r"\[\d\d/[A-Z][a-z]{2}/20\d\d:\d\d:\d\d:\d\d \+0000\]";
    for (line, expected) in [
        (
            &lines[0],
            format!(
                "^127\\.0\\.0\\.1 - ann {time} \"POST /x\\?y=1 HTTP/1\\.1\" 200 5 \
                 \"https://b\\.example/\" \"test/1\\.0\" 1\\d\\d \\d+\\.\\d{{3}} \
                 \\[default-web-80\\] \\[\\] {address} 5 \\d+\\.\\d{{3}} 200 0123$"
            ),
        ),
        (
            &lines[1],
            format!(
                "^127\\.0\\.0\\.1 - - {time} \"GET / HTTP/1\\.1\" 404 \\d+ \"-\" \"-\" \\d+ \
                 \\d+\\.\\d{{3}} \\[-\\] \\[\\] - - - - [0-9a-f]{{32}}$"
            ),
        ),
    ] {
        assert!(Regex::new(&expected).unwrap().is_match(line), "{line}\n{expected}");
    }
    world.eventually(|counters| counters.log_lines == 2 && counters.log_dropped == 0).await;
}

#[tokio::test]
async fn log_injection_hostile_bytes_stay_in_their_value_and_json_is_json() {
    for format in ["upstreaminfo", "json"] {
        let log = Log::new();
        let upstream = Upstream::echo("web").await;
        let mut objects = backend("web", &[upstream.address]);
        objects.push(site("a", &[]).object());
        let world = log.world(format, objects).await;
        for agent in
            [&b"a\" 200 \"b"[..], b"\xff\xfe\x80", b"\\", b"\",\"status\":200,\"x\":\"", b"a\tb"]
        {
            let mut request = request("a.example", "/%0d%0a127.0.0.1%20-%20-");
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_bytes(agent).unwrap());
            assert_eq!(send(&mut connect(world.http()).await, request).await.status, 400);
        }
        for line in log.lines(5).await {
            assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}");
            match format {
                "json" => {
                    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                    assert_eq!(line["status"], 400, "{line}");
                }
                _ => assert_eq!(line.matches('"').count(), 6, "{line}"),
            }
        }
    }
}

#[tokio::test]
async fn every_endpoint_asked_is_told_of_in_its_order() {
    let log = Log::new();
    let (dead, upstream) = (dead().await, Upstream::echo("web").await);
    let mut objects = backend("web", &[dead, upstream.address]);
    objects.push(site("a", &[]).object());
    let world = log.world("$upstream_addr|$upstream_status|$status", objects).await;
    for _ in 0..2 {
        assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    }
    let lines = log.lines(2).await;
    let (alive, tried) = (upstream.address, format!("{dead}, {}|502, 200|200", upstream.address));
    assert!(lines.contains(&tried), "{lines:?}");
    assert!(lines.contains(&format!("{alive}|200|200")), "{lines:?}");
}

#[tokio::test]
async fn times_are_those_of_each_endpoint_asked() {
    let log = Log::new();
    let (dead, upstream) = (dead().await, Upstream::echo("web").await);
    let mut objects = backend("web", &[dead, upstream.address]);
    objects.push(site("a", &[]).object());
    let format = "$upstream_addr|$upstream_connect_time|$upstream_header_time";
    let world = log.world(format, objects).await;
    for _ in 0..3 {
        assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    }
    let lines = log.lines(3).await;
    let time = r"\d+\.\d{3}";
    for expected in [
        format!(r"^{dead}, {}\|-, {time}\|-, {time}$", upstream.address),
        format!(r"^{}\|0\.000\|{time}$", upstream.address),
    ] {
        let expected = Regex::new(&expected).unwrap();
        assert!(lines.iter().any(|line| expected.is_match(line)), "{lines:?} {expected}");
    }
}

#[tokio::test]
async fn the_client_is_who_a_balancer_that_is_believed_says() {
    use ForwardedHeaders::{Replace, Trust};
    const ADDRESSES: &str = "$remote_addr|$realip_remote_addr|$proxy_protocol_addr";
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    for (policy, balancers, forwarded, expected) in [
        (Replace, &[][..], "192.0.2.1", "127.0.0.1|127.0.0.1|-"),
        (Trust, &[], "203.0.113.9, 192.0.2.1", "192.0.2.1|127.0.0.1|-"),
        (Trust, &["0.0.0.0/0"], "203.0.113.9, 192.0.2.1", "192.0.2.1|127.0.0.1|-"),
        (Trust, &["127.0.0.1/32"], "203.0.113.9, 192.0.2.1", "192.0.2.1|127.0.0.1|-"),
        (
            Trust,
            &["127.0.0.0/8", "192.0.2.0/24"],
            "203.0.113.9, 198.51.100.7, 192.0.2.1:4000",
            "198.51.100.7|127.0.0.1|-",
        ),
        (Trust, &["10.0.0.0/8"], "192.0.2.1", "127.0.0.1|127.0.0.1|-"),
        (Trust, &[], "nonsense", "127.0.0.1|127.0.0.1|-"),
    ] {
        let log = Log::new();
        let config = IngressConfig {
            forwarded_headers: policy,
            trusted_proxies: balancers.iter().map(|network| network.parse().unwrap()).collect(),
            ..log.config(ADDRESSES)
        };
        let world = World::with(config, objects.clone()).await;
        let mut request = request("a.example", "/");
        request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
        assert_eq!(send(&mut connect(world.http()).await, request).await.status, 200);
        assert_eq!(log.lines(1).await, [expected], "{policy:?} {balancers:?} {forwarded}");
    }
    let log = Log::new();
    let proxy_protocol = Some(ProxyProtocol::default());
    let config = IngressConfig { proxy_protocol, ..log.config(ADDRESSES) };
    let world = World::with(config, objects).await;
    let _stream = behind_proxy(&world, "").await;
    assert_eq!(log.lines(1).await, ["203.0.113.7|127.0.0.1|203.0.113.7"]);
}

/// A request of 203.0.113.7, as a balancer's PROXY header says.
async fn behind_proxy(world: &World, fields: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let header = "PROXY TCP4 203.0.113.7 198.51.100.2 40000 80\r\n";
    let request = format!("{header}GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Where nobody in particular is believed, whoever a PROXY header names would be.
#[tokio::test]
async fn spoofed_behind_a_proxy_header_only_balancers_that_are_named_say_who_the_client_is() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    for (balancers, expected) in [
        (&[][..], "203.0.113.7"),
        (&["0.0.0.0/0"], "203.0.113.7"),
        (&["203.0.113.0/24"], "192.0.2.1"),
    ] {
        let log = Log::new();
        let config = IngressConfig {
            proxy_protocol: Some(ProxyProtocol::default()),
            forwarded_headers: ForwardedHeaders::Trust,
            trusted_proxies: balancers.iter().map(|network| network.parse().unwrap()).collect(),
            ..log.config("$remote_addr")
        };
        let world = World::with(config, objects.clone()).await;
        let _stream = behind_proxy(&world, "X-Forwarded-For: 192.0.2.1\r\n").await;
        assert_eq!(log.lines(1).await, [expected], "{balancers:?}");
    }
}

#[tokio::test]
async fn how_a_client_asked_is_as_whoever_is_believed_says() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    for (forwarded_headers, expected) in [
        (ForwardedHeaders::Trust, "http|https|a.example|b.example"),
        (ForwardedHeaders::Replace, "http|http|a.example|a.example"),
    ] {
        let log = Log::new();
        let format = "$scheme|$pass_access_scheme|$http_host|$best_http_host";
        let config = IngressConfig { forwarded_headers, ..log.config(format) };
        let world = World::with(config, objects.clone()).await;
        let mut request = request("a.example", "/");
        for (name, value) in [("x-forwarded-proto", "https"), ("x-forwarded-host", "b.example")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(send(&mut connect(world.http()).await, request).await.status, 200);
        assert_eq!(log.lines(1).await, [expected]);
    }
}

/// Takes requests and never answers.
async fn silent() -> Upstream {
    Upstream::raw(|stream, counts| async move {
        counts.request();
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_499() {
    let log = Log::new();
    let upstream = silent().await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let world = log.world("$status $request_uri", objects).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    while upstream.requests() == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    assert_eq!(log.lines(1).await, ["499 /slow"]);
}

/// As nginx 1.22 writes it: 502 would be the endpoint's own, and what the client reads instead is ours.
#[tokio::test]
async fn bug_who_did_not_answer_said_nothing_and_is_to_blame_for_no_client_that_leaves() {
    let log = Log::new();
    let late = silent().await;
    let gone = Upstream::raw(|_, counts| async move { _ = counts.request() }).await;
    let mut objects = backend("web", &[late.address]);
    objects.extend(backend("gone", &[gone.address]));
    let alone = ("proxy-next-upstream", "off");
    objects.extend([
        site("left", &[]).object(),
        site("late", &[("proxy-read-timeout", "1"), alone]).object(),
        annotated(ingress("gone").host("gone.example", "gone"), &[alone]).object(),
    ]);
    let format = "$status|$upstream_status|$upstream_response_length";
    let world = log.world(format, objects).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: left.example\r\n\r\n").await.unwrap();
    while late.requests() == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    assert_eq!(log.lines(1).await, ["499|-|0"]);
    assert_eq!(get(world.http(), "late.example", "/").await.status, 504);
    assert_eq!(get(world.http(), "gone.example", "/").await.status, 502);
    assert_eq!(log.lines(3).await[1..], ["504|504|0", "502|502|0"]);
}

/// It is not read to its end, and refused like others.
#[tokio::test]
async fn a_head_that_is_too_large_over_http2_has_its_line_and_is_counted() {
    let log = Log::new();
    let world = log.world("$status $request_uri", vec![]).await;
    let usual: [Field<'_>; 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a.example"),
        (b":path", b"/x?y"),
    ];
    let mut fields = block(&usual);
    // RFC 7541 6.2.1: one that has a place in the table, and then its number: 40 KB in all.
    fields.push(0x40);
    for text in [&b"x-own"[..], &[b'v'; 3_900]] {
        length(&mut fields, text.len());
        fields.extend_from_slice(text);
    }
    fields.extend([0x80 | 62; 10]);
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
    assert_eq!(answered(world.http(), &head).await, Outcome::Status(431));
    assert_eq!(log.lines(1).await, ["431 /x?y"]);
    let counters = world.running.counters();
    assert_eq!(counters.refused[&Refused::FieldsTooMany], 1);
    assert_eq!(counters.responses, BTreeMap::from([(431, 1)]));
}

/// Its connection goes on.
#[tokio::test]
async fn a_stream_that_is_reset_before_the_answer_is_499() {
    let log = Log::new();
    let upstream = silent().await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let world = log.world("$status $request_uri", objects).await;
    let mut sender = http2(TcpStream::connect(world.http()).await.unwrap()).await;
    let asked = async {
        while upstream.requests() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = get2(&mut sender, "a.example", "/slow") => panic!("{answer:?}"),
        () = asked => {}
    }
    assert_eq!(log.lines(1).await, ["499 /slow"]);
    assert_eq!(get2(&mut sender, "nobody.example", "/").await.status, 404);
}

#[tokio::test]
async fn a_websocket_is_told_of_when_it_ends() {
    let log = Log::new();
    let upstream = echoing().await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let world = log.world("$status $service_name $body_bytes_sent", objects).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"chat").await.unwrap();
    let mut said = [0; 9];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hellochat");
    // Lines go in the order in which requests end.
    assert_eq!(get(world.http(), "nobody.example", "/").await.status, 404);
    drop(stream);
    let lines = log.lines(2).await;
    assert!(lines[0].starts_with("404 - "), "{lines:?}");
    assert_eq!(lines[1], "101 web 9");
}

#[tokio::test]
async fn an_ingress_that_is_not_to_be_logged_is_not() {
    let log = Log::new();
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("loud", &[]).object());
    let silent = ("enable-access-log", "false");
    objects.push(site("silent", &[silent]).object());
    objects.push(site("moved", &[silent, ("permanent-redirect", "https://b.example/")]).object());
    objects.push(class("fairlead", "fairlead.io/ingress"));
    let mut config = log.config("$host");
    if let Some(log) = &mut config.access_log {
        log.skip = ["/quiet", "~^/health"]
            .map(|text| TextMatch::parse(text).unwrap())
            .into_iter()
            .collect();
    }
    let world = World::with(config, objects).await;
    for (host, path, status) in [
        ("silent.example", "/", 200),
        ("moved.example", "/", 301),
        ("loud.example", "/quiet", 200),
        ("loud.example", "/healthz", 200),
        ("loud.example", "/quieter", 200),
    ] {
        assert_eq!(get(world.http(), host, path).await.status, status);
    }
    assert_eq!(log.lines(1).await, ["loud.example"]);
}

#[tokio::test]
async fn without_a_log_there_is_none() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let world = World::single(objects).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    assert_eq!(world.running.counters().log_lines, 0);
}
