//! Clients that leave while they are served, and deadlines that end what they have begun.

use fairlead_ingress::{IngressConfig, Limits, RouteCounters, Timeouts};
use fairlead_state::Object;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use crate::{
    metrics::served,
    support::{
        PATIENCE, World,
        client::{Stream, read_to_close, tls_on, trusting_anybody},
        config,
        objects::{IngressExt, backend, ingress},
        upstream::Upstream,
    },
};

const BACKEND_PROTOCOL: &str = "nginx.ingress.kubernetes.io/backend-protocol";
/// More than is read at once, and less than the kernel holds.
const MANY_BYTES: usize = 40 << 10;

/// What an endpoint tells of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Head,
    /// All of its body.
    Body,
    /// Its body will never be whole.
    Broken,
    /// It was given up.
    GivenUp,
}

/// Tells of a request's end.
struct Served(UnboundedSender<Told>);

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.0.send(Told::GivenUp);
    }
}

/// An endpoint, and what it tells.
struct Endpoint {
    upstream: Upstream,
    is_h2: bool,
    told: UnboundedReceiver<Told>,
}

impl Endpoint {
    /// Reads requests, and answers none.
    async fn silent(is_h2: bool) -> Self {
        let (tell, told) = unbounded_channel();
        let answer = move |request: Request<Incoming>| {
            let served = Served(tell.clone());
            async move {
                _ = served.0.send(Told::Head);
                read(request, &served.0).await;
                std::future::pending::<Response<Full<Bytes>>>().await
            }
        };
        let upstream = match is_h2 {
            false => Upstream::serve(answer).await,
            true => Upstream::serve2(answer).await,
        };
        Self { upstream, is_h2, told }
    }

    /// By HTTP/2: answers first, and reads on.
    async fn hasty() -> Self {
        let (tell, told) = unbounded_channel();
        let answer = move |request: Request<Incoming>| {
            let tell = tell.clone();
            async move {
                tokio::spawn(async move { read(request, &tell).await });
                Response::new(Full::new(Bytes::from("early")))
            }
        };
        Self { upstream: Upstream::serve2(answer).await, is_h2: true, told }
    }

    fn objects(&self) -> Vec<Object> {
        let protocol = if self.is_h2 { "GRPC" } else { "HTTP" };
        let ingress = ingress("web").host("a.example", "web");
        let mut objects = backend("web", &[self.upstream.address]);
        objects.push(ingress.annotation(BACKEND_PROTOCOL, protocol).object());
        objects
    }

    async fn tells(&mut self, expected: Told, name: &str) {
        let told = timeout(PATIENCE, self.told.recv()).await;
        assert_eq!(told, Ok(Some(expected)), "{name}: in time, and as expected");
    }
}

async fn read(request: Request<Incoming>, tell: &UnboundedSender<Told>) {
    let body = request.into_body().collect().await;
    _ = tell.send(if body.is_ok() { Told::Body } else { Told::Broken });
}

async fn connected(world: &World, is_tls: bool) -> Box<dyn Stream> {
    let address = if is_tls { world.https() } else { world.http() };
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match is_tls {
        false => Box::new(stream),
        true => Box::new(tls_on(stream, "a.example", trusting_anybody()).await.unwrap()),
    }
}

/// nginx: the client left.
async fn is_499(world: &World, name: &str) {
    let count = |routes: &[RouteCounters]| -> usize {
        routes.iter().map(|route| route.requests.len()).sum()
    };
    let routes = served(world, |routes| count(routes) == 1).await;
    let kinds: Vec<_> = routes[0].requests.keys().map(|kind| kind.status).collect();
    assert_eq!(kinds, [499], "{name}");
}

/// With HTTP/2 a task of the endpoint's connection reads it.
#[tokio::test]
async fn bug_who_leaves_is_seen_whoever_read_his_request_to_its_end() {
    for is_h2 in [false, true] {
        let name = if is_h2 { "HTTP/2" } else { "HTTP/1" };
        let mut endpoint = Endpoint::silent(is_h2).await;
        let world = World::single(endpoint.objects()).await;
        let mut client = connected(&world, false).await;
        let head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\n";
        client.write_all(head).await.unwrap();
        endpoint.tells(Told::Head, name).await;
        client.write_all(b"body").await.unwrap();
        endpoint.tells(Told::Body, name).await;
        drop(client);
        endpoint.tells(Told::GivenUp, name).await;
        is_499(&world, name).await;
    }
}

/// nginx is told of the end (EPOLLRDHUP), whatever is to be read before it.
#[tokio::test]
async fn attack_what_is_sent_behind_a_request_does_not_hide_that_its_client_leaves() {
    let many = "x".repeat(MANY_BYTES);
    let post = "POST /next HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n";
    for (name, behind) in [
        ("nothing", String::new()),
        ("a byte", "G".to_owned()),
        ("a request", "GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned()),
        ("more than is read", format!("{post}{many}")),
    ] {
        for is_tls in [false, true] {
            let name = format!("{name}, TLS: {is_tls}");
            let mut endpoint = Endpoint::silent(false).await;
            let world = World::single(endpoint.objects()).await;
            let mut client = connected(&world, is_tls).await;
            let get = format!("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n{behind}");
            client.write_all(get.as_bytes()).await.unwrap();
            client.flush().await.unwrap();
            endpoint.tells(Told::Head, &name).await;
            endpoint.tells(Told::Body, &name).await;
            drop(client);
            endpoint.tells(Told::GivenUp, &name).await;
            is_499(&world, &name).await;
            assert_eq!(endpoint.upstream.requests(), 1, "{name}");
        }
    }
}

/// Whoever reads its body has a part in the connection, and the endpoint would wait for ever.
#[tokio::test]
async fn bug_a_connection_ends_although_an_endpoint_of_http2_reads_on() {
    for (name, connection, requests_max, late) in [
        ("a deadline", "", u64::MAX, 1),
        ("the client's last request", "Connection: close\r\n", u64::MAX, 0),
        ("the last that may be", "", 1, 0),
    ] {
        let mut endpoint = Endpoint::hasty().await;
        let timeouts = Timeouts { client_body_ms: 200, ..Timeouts::default() };
        let limits = Limits { requests_per_connection_max: requests_max, ..Limits::default() };
        let config = IngressConfig { threads: Some(1), timeouts, limits, ..config() };
        let world = World::with(config, endpoint.objects()).await;
        let mut client = connected(&world, false).await;
        let part = format!(
            "POST / HTTP/1.1\r\nHost: a.example\r\n{connection}Content-Length: 1000\r\n\r\npart"
        );
        client.write_all(part.as_bytes()).await.unwrap();
        let answer = read_to_close(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("early"), "{name}");
        endpoint.tells(Told::Broken, name).await;
        world.eventually(|counters| counters.connections_open == 0).await;
        assert_eq!(world.running.counters().client_timeouts, late, "{name}");
    }
}
