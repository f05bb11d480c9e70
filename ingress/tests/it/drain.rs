//! The beginning and the end: nothing is served too early, nothing is dropped on the way out.

use std::{sync::Arc, time::Duration};

use fairlead_ingress::{IngressConfig, IngressError, Timeouts, start};
use fairlead_state::{Change, Kind, Store};
use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    PATIENCE, World,
    client::{connect, get, get2, http2, request, send, tls, trusting_anybody},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

/// Answers when told to.
struct Gated {
    upstream: Upstream,
    arrived: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Gated {
    async fn new() -> Self {
        let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let signals = (arrived.clone(), go_on.clone());
        let upstream = Upstream::serve(move |_| {
            let (arrived, go_on) = signals.clone();
            async move {
                arrived.notify_one();
                go_on.notified().await;
                Response::new(Full::from(Bytes::from_static(b"done")))
            }
        })
        .await;
        Self { upstream, arrived, go_on }
    }

    async fn world(&self, timeouts: Timeouts) -> World {
        let mut objects = backend("web", &[self.upstream.address]);
        objects.push(ingress("web").host("a.example", "web").object());
        World::with(IngressConfig { timeouts, ..config() }, objects).await
    }
}

#[tokio::test]
async fn nothing_listens_before_the_first_snapshot() {
    let (mut store, snapshots) = Store::new([Kind::Ingress]);
    let cancel = CancellationToken::new();
    let running = start(config(), snapshots, cancel).unwrap();
    let refused = TcpStream::connect(running.http()[0]).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(!*running.ready().borrow());
    let (objects, refused) = (vec![], vec![]);
    store.apply([Change::Replace { kind: Kind::Ingress, objects, refused }]);
    let mut ready = running.ready();
    timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
    assert_eq!(get(running.http()[0], "a.example", "/").await.status, 404);
}

#[tokio::test]
async fn the_last_snapshot_stays_in_force_when_its_source_is_gone() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    let World { store, snapshots, running, cancel } = World::new(objects).await;
    drop((store, snapshots));
    assert_eq!(get(running.http()[0], "a.example", "/").await.status, 200);
    drop(cancel);
}

#[tokio::test]
async fn draining_finishes_what_is_open_and_takes_nothing_new() {
    let gated = Gated::new().await;
    let timeouts = Timeouts { drain_accept_ms: 50, drain_linger_ms: 50, ..Timeouts::default() };
    let mut world = gated.world(timeouts).await;
    let (http, https) = (world.http(), world.https());

    let mut h1 = connect(http).await;
    let h1 = tokio::spawn(async move { send(&mut h1, request("a.example", "/")).await });
    timeout(PATIENCE, gated.arrived.notified()).await.unwrap();
    let mut alpn = trusting_anybody();
    alpn.alpn_protocols = vec![b"h2".to_vec()];
    let mut h2 = http2(tls(https, "a.example", alpn).await.unwrap()).await;
    let h2 = tokio::spawn(async move { get2(&mut h2, "a.example", "/").await });
    timeout(PATIENCE, gated.arrived.notified()).await.unwrap();
    // Accepted and silent: must not hold up the end.
    let mut idle = TcpStream::connect(http).await.unwrap();

    let mut ready = world.running.ready();
    world.cancel.cancel();
    timeout(PATIENCE, ready.wait_for(|ready| !*ready)).await.unwrap().unwrap();
    let mut end = [0; 1];
    assert_eq!(timeout(PATIENCE, idle.read(&mut end)).await.unwrap().unwrap(), 0);
    // Each worker closes its own listener at its own time.
    let closed = async { while TcpStream::connect(http).await.is_ok() {} };
    timeout(PATIENCE, closed).await.expect("no listener is left");

    gated.go_on.notify_one();
    gated.go_on.notify_one();
    let answers = async {
        loop {
            gated.go_on.notify_waiters();
            if h1.is_finished() && h2.is_finished() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, answers).await.unwrap();
    let (h1, h2) = (h1.await.unwrap(), h2.await.unwrap());
    assert_eq!((h1.status, h2.status), (200, 200));
    assert_eq!(h1.headers["connection"], "close");
    assert!(!h2.headers.contains_key("connection"));
    timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
}

/// A client that sends its next request just as draining begins gets an answer, not a reset.
#[tokio::test]
async fn an_idle_connection_may_bring_one_more_request_while_draining() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    let timeouts = Timeouts { drain_accept_ms: 0, drain_linger_ms: 10_000, ..Timeouts::default() };
    let mut world = World::with(IngressConfig { timeouts, ..config() }, objects).await;
    let mut sender = connect(world.http()).await;
    assert_eq!(send(&mut sender, request("a.example", "/")).await.status, 200);
    let mut ready = world.running.ready();
    world.cancel.cancel();
    timeout(PATIENCE, ready.wait_for(|ready| !*ready)).await.unwrap().unwrap();
    let answer = send(&mut sender, request("a.example", "/")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["connection"], "close");
    timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_open_after_the_drain_time_is_cut() {
    let gated = Gated::new().await;
    let timeouts = Timeouts { drain_linger_ms: 10, drain_ms: 100, ..Timeouts::default() };
    let mut world = gated.world(timeouts).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    timeout(PATIENCE, gated.arrived.notified()).await.unwrap();
    world.cancel.cancel();
    timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_a_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (_store, snapshots) = Store::new([Kind::Ingress]);
    let config = IngressConfig { http_listen: vec![address], ..config() };
    let error = start(config, snapshots.clone(), CancellationToken::new()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("stop what holds it"), "{text}");
    let nothing = IngressConfig::default();
    let error = start(nothing, snapshots, CancellationToken::new()).unwrap_err();
    assert!(matches!(error, IngressError::NoListener), "{error}");
}
