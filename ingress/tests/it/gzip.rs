//! Answers by gzip, where the ConfigMap asks for it and the client takes them so.

use std::{convert::Infallible, io::Read as _};

use fairlead_ingress::IngressConfig;
use fairlead_state::Key;
use flate2::read::{GzDecoder, MultiGzDecoder};
use futures::{StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    annotations::site,
    support::{
        PATIENCE, World,
        client::{connect, http2, request},
        frames::{END_HEADERS, END_STREAM, Field, HEADERS, SETTINGS, begin, block, frame},
        objects::{IngressExt, backend, config_map},
        upstream::Upstream,
    },
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

const TEXT: &[u8] = &[b'x'; 2_000];

/// Answers as its path says.
async fn pages() -> Upstream {
    Upstream::serve(|request| async move {
        let page = |kind: &str, text: &'static [u8]| {
            let body: Body = Full::new(Bytes::from_static(text)).boxed_unsync();
            Response::builder().header("content-type", kind).header("etag", "\"1\"").body(body)
        };
        let mut response = match request.uri().path() {
            "/image" => page("image/png", TEXT),
            "/short" => page("text/plain", b"short"),
            "/parts" => {
                // The second never comes.
                let first = stream::iter([Ok(Frame::data(Bytes::from_static(TEXT)))]);
                let body: Body = StreamBody::new(first.chain(stream::pending())).boxed_unsync();
                Response::builder().header("content-type", "text/plain").body(body)
            }
            _ => page("text/html; charset=utf-8", TEXT),
        }
        .unwrap();
        match request.uri().path() {
            "/brotli" => {
                _ = response.headers_mut().insert("content-encoding", "br".parse().unwrap());
            }
            "/kept" => {
                let kept = "public, no-transform".parse().unwrap();
                response.headers_mut().insert("cache-control", kept);
            }
            "/part" => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let range = "bytes 0-1999/4000".parse().unwrap();
                response.headers_mut().insert("content-range", range);
            }
            "/summed" => {
                let sum = "sha-256=:AAAA:".parse().unwrap();
                response.headers_mut().insert("repr-digest", sum);
            }
            "/broken" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            _ => {}
        }
        response
    })
    .await
}

async fn world(data: &[(&str, &str)]) -> (World, Upstream) {
    let upstream = pages().await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    objects.push(config_map("nginx", data));
    let config_map = Some(Key::new("default", "nginx"));
    let config = IngressConfig { config_map, threads: Some(1), ..crate::support::config() };
    (World::with(config, objects).await, upstream)
}

async fn ask(world: &World, method: Method, path: &str, accepts: &str) -> (HeaderMap, Bytes) {
    let mut request = request("a.example", path);
    *request.method_mut() = method;
    request.headers_mut().insert("accept-encoding", accepts.parse().unwrap());
    let mut sender = connect(world.http()).await;
    let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
    let (head, body) = response.unwrap().unwrap().into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
    (head.headers, body.to_bytes())
}

#[tokio::test]
async fn what_is_worth_it_is_compressed_for_whoever_takes_it_so() {
    let (world, _upstream) = world(&[("use-gzip", "true")]).await;
    for (path, accepts, is_smaller, varies) in [
        ("/page", "gzip", true, true),
        ("/page", "br, gzip;q=0.5", true, true),
        ("/page", "br", false, true),
        ("/page", "gzip;q=0", false, true),
        ("/image", "gzip", false, false),
        ("/short", "gzip", false, false),
        ("/brotli", "gzip", false, false),
        ("/kept", "gzip", false, false),
        ("/broken", "gzip", false, false),
        ("/part", "gzip", false, false),
        ("/summed", "gzip", false, false),
    ] {
        let (headers, body) = ask(&world, Method::GET, path, accepts).await;
        let told = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(told("vary"), varies.then_some("Accept-Encoding"), "{path} {accepts}");
        if !is_smaller {
            assert_ne!(told("content-encoding"), Some("gzip"), "{path} {accepts}");
            assert_eq!(told("etag"), Some("\"1\""), "{path} {accepts}");
            let text = if path == "/short" { &b"short"[..] } else { TEXT };
            assert_eq!(body, text, "{path} {accepts}");
            continue;
        }
        assert_eq!(told("content-encoding"), Some("gzip"), "{path} {accepts}");
        // The bytes are not those the endpoint named so.
        assert_eq!((told("content-length"), told("etag")), (None, Some("W/\"1\"")));
        let mut text = Vec::new();
        MultiGzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
        assert!(text == TEXT && body.len() < TEXT.len() / 4, "{} bytes", body.len());
    }
    // As by nginx, a HEAD's fields are a GET's: who keeps answers compares them (RFC 9111 4.3.5).
    let fields = ["vary", "content-encoding", "etag", "content-length"];
    for (accepts, expected) in [
        ("gzip", [Some("Accept-Encoding"), Some("gzip"), Some("W/\"1\""), None]),
        ("br", [Some("Accept-Encoding"), None, Some("\"1\""), Some("2000")]),
    ] {
        let (headers, body) = ask(&world, Method::HEAD, "/page", accepts).await;
        let told = fields.map(|name| headers.get(name).map(|value| value.to_str().unwrap()));
        assert_eq!((told, body.len()), (expected, 0), "{accepts}");
    }
}

#[tokio::test]
async fn options_say_what_and_without_them_nothing_is_compressed() {
    for (data, path, expected) in [
        (&[][..], "/page", false),
        (&[("use-gzip", "false")], "/page", false),
        (&[("gzip-level", "9")], "/page", false),
        (&[("use-gzip", "true"), ("gzip-min-length", "3000")], "/page", false),
        (&[("use-gzip", "true"), ("gzip-min-length", "1")], "/short", true),
        (&[("use-gzip", "true"), ("gzip-types", "image/png")], "/image", true),
        (&[("use-gzip", "true"), ("gzip-types", "*"), ("gzip-level", "9")], "/image", true),
    ] {
        let (world, _upstream) = world(data).await;
        let (headers, _) = ask(&world, Method::GET, path, "gzip").await;
        assert_eq!(headers.contains_key("content-encoding"), expected, "{data:?} {path}");
    }
}

/// hyper's client minds lengths that are none, and what follows an answer's end.
#[tokio::test]
async fn over_http2_answers_by_gzip_have_no_length_and_those_to_head_no_content() {
    let (world, _upstream) = world(&[("use-gzip", "true")]).await;
    let mut sender = http2(TcpStream::connect(world.http()).await.unwrap()).await;
    for (method, accepts, expected) in [
        (Method::GET, "gzip", [Some("gzip"), None]),
        (Method::HEAD, "gzip", [Some("gzip"), None]),
        (Method::GET, "br", [None, Some("2000")]),
        (Method::HEAD, "br", [None, Some("2000")]),
    ] {
        let request = Request::builder().method(&method).version(Version::HTTP_2);
        let request = request.uri("http://a.example/page").header("accept-encoding", accepts);
        let answer = sender.send_request(request.body(Full::default()).unwrap());
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        let (head, body) = answer.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
        let body = body.to_bytes();
        let told = ["content-encoding", "content-length"].map(|name| head.headers.get(name));
        let told = told.map(|value| value.map(|value| value.to_str().unwrap()));
        assert_eq!(told, expected, "{method} {accepts}");
        let mut text = Vec::new();
        match (method, accepts) {
            (Method::HEAD, _) => assert!(body.is_empty(), "{accepts}"),
            (_, "gzip") => {
                MultiGzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
                assert!(text == TEXT);
            }
            _ => assert!(body == TEXT),
        }
    }
}

/// Each answer holds its compressor for as long as its client takes for it.
#[tokio::test]
async fn attack_answers_nobody_takes_leave_others_theirs_as_they_are() {
    const CONNECTIONS: u32 = 2;
    const STREAMS: u32 = 128;
    let (world, _upstream) = world(&[("use-gzip", "true")]).await;
    let fields: [Field<'_>; 5] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a.example"),
        (b":path", b"/page"),
        (b"accept-encoding", b"gzip"),
    ];
    // RFC 9113 6.5.2: of their streams nothing is taken but heads.
    let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut attack = [begin(), shut].concat();
    for id in (1..).step_by(2).take(STREAMS as usize) {
        attack.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&fields)));
    }
    let mut held = Vec::new();
    for i in 1..=CONNECTIONS {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        stream.write_all(&attack).await.unwrap();
        held.push(stream);
        let answered = u64::from(i * STREAMS);
        world.eventually(|counters| counters.responses.get(&200) == Some(&answered)).await;
    }
    let (headers, body) = ask(&world, Method::GET, "/page", "gzip").await;
    assert!(!headers.contains_key("content-encoding"));
    assert!(body == TEXT);
    assert_eq!(world.running.counters().uncompressed, 1);
    drop(held);
    world.eventually(|counters| counters.connections_open == 0).await;
    let (headers, _) = ask(&world, Method::GET, "/page", "gzip").await;
    assert!(headers.contains_key("content-encoding"));
}

/// What an endpoint has said is not held back until it says more.
#[tokio::test]
async fn a_part_of_an_answer_is_there_when_it_comes() {
    let (world, _upstream) = world(&[("use-gzip", "true")]).await;
    let mut request = request("a.example", "/parts");
    request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let mut body = connect(world.http()).await.send_request(request).await.unwrap().into_body();
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            bytes.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
            let mut text = vec![0; TEXT.len()];
            if GzDecoder::new(&bytes[..]).read_exact(&mut text).is_ok() {
                return text;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, reading).await.unwrap(), TEXT);
}
