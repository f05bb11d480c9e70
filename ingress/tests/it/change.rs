//! Changes while requests run: none fails, none is slowed by a reload, for there is none.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::model::PathType::Prefix;
use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

use crate::{
    grpc,
    support::{
        World,
        client::{connect, get, read_until, request, send},
        config,
        objects::{
            Authority, IngressExt, Pod, backend, ingress, ingress_ref, service, slice, slice_ref,
        },
        upstream::Upstream,
    },
    websocket,
};

/// Requests one after the other on keep-alive connections until stopped; counts failures.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    progress: Arc<Notify>,
    tasks: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(address: SocketAddr, connections: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let progress = Arc::new(Notify::new());
        let tasks = (0..connections).map(|_| {
            let (stop, done, progress) = (stop.clone(), done.clone(), progress.clone());
            tokio::spawn(async move {
                let mut failed = 0;
                let mut sender = connect(address).await;
                while !stop.load(SeqCst) {
                    let answer = send(&mut sender, request("steady.example", "/")).await;
                    failed += usize::from(answer.status != 200);
                    done.fetch_add(1, SeqCst);
                    progress.notify_one();
                }
                failed
            })
        });
        let tasks = tasks.collect();
        Self { stop, done, progress, tasks }
    }

    /// Until this many more requests were answered.
    async fn run(&self, requests: usize) {
        let goal = self.done.load(SeqCst) + requests;
        while self.done.load(SeqCst) < goal {
            self.progress.notified().await;
        }
    }

    /// (answered, failed)
    async fn end(self) -> (usize, usize) {
        self.stop.store(true, SeqCst);
        let mut failed = 0;
        for task in self.tasks {
            failed += task.await.unwrap();
        }
        (self.done.load(SeqCst), failed)
    }
}

#[tokio::test]
async fn a_hundred_changes_of_routes_and_certificates_under_load_fail_no_request() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("steady").host("steady.example", "web").object());
    let mut world = World::new(objects).await;
    let load = Load::start(world.http(), 4);
    for i in 0..100 {
        let name = format!("change-{}", i % 7);
        let host = format!("{name}.example");
        match i % 3 {
            0 => {
                let ingress = ingress(&name).host(&host, "web").tls(&["t.example"], "cert");
                world.apply(vec![ingress.object()]).await;
                assert_eq!(get(world.http(), &host, "/").await.status, 308);
            }
            1 => world.apply(vec![authority.secret("cert", &["t.example"])]).await,
            _ => {
                let name = format!("change-{}", (i - 2) % 7);
                world.delete(ingress_ref(&name)).await;
                let answer = get(world.http(), &format!("{name}.example"), "/").await;
                assert_eq!(answer.status, 404);
            }
        }
        load.run(5).await;
    }
    let (answered, failed) = load.end().await;
    assert!(answered >= 500, "{answered}");
    assert_eq!(failed, 0, "of {answered}");
}

/// Both are open all the time. What changes is their Ingress, its certificate, who is beside their
/// endpoints, and others.
#[tokio::test]
async fn hundreds_of_changes_break_neither_a_websocket_nor_a_grpc_stream() {
    const CHANGES: usize = 500;
    const PREFIX: &str = "nginx.ingress.kubernetes.io";
    let (chat, calls) = (websocket::echoing().await, grpc::echoing().await);
    let beside = Upstream::echo("beside").await;
    let authority = Authority::new();
    let secrets = [(); 2].map(|()| authority.secret("cert", &["a.example"]));
    let of_chat = |size: &str| {
        let ingress = ingress("chat").rule("a.example", &[(Prefix, "/chat", "chat")]);
        let ingress = ingress.annotation(&format!("{PREFIX}/ssl-redirect"), "false");
        ingress.annotation(&format!("{PREFIX}/proxy-body-size"), size).object()
    };
    let of_calls = ingress("calls").rule("a.example", &[(Prefix, "/pkg.Service", "calls")]);
    let of_calls = of_calls.annotation(&format!("{PREFIX}/backend-protocol"), "GRPC");
    let mut objects = backend("chat", &[chat.address]);
    objects.extend(backend("calls", &[calls.address]));
    objects.extend([
        secrets[0].clone(),
        of_chat("1m"),
        of_calls.tls(&["a.example"], "cert").object(),
    ]);
    let mut world = World::single(objects).await;
    let mut socket = TcpStream::connect(world.http()).await.unwrap();
    socket.write_all(websocket::ASK).await.unwrap();
    assert!(read_until(&mut socket, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    assert_eq!(read_until(&mut socket, "hello").await, "hello");
    let mut sender = grpc::client(&world).await;
    let (response, mut parts) = grpc::opened(&mut sender).await;
    let mut body = response.into_body();
    for i in 0..CHANGES {
        let turn = i / 5 % 2;
        match i % 5 {
            0 => world.apply(vec![of_chat(["2m", "1m"][turn])]).await,
            1 => world.apply(vec![secrets[1 - turn].clone()]).await,
            2 => world.apply(vec![slice("chat", "beside", beside.address, Pod::Ready)]).await,
            3 => world.delete(slice_ref("chat", "beside")).await,
            _ => {
                let name = format!("other-{}", i % 7);
                let other = ingress(&name).host(&format!("{name}.example"), "chat");
                world.apply(vec![other.object()]).await;
            }
        }
        socket.write_all(b"ping!").await.unwrap();
        assert_eq!(read_until(&mut socket, "!").await, "ping!", "{i}");
        grpc::comes_back("part", &mut parts, &mut body).await;
    }
    assert_eq!((chat.connections(), calls.connections()), (1, 1));
    assert_eq!(world.running.counters().tunnels, 1);
}

#[tokio::test]
async fn a_rolling_update_under_load_fails_no_request() {
    let mut world =
        World::new(vec![service("web"), ingress("steady").host("steady.example", "web").object()])
            .await;
    let mut old = [Upstream::echo("web").await, Upstream::echo("web").await];
    for (upstream, suffix) in old.iter().zip(["0", "1"]) {
        world.apply(vec![slice("web", suffix, upstream.address, Pod::Ready)]).await;
    }
    let load = Load::start(world.http(), 4);
    for _ in 0..10 {
        for (pod, suffix) in old.iter_mut().zip(["0", "1"]) {
            let new = Upstream::echo("web").await;
            load.run(20).await;
            // The pod's place in the slice is taken before it goes away, and it goes away at once.
            world.apply(vec![slice("web", suffix, new.address, Pod::Ready)]).await;
            drop(std::mem::replace(pod, new));
        }
    }
    let (answered, failed) = load.end().await;
    assert_eq!(failed, 0, "of {answered}");
}

/// Pods without a preStop hook: they end first, and the EndpointSlice says so a while later.
#[tokio::test]
async fn naive_pods_in_a_rolling_update_fail_no_request() {
    for replicas in [1, 2] {
        let suffixes = ["0", "1"];
        let mut world = World::new(vec![
            service("web"),
            ingress("steady").host("steady.example", "web").object(),
        ])
        .await;
        let mut pods = Vec::new();
        for suffix in &suffixes[..replicas] {
            let pod = Upstream::echo("web").await;
            world.apply(vec![slice("web", suffix, pod.address, Pod::Ready)]).await;
            pods.push(pod);
        }
        let load = Load::start(world.http(), 4);
        for _ in 0..10 {
            for (pod, suffix) in pods.iter_mut().zip(suffixes) {
                load.run(20).await;
                // Requests that waited for it look every 10 ms.
                tokio::time::sleep(Duration::from_millis(30)).await;
                let new = Upstream::echo("web").await;
                let address = new.address;
                // In the middle of whatever it is doing.
                drop(std::mem::replace(pod, new));
                tokio::time::sleep(Duration::from_millis(30)).await;
                world.apply(vec![slice("web", suffix, address, Pod::Ready)]).await;
            }
        }
        let (answered, failed) = load.end().await;
        assert_eq!(failed, 0, "of {answered} with {replicas} pods");
    }
}

/// POST is never repeated once sent, so a pod must not be sent what it will not read.
#[tokio::test]
async fn a_pod_that_ended_is_sent_no_post_although_its_slice_still_names_it() {
    let mut world =
        World::new(vec![service("web"), ingress("web").host("a.example", "web").object()]).await;
    let mut pod = Upstream::echo("web").await;
    world.apply(vec![slice("web", "0", pod.address, Pod::Ready)]).await;
    let mut sender = connect(world.http()).await;
    for _ in 0..10 {
        let mut post = request("a.example", "/");
        *post.method_mut() = http::Method::POST;
        *post.body_mut() = Full::from("once");
        assert_eq!(send(&mut sender, post.clone()).await.who(), (200, "web"));
        let next = Upstream::echo("web").await;
        let address = next.address;
        std::mem::replace(&mut pod, next).leave().await;
        let apply = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            world.apply(vec![slice("web", "0", address, Pod::Ready)]).await;
        };
        let (answer, ()) = tokio::join!(send(&mut sender, post), apply);
        assert_eq!(answer.who(), (200, "web"));
    }
    assert_eq!(pod.requests(), 1);
}

/// The address of a pod whose sandbox is gone does not refuse: it is silent.
#[tokio::test]
async fn an_endpoint_removed_while_it_is_connected_to_is_given_up() {
    let (silent, _held) = silent_address().await;
    let upstream = Upstream::echo("web").await;
    let timeouts =
        Timeouts { upstream_connect_ms: 20_000, client_body_ms: 100, ..Timeouts::default() };
    let config = IngressConfig { timeouts, ..config() };
    let mut world = World::with(
        config,
        vec![
            service("web"),
            slice("web", "0", silent, Pod::Ready),
            ingress("web").host("a.example", "web").object(),
        ],
    )
    .await;
    let address = world.http();
    let waiting = tokio::spawn(async move { get(address, "a.example", "/").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    let begun = std::time::Instant::now();
    world.apply(vec![slice("web", "0", upstream.address, Pod::Ready)]).await;
    assert_eq!(waiting.await.unwrap().who(), (200, "web"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// A listener with a full queue: further SYNs are dropped.
pub(crate) async fn silent_address() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let listener = socket.listen(1).unwrap();
    let mut held = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await
    {
        held.push(connected.unwrap());
    }
    (address, (listener, held))
}

#[tokio::test]
async fn a_removed_endpoint_gets_no_new_request_and_finishes_the_one_it_has() {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (arrived.clone(), go_on.clone());
    let leaving = Upstream::serve(move |_| {
        let (arrived, go_on) = signals.clone();
        async move {
            arrived.notify_one();
            go_on.notified().await;
            Response::new(Full::from(Bytes::from_static(b"leaving")))
        }
    })
    .await;
    let staying = Upstream::echo("staying").await;
    let mut world = World::single(vec![
        service("web"),
        slice("web", "0", leaving.address, Pod::Ready),
        ingress("web").host("a.example", "web").object(),
    ])
    .await;
    let address = world.http();
    let in_flight = tokio::spawn(async move { get(address, "a.example", "/").await });
    arrived.notified().await;
    world.apply(vec![slice("web", "1", staying.address, Pod::Ready)]).await;
    world.delete(slice_ref("web", "0")).await;
    for _ in 0..10 {
        assert_eq!(get(world.http(), "a.example", "/").await.who(), (200, "staying"));
    }
    go_on.notify_one();
    assert_eq!(in_flight.await.unwrap().who(), (200, "leaving"));
    assert_eq!(leaving.requests(), 1);
}

#[tokio::test]
async fn a_request_in_flight_keeps_the_route_it_began_with() {
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
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    let mut world = World::new(objects).await;
    let address = world.http();
    let in_flight = tokio::spawn(async move { get(address, "a.example", "/").await });
    arrived.notified().await;
    world.delete(ingress_ref("web")).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 404);
    go_on.notify_one();
    assert_eq!(in_flight.await.unwrap().who(), (200, "done"));
}
