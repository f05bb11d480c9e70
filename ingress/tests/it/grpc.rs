//! HTTP/2 to endpoints: what gRPC needs.

mod few;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use fairlead_state::Object;
use futures::{SinkExt, channel::mpsc};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    time::timeout,
};

use crate::support::{
    PATIENCE, World,
    client::{connect, raw, read_until, request, send, tls, trusting_anybody},
    objects::{IngressExt, Pod, backend, ingress, service, service_speaking, slice},
    upstream::{Counts, Upstream, dead},
};

pub(crate) type Part = Result<Frame<Bytes>, Infallible>;
pub(crate) type Streamed = StreamBody<mpsc::Receiver<Part>>;
pub(crate) type Sender = hyper::client::conn::http2::SendRequest<Streamed>;

const ANNOTATION: &str = "nginx.ingress.kubernetes.io/backend-protocol";
const READ_TIMEOUT: &str = "nginx.ingress.kubernetes.io/proxy-read-timeout";
/// Of a client that means to read nothing.
const RECEIVE_BYTES: u32 = 4 << 10;
/// Where nothing moved for so long nothing will.
const STILL: Duration = Duration::from_millis(200);

fn web(upstream: &Upstream) -> Vec<Object> {
    let ingress = ingress("web").host("a.example", "web").annotation(ANNOTATION, "GRPC");
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress.object());
    objects
}

/// Sends back each part as it comes, then trailers with a status; tells what it saw.
pub(crate) async fn echoing() -> Upstream {
    Upstream::serve2(|request| async move {
        let seen = format!("{:?} {} {}", request.version(), request.method(), request.uri());
        let te = request.headers().get("te").cloned();
        let body = request.into_body().map_frame(|frame| {
            // Request trailers are not the response's.
            let data = frame.into_data().unwrap_or_default();
            Frame::data(data)
        });
        let mut response = Response::new(body.with_trailers(async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            Some(Ok(trailers))
        }));
        let headers = response.headers_mut();
        headers.insert("x-seen", seen.parse().unwrap());
        headers.insert("content-type", "application/grpc".parse().unwrap());
        if let Some(te) = te {
            headers.insert("x-te", te);
        }
        response
    })
    .await
}

pub(crate) async fn client(world: &World) -> Sender {
    let mut config = trusting_anybody();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tls(world.https(), "a.example", config).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A call whose parts are sent one by one.
fn call() -> (Request<Streamed>, mpsc::Sender<Part>) {
    let (parts, body) = mpsc::channel(4);
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri("https://a.example/pkg.Service/Method?x=1")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(body))
        .unwrap();
    (request, parts)
}

fn part(text: &'static str) -> Part {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A call that is answered before anything of it is sent.
pub(crate) async fn opened(sender: &mut Sender) -> (Response<Incoming>, mpsc::Sender<Part>) {
    let (request, parts) = call();
    let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    (response, parts)
}

pub(crate) async fn comes_back(
    text: &'static str,
    parts: &mut mpsc::Sender<Part>,
    body: &mut Incoming,
) {
    parts.send(part(text)).await.unwrap();
    let echo = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(echo.into_data().unwrap(), text);
}

async fn unary(sender: &mut Sender) -> Response<BoxBody<Bytes, hyper::Error>> {
    let (request, mut parts) = call();
    parts.send(part("hello")).await.unwrap();
    drop(parts);
    let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    response.map(BodyExt::boxed)
}

#[tokio::test]
async fn a_call_reaches_a_grpc_server_with_its_trailers() {
    let upstream = echoing().await;
    for way in ["annotation", "kubernetes.io/h2c", "grpc"] {
        let mut objects = web(&upstream);
        if way != "annotation" {
            objects.push(ingress("web").host("a.example", "web").object());
            objects.push(service_speaking("web", way));
        }
        let world = World::single(objects).await;
        let mut sender = client(&world).await;
        for _ in 0..3 {
            let response = unary(&mut sender).await;
            assert_eq!(response.status(), 200, "{way}");
            let seen = &response.headers()["x-seen"];
            assert_eq!(seen, "HTTP/2.0 POST http://a.example/pkg.Service/Method?x=1", "{way}");
            assert_eq!(response.headers()["x-te"], "trailers");
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0", "{way}");
            assert_eq!(body.to_bytes(), "hello", "{way}");
        }
    }
    assert_eq!((upstream.connections(), upstream.requests()), (3, 9));
}

/// Some take trailers for fields nobody has looked at (CVE-2013-5704).
#[tokio::test]
async fn attack_a_calls_trailers_say_nothing_that_is_looked_at_in_heads() {
    let upstream = Upstream::serve2(|request| async move {
        let body = request.into_body().collect().await.unwrap();
        let names = body.trailers().into_iter().flat_map(HeaderMap::keys);
        let names: Vec<&str> = names.map(http::HeaderName::as_str).collect();
        Response::new(Full::new(Bytes::from(names.join(","))))
    })
    .await;
    let world = World::single(web(&upstream)).await;
    let mut sender = client(&world).await;
    let (mut request, mut parts) = call();
    let announced = "x-sum, x-forwarded-for, authorization";
    request.headers_mut().insert("trailer", announced.parse().unwrap());
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "x-forwarded-for", "authorization", "x-unannounced"] {
        trailers.insert(name, "1".parse().unwrap());
    }
    parts.send(part("hello")).await.unwrap();
    parts.send(Ok(Frame::trailers(trailers))).await.unwrap();
    drop(parts);
    let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(seen, "x-sum");
}

/// Neither side waits for the other to finish.
#[tokio::test]
async fn messages_of_a_stream_pass_as_they_come() {
    let upstream = echoing().await;
    let world = World::single(web(&upstream)).await;
    let mut sender = client(&world).await;
    let (response, mut parts) = opened(&mut sender).await;
    let mut body = response.into_body();
    for text in ["one", "two", "three"] {
        comes_back(text, &mut parts, &mut body).await;
    }
    drop(parts);
    let last = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
}

/// nginx and HAProxy pass on any number, too. h2 counts those that wait: see the floods.
#[tokio::test]
async fn parts_of_a_byte_pass_both_ways_as_long_as_they_are_taken() {
    const PARTS: usize = 5_000;
    let upstream = echoing().await;
    let world = World::single(web(&upstream)).await;
    let mut sender = client(&world).await;
    let (response, mut parts) = opened(&mut sender).await;
    let mut body = response.into_body();
    for _ in 0..PARTS {
        comes_back("x", &mut parts, &mut body).await;
    }
}

/// An answer without end, in frames of so many bytes, each of them counted; and a short one.
async fn pouring(frame: &'static [u8], poured: Arc<AtomicUsize>) -> Upstream {
    Upstream::serve2(move |request: Request<Incoming>| {
        let poured = poured.clone();
        async move {
            if request.uri().path() != "/pours" {
                return Response::new(Full::new(Bytes::from_static(b"ok")).boxed());
            }
            let frames = futures::stream::repeat_with(move || {
                poured.fetch_add(1, SeqCst);
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(frame)))
            });
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
    })
    .await
}

/// Asks for an answer without end, and reads nothing but its head.
async fn asked_and_left(world: &World) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    let mut stream = timeout(PATIENCE, socket.connect(world.http())).await.unwrap().unwrap();
    stream.write_all(b"GET /pours HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stream
}

/// Nobody tells that nothing more comes.
async fn stands_still(poured: &AtomicUsize) {
    let standing = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(STILL).await;
            match poured.load(SeqCst) {
                now if now == before && now > 0 => return,
                now => before = now,
            }
        }
    };
    timeout(PATIENCE, standing).await.expect("is not held back");
}

/// One connection is everybody's: with a window of 1 MiB the small frames of one would end it, and the
/// bytes of four fill it.
#[tokio::test]
async fn attack_who_does_not_read_holds_up_nobody_else_on_the_endpoints_connection() {
    const SMALL: &[u8] = &[b'x'; 64];
    const LARGE: &[u8] = &[b'x'; 8 << 10];
    for (frame, clients) in [(SMALL, 1), (LARGE, 6)] {
        let poured = Arc::new(AtomicUsize::new(0));
        let upstream = pouring(frame, poured.clone()).await;
        let world = World::single(web(&upstream)).await;
        let mut left = Vec::new();
        for _ in 0..clients {
            left.push(asked_and_left(&world).await);
        }
        stands_still(&poured).await;
        for _ in 0..3 {
            let answer = send(&mut connect(world.http()).await, request("a.example", "/")).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{clients}");
        }
        assert_eq!((upstream.connections(), upstream.requests()), (1, clients + 3));
    }
}

#[tokio::test]
async fn many_calls_share_one_connection_to_an_endpoint() {
    let upstream = echoing().await;
    let world = World::single(web(&upstream)).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&world).await);
    }
    // All open at once.
    let mut open = Vec::new();
    for _ in 0..10 {
        for sender in &mut clients {
            open.push(opened(sender).await);
        }
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 40));
    for (response, parts) in open {
        drop(parts);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    }
}

/// hyper's server takes two hundred streams of a connection; the next would wait for the end of one.
#[tokio::test]
async fn calls_that_stay_open_keep_no_other_from_an_endpoint() {
    const CALLS: usize = 125;
    let upstream = echoing().await;
    let world = World::single(web(&upstream)).await;
    let mut clients = [client(&world).await, client(&world).await];
    let mut open = Vec::new();
    for sender in &mut clients {
        for _ in 0..CALLS {
            open.push(opened(sender).await);
        }
    }
    assert_eq!((upstream.connections(), upstream.requests()), (4, 2 * CALLS));
    for (response, parts) in open {
        drop(parts);
        let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    }
    assert_eq!(unary(&mut clients[0]).await.status(), 200);
    assert_eq!(upstream.connections(), 4, "there is room");
}

#[tokio::test]
async fn a_server_that_leaves_fails_no_call() {
    let mut world = World::single(vec![
        service("web"),
        ingress("web").host("a.example", "web").annotation(ANNOTATION, "grpc").object(),
    ])
    .await;
    let mut server = echoing().await;
    world.apply(vec![slice("web", "0", server.address, Pod::Ready)]).await;
    let mut sender = client(&world).await;
    for _ in 0..10 {
        assert_eq!(unary(&mut sender).await.status(), 200);
        // A stream that is open while the server leaves goes on to its end.
        let (request, mut parts) = call();
        let open = sender.send_request(request).await.unwrap();
        let next = echoing().await;
        let address = next.address;
        let leaving = tokio::spawn(std::mem::replace(&mut server, next).leave());
        world.apply(vec![slice("web", "0", address, Pod::Ready)]).await;
        assert_eq!(unary(&mut sender).await.status(), 200);
        parts.send(part("still here")).await.unwrap();
        drop(parts);
        let body = open.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "still here");
        timeout(PATIENCE, leaving).await.unwrap().unwrap();
    }
}

/// A node that is gone says nothing, not even that it is.
#[tokio::test]
async fn a_connection_whose_endpoint_fell_silent_is_not_asked_again() {
    let upstream = Upstream::raw(|stream, counts: Arc<Counts>| async move {
        if counts.request() == 1 {
            let _open = stream;
            return std::future::pending().await;
        }
        let service = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    let ingress = ingress("web").host("a.example", "web").annotation(ANNOTATION, "GRPC");
    objects.push(ingress.annotation(READ_TIMEOUT, "1").object());
    let world = World::single(objects).await;
    let mut sender = connect(world.http()).await;
    for expected in [504, 200] {
        assert_eq!(send(&mut sender, request("a.example", "/")).await.status, expected);
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let upstream = echoing().await;
    let mut objects = web(&upstream);
    objects.extend(backend("web", &[dead().await, upstream.address]));
    let world = World::single(objects).await;
    let mut sender = client(&world).await;
    for _ in 0..4 {
        assert_eq!(unary(&mut sender).await.status(), 200);
    }
}

#[tokio::test]
async fn a_call_given_up_by_its_client_is_given_up_at_the_server() {
    struct Left(Arc<Notify>);
    impl Drop for Left {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (arrived, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (arrived.clone(), left.clone());
    let upstream = Upstream::serve2(move |_: Request<Incoming>| {
        let (arrived, left) = signals.clone();
        async move {
            let _left = Left(left);
            arrived.notify_one();
            std::future::pending::<Response<Full<Bytes>>>().await
        }
    })
    .await;
    let world = World::single(web(&upstream)).await;
    let mut sender = client(&world).await;
    let (request, parts) = call();
    let calling = tokio::spawn(sender.send_request(request));
    timeout(PATIENCE, arrived.notified()).await.unwrap();
    calling.abort();
    timeout(PATIENCE, left.notified()).await.unwrap();
    drop(parts);
}

#[tokio::test]
async fn a_client_of_http1_is_served_by_an_endpoint_of_http2() {
    let upstream = echoing().await;
    let world = World::single(web(&upstream)).await;
    let mut post = request("a.example", "/x");
    *post.method_mut() = Method::POST;
    *post.body_mut() = Full::from("hello");
    let answer = send(&mut connect(world.http()).await, post).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    assert_eq!(answer.headers["x-seen"], "HTTP/2.0 POST http://a.example/x");
}

#[tokio::test]
async fn a_change_of_protocol_is_put_in_force() {
    let (h1, h2) = (Upstream::echo("web").await, echoing().await);
    let mut world = World::single(vec![
        service("web"),
        slice("web", "0", h1.address, Pod::Ready),
        ingress("web").host("a.example", "web").object(),
    ])
    .await;
    let mut sender = connect(world.http()).await;
    assert_eq!(send(&mut sender, request("a.example", "/")).await.who(), (200, "web"));
    world.apply(vec![slice("web", "0", h2.address, Pod::Ready)]).await;
    world.apply(vec![service_speaking("web", "kubernetes.io/h2c")]).await;
    assert_eq!(send(&mut sender, request("a.example", "/")).await.status, 200);
    assert_eq!(h2.requests(), 1);
}

#[tokio::test]
async fn protocols_not_served_are_told() {
    let upstream = echoing().await;
    for (value, reason) in [
        (
            "FCGI",
            "differs: annotation nginx.ingress.kubernetes.io/backend-protocol \"FCGI\" is not \
                   served yet; HTTP is spoken",
        ),
        (
            "smtp",
            "refused: annotation nginx.ingress.kubernetes.io/backend-protocol \"smtp\" is \
                  none of HTTP, HTTPS, GRPC, GRPCS; HTTP is spoken",
        ),
    ] {
        let mut objects = backend("web", &[upstream.address]);
        let ingress = ingress("web").host("a.example", "web").annotation(ANNOTATION, value);
        objects.push(ingress.object());
        assert_eq!(World::single(objects).await.reasons("web"), [reason]);
    }
}

/// It was a request without a target, which failed twice, and with it the endpoint.
#[tokio::test]
async fn a_request_of_http_1_0_without_host_asks_for_the_endpoint_itself() {
    let upstream = Upstream::echo2("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let everybody = ingress("web").host("", "web").annotation(ANNOTATION, "GRPC");
    objects.push(everybody.object());
    let world = World::single(objects).await;
    for head in [
        "GET /a?b HTTP/1.0\r\n\r\n",
        "GET /a?b HTTP/1.1\r\nHost: c.example\r\nConnection: close\r\n\r\n",
    ] {
        let answer = raw(world.http(), head.as_bytes()).await;
        let own = upstream.address.to_string();
        let authority = if head.contains("Host") { "c.example" } else { &own };
        assert!(answer.contains(&format!("web\nGET http://{authority}/a?b\n")), "{answer}");
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 2));
}

/// A client that asks for what is refused could keep everybody else from an endpoint.
#[tokio::test]
async fn attack_a_request_that_is_reset_alone_does_not_make_its_endpoint_a_failing_one() {
    let resetting = Upstream::raw(|stream, counts| async move {
        let service = service_fn(move |request: Request<Incoming>| {
            counts.request();
            async move {
                match request.uri().path() {
                    // Resets the stream.
                    "/reset" => Err(std::io::Error::other("reset")),
                    _ => Ok(Response::new(Full::new(Bytes::from("resetting")))),
                }
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    let other =
        Upstream::serve2(|_| async { Response::new(Full::new(Bytes::from("other"))) }).await;
    let mut objects = backend("web", &[resetting.address, other.address]);
    let host = ingress("web").host("a.example", "web").annotation(ANNOTATION, "GRPC");
    objects.push(host.object());
    let world = World::single(objects).await;
    for _ in 0..6 {
        let answer = send(&mut connect(world.http()).await, request("a.example", "/reset")).await;
        assert_eq!((answer.status, &*answer.body), (200, "other"));
    }
    let mut bodies = Vec::new();
    for _ in 0..4 {
        let answer = send(&mut connect(world.http()).await, request("a.example", "/")).await;
        bodies.push(answer.body);
    }
    assert!(bodies.iter().any(|body| body == "resetting"), "it is passed over: {bodies:?}");
    assert_eq!(resetting.connections(), 1, "it goes on");
}
