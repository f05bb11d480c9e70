//! Raw bytes against a real listener; what counts is what reached the upstream.

mod documentation;
mod table;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use fairlead_ingress::IngressConfig;
use fairlead_state::model::PathType::{ImplementationSpecific, Prefix};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::table::ATTACKS;
use crate::{
    annotations::annotated,
    support::{
        World,
        client::{get, get2, http2, raw, read_to_close, tls, trusting_anybody},
        config,
        objects::{IngressExt, backend, ingress},
        upstream::{Counts, Upstream},
    },
};

async fn world(upstream: &Upstream) -> World {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    World::with(IngressConfig { threads: Some(1), ..config() }, objects).await
}

/// Status lines of all responses, in order.
fn statuses(answer: &str) -> Vec<u16> {
    let lines = answer.split("HTTP/1.").skip(1);
    lines.filter_map(|line| line.get(2..5)?.parse().ok()).collect()
}

#[tokio::test]
async fn attacks_end_here() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    for (name, head, expected) in ATTACKS {
        let answer = raw(world.http(), &[head, &b"Connection: close\r\n\r\n"[..]].concat()).await;
        assert_eq!(statuses(&answer), [*expected], "{name}: {answer}");
        assert_eq!(upstream.requests(), 0, "{name}");
    }
}

/// The first request is served, the ambiguous one behind it is refused, and nothing after it.
#[tokio::test]
async fn smuggling_behind_a_good_request_reaches_no_upstream() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let smuggled = b"POST /good HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                     3\r\nabc\r\n0\r\n\r\n\
                     POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\
                     Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\
                     Host: a.example\r\n\r\n";
    for bytes in [smuggled.to_vec(), swapped(smuggled)] {
        let before = upstream.requests();
        let answer = raw(world.http(), &bytes).await;
        assert_eq!(statuses(&answer), [200, 400], "{answer}");
        assert!(!answer.contains("evil"), "{answer}");
        assert_eq!(upstream.requests() - before, 1);
    }
}

fn swapped(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let lines = "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n";
    text.replace(lines, "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n").into_bytes()
}

/// As nginx and HAProxy take them (RFC 9112 2.2). Behind us each line ends by CRLF: where a request
/// ends nobody can see otherwise.
#[tokio::test]
async fn a_head_by_bare_lf_is_one_request_and_goes_on_by_crlf() {
    let (seen, mut heads) = tokio::sync::mpsc::channel(8);
    let upstream = Upstream::raw(move |mut stream, counts: Arc<Counts>| {
        let seen = seen.clone();
        async move {
            while let Some(head) = next_head(&mut stream).await {
                counts.request();
                seen.send(head).await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let world = world(&upstream).await;
    for (name, bytes) in [
        ("every line", "GET /1 HTTP/1.1\nHost: a.example\nX-A: b\n\n"),
        ("the request line", "GET /1 HTTP/1.1\nHost: a.example\r\nX-A: b\r\n\r\n"),
        ("a field's", "GET /1 HTTP/1.1\r\nHost: a.example\nX-A: b\r\n\r\n"),
        ("the last", "GET /1 HTTP/1.1\r\nHost: a.example\r\nX-A: b\r\n\n"),
        ("all but the last", "GET /1 HTTP/1.1\nHost: a.example\nX-A: b\n\r\n"),
    ] {
        let second = "GET /2 HTTP/1.1\nHost: a.example\nConnection: close\n\n";
        let answer = raw(world.http(), format!("{bytes}{second}").as_bytes()).await;
        assert_eq!(statuses(&answer), [200, 200], "{name}: {answer}");
        for line in ["GET /1 HTTP/1.1\r\n", "GET /2 HTTP/1.1\r\n"] {
            let head = heads.recv().await.unwrap();
            assert!(head.starts_with(line), "{name}: {head}");
            assert_eq!(head.matches('\n').count(), head.matches("\r\n").count(), "{name}: {head}");
            let is_first = line.starts_with("GET /1 ");
            assert_eq!(head.contains("\r\nx-a: b\r\n"), is_first, "{name}: {head}");
        }
        assert!(heads.try_recv().is_err(), "{name}");
    }
}

/// Of a request without a body; `None` at the end.
async fn next_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// What an upstream got of such a body is cut off: no upstream takes it for whole.
#[tokio::test]
async fn chunks_that_parsers_differ_on_complete_no_request() {
    let complete = Arc::new(AtomicUsize::new(0));
    let counted = complete.clone();
    let upstream = Upstream::serve(move |request| {
        let counted = counted.clone();
        async move {
            if request.into_body().collect().await.is_ok() {
                counted.fetch_add(1, SeqCst);
            }
            http::Response::new(String::new())
        }
    })
    .await;
    let world = world(&upstream).await;
    for (name, body, expected) in [
        ("proper", "3\r\nabc\r\n0\r\n\r\n", 1),
        ("proper, with an extension and a trailer", "3;x=y\r\nabc\r\n0\r\nt: u\r\n\r\n", 1),
        ("size ended by LF", "3\nabc\r\n0\r\n\r\n", 0),
        ("LF in an extension", "3;\nx\r\nabc\r\n0\r\n\r\n", 0),
        ("CR in an extension", "3;\rx\r\nabc\r\n0\r\n\r\n", 0),
        ("0x", "0x3\r\nabc\r\n0\r\n\r\n", 0),
        ("signed size", "+3\r\nabc\r\n0\r\n\r\n", 0),
        ("no size", "\r\nabc\r\n0\r\n\r\n", 0),
        ("size of 17 digits", "10000000000000003\r\nabc\r\n0\r\n\r\n", 0),
        ("more data than announced", "2\r\nabc\r\n0\r\n\r\n", 0),
        ("less data than announced", "4\r\nabc\r\n0\r\n\r\n", 0),
        ("data ended by LF", "3\r\nabc\n0\r\n\r\n", 0),
        ("endless extension", &format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000)), 0),
        ("endless trailers", &format!("0\r\n{}\r\n", "t: u\r\n".repeat(20_000)), 0),
    ] {
        let before = complete.load(SeqCst);
        let head = "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        let answer = raw(world.http(), format!("{head}{body}").as_bytes()).await;
        assert_eq!(complete.load(SeqCst) - before, expected, "{name}: {answer}");
        assert_eq!(answer.contains(" 200 "), expected == 1, "{name}: {answer}");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_granted_does_not_open_a_tunnel() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    for upgrade in ["h2c", "foo", "websocket"] {
        let before = upstream.requests();
        let bytes = format!(
            "GET /one HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\n\
             Upgrade: {upgrade}\r\n\r\n\
             GET /two HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(world.http(), bytes.as_bytes()).await;
        assert_eq!(statuses(&answer), [200, 200], "{upgrade}: {answer}");
        assert_eq!(upstream.requests() - before, 2, "{upgrade}");
        assert_eq!(answer.contains("\nupgrade: "), upgrade == "websocket", "{answer}");
    }
    assert_eq!(world.running.counters().tunnels, 0);
}

#[tokio::test]
async fn sizes_are_limited_to_the_byte() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let head = |path: &str, fields: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{fields}\r\n")
    };
    let (uri_max, head_max) = (8 << 10, 32 << 10);
    let fixed = head("/", "X: \r\n").len();
    for (name, bytes, expected) in [
        ("longest target", head(&format!("/{}", "a".repeat(uri_max - 1)), ""), 200),
        ("target too long", head(&format!("/{}", "a".repeat(uri_max)), ""), 414),
        ("largest head", head("/", &format!("X: {}\r\n", "a".repeat(head_max - fixed))), 200),
        ("head too large", head("/", &format!("X: {}\r\n", "a".repeat(head_max - fixed + 1))), 431),
        ("endless head", head("/", &format!("X: {}\r\n", "a".repeat(1 << 20))), 431),
        ("most fields", head("/", &"X: y\r\n".repeat(98)), 200),
        ("too many fields", head("/", &"X: y\r\n".repeat(99)), 431),
    ] {
        let answer = raw(world.http(), bytes.as_bytes()).await;
        assert_eq!(statuses(&answer), [expected], "{name}");
    }
}

/// Spellings of what is below `/admin`, and what is forwarded: whatever an endpoint decodes of it, it is
/// what was matched.
pub(crate) const SPELLINGS: &[(&str, &str)] = &[
    ("/admin", "/admin"),
    ("//admin", "/admin"),
    ("/./admin", "/admin"),
    ("/x/../admin", "/admin"),
    ("/x/%2e%2e/admin", "/admin"),
    ("/%61dmin", "/admin"),
    ("/admin/../admin/", "/admin/"),
    ("/x//..//admin", "/admin"),
    // What is data to some endpoints is a separator to others, and to nginx.
    ("/admin%2Fx", "/admin%2Fx"),
    ("/admin%2f", "/admin%2F"),
    ("/%2fadmin", "/%2Fadmin"),
    ("/public/..%2fadmin", "/admin"),
    ("/public%2f..%2Fadmin", "/admin"),
    ("/public/%2e%2e%2fadmin", "/admin"),
    ("/public/x/..%2f..%2fadmin%2fy", "/admin/y"),
    ("/%2e%2fadmin", "/admin"),
];

/// No spelling gets around a rule.
#[tokio::test]
async fn no_spelling_of_a_protected_path_gets_around_its_rule() {
    let (open, guarded) = (Upstream::echo("open").await, Upstream::echo("guarded").await);
    let mut objects = backend("open", &[open.address]);
    objects.extend(backend("guarded", &[guarded.address]));
    let rule = [(Prefix, "/", "open"), (Prefix, "/admin", "guarded")];
    objects.push(ingress("web").rule("a.example", &rule).object());
    let world = World::new(objects).await;
    for (path, forwarded) in SPELLINGS {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        let answer = raw(world.http(), bytes.as_bytes()).await;
        assert!(answer.contains(&format!("guarded\nGET {forwarded}\n")), "{path}: {answer}");
    }
    assert_eq!(open.requests(), 0);
}

/// An expression is asked for the decoded path, too, and a rule may hold characters that clients encode.
#[tokio::test]
async fn no_encoding_of_a_character_gets_around_a_guard() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let nobody = [("allowlist-source-range", "192.0.2.1")];
    for (name, path, more) in [
        ("letters", "/a:b,c/@d", &[][..]),
        ("encoded", "/a%3Ab,c/%40d", &[]),
        ("space", "/a b", &[]),
        ("spelled", "/a%20b", &[]),
        ("regex", "/a[:]b/(.*)", &[("use-regex", "true")]),
        ("rewritten", "/a[:]b(/|$)(.*)", &[("rewrite-target", "/$2")]),
    ] {
        let host = format!("{name}.example");
        objects.push(ingress(&format!("{name}-open")).host(&host, "web").object());
        let guarded = ingress(name).rule(&host, &[(ImplementationSpecific, path, "web")]);
        objects.push(annotated(annotated(guarded, more), &nobody).object());
    }
    let world = World::new(objects).await;
    for (name, paths) in [
        ("letters", &["/a:b,c/@d", "/a%3Ab%2Cc/%40d", "/a:b,c%2F@d/x"][..]),
        ("encoded", &["/a:b,c/@d", "/a%3Ab%2Cc/%40d"]),
        ("space", &["/a%20b", "/a%20b%2Fc"]),
        ("spelled", &["/a%20b", "/a%20b/c"]),
        ("regex", &["/a:b/", "/a%3Ab/x", "/a%3ab%2fx"]),
        ("rewritten", &["/a:b/", "/a%3Ab/x", "/a%3ab%2fx"]),
    ] {
        for path in paths {
            let answer = get(world.http(), &format!("{name}.example"), path).await;
            assert_eq!(answer.status, 403, "{name} {path}");
        }
        assert_eq!(get(world.http(), &format!("{name}.example"), "/x").await.status, 200);
    }
}

#[tokio::test]
async fn fields_a_client_may_not_set_are_not_what_the_upstream_sees() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let answer = raw(
        world.http(),
        b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-Proto: https\r\n\
          X_Forwarded_For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n\
          Proxy: http://evil\r\nForwarded: for=10.0.0.1\r\n\
          Connection: close, X-Forwarded-Proto, X-Real-IP, Host\r\n\r\n",
    )
    .await;
    for field in ["x-forwarded-proto: http\n", "x-real-ip: 127.0.0.1\n", "host: a.example\n"] {
        assert!(answer.contains(field), "{field}: {answer}");
    }
    for field in ["x_forwarded_for", "proxy:", "\nforwarded:", "x-real-ip: 10"] {
        assert!(!answer.contains(field), "{field}: {answer}");
    }
}

#[tokio::test]
async fn http2_names_one_host_and_no_hop_by_hop_field() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let h2 = async || {
        let mut config = trusting_anybody();
        config.alpn_protocols = vec![b"h2".to_vec()];
        http2(tls(world.https(), "a.example", config).await.unwrap()).await
    };
    let mut sender = h2().await;
    assert_eq!(get2(&mut sender, "a.example", "/..").await.status, 400);
    assert_eq!(get2(&mut sender, "a_b.other", "/").await.status, 404);
    for (name, field, value) in
        [("other host", "host", "b.example"), ("other port", "host", "a.example:1")]
    {
        let request = http::Request::builder()
            .uri("https://a.example/")
            .header(field, value)
            .body(http_body_util::Full::default())
            .unwrap();
        let response = h2().await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 400, "{name}");
    }
    assert_eq!(upstream.requests(), 0);
}

/// The answer must not be lost to a reset because the rest of the request was not read.
#[tokio::test]
async fn a_refusal_is_seen_by_a_client_that_is_still_sending() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    for head in ["POST / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nHost: unknown.example\r\n"] {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let head = format!("{head}Content-Length: 200000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..20 {
            stream.write_all(&[b'x'; 10_000]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer:?}");
    }
}
