//! Another process on the same addresses takes over: nobody is refused, nobody is reset.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use fairlead_ingress::{IngressConfig, Limits, Refused, Running, Timeouts, start};
use fairlead_state::{Key, Object};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    task::{JoinHandle, LocalSet, spawn_local},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    PATIENCE, World,
    client::{http1, http2, request, tls_on, trusting_anybody},
    config,
    objects::{IngressExt, backend, config_map, ingress},
    upstream::Upstream,
};

/// Longest time between second and third packet of a handshake in these tests.
const HALF_OPEN: Duration = Duration::from_millis(150);
/// Requests that are answered between one replacement and the next.
const ANSWERS_EACH: usize = 80;

/// Draining ends with the last client, which on a busy machine may be late: idle connections are closed no
/// sooner than that.
fn timeouts() -> Timeouts {
    let (drain_linger_ms, drain_ms) = (10_000, 40_000);
    Timeouts { drain_accept_ms: 1_000, drain_linger_ms, drain_ms, ..Timeouts::default() }
}

fn web(upstream: &Upstream) -> Vec<Object> {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

/// Starts another one on the addresses of the world's; returns when it is ready.
async fn next(world: &World, config: IngressConfig) -> (Running, CancellationToken) {
    let config = IngressConfig {
        http_listen: vec![world.http()],
        https_listen: vec![world.https()],
        ..config
    };
    let cancel = CancellationToken::new();
    let next = start(config, world.snapshots.clone(), cancel.clone()).unwrap();
    let mut ready = next.ready();
    timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
    (next, cancel)
}

/// As a rolling update does: the next one is ready, then the old one is told to end.
async fn replace(world: &mut World, config: IngressConfig) {
    let (next, cancel) = next(world, config).await;
    std::mem::replace(&mut world.cancel, cancel).cancel();
    let mut old = std::mem::replace(&mut world.running, next);
    timeout(PATIENCE, old.ended()).await.unwrap().unwrap();
}

/// A connection whose third packet is held back: until something is written, or for 200 ms.
async fn half_open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // tcp_rcv_synsent_state_process: without quick ACKs the third packet waits for data.
    SockRef::from(&socket).set_tcp_quickack(false)?;
    let stream = socket.connect(address).await?;
    sleep(HALF_OPEN.mul_f64(rand::random())).await;
    Ok(stream)
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Clients that go on until stopped, and what went wrong.
#[derive(Clone, Default)]
struct Clients {
    stop: Rc<Cell<bool>>,
    good: Rc<Cell<usize>>,
    one_answered: Rc<Notify>,
    bad: Rc<RefCell<Vec<String>>>,
    tasks: Rc<RefCell<Vec<JoinHandle<()>>>>,
}

impl Clients {
    fn add<F, R>(&self, what: &'static str, number: usize, client: F)
    where
        F: Fn(Self) -> R + Clone + 'static,
        R: Future<Output = Outcome> + 'static,
    {
        for _ in 0..number {
            let (clients, client) = (self.clone(), client.clone());
            let task = spawn_local(async move {
                while !clients.stop.get() {
                    if let Err(error) = client(clients.clone()).await {
                        clients.bad.borrow_mut().push(format!("{what}: {error}"));
                    }
                }
            });
            self.tasks.borrow_mut().push(task);
        }
    }

    fn answered(&self, status: u16) -> Outcome {
        self.good.set(self.good.get() + 1);
        self.one_answered.notify_one();
        if status == 200 { Ok(()) } else { Err(format!("status {status}").into()) }
    }

    /// Until so many requests more are answered.
    async fn go_on(&self, more: usize) {
        let wanted = self.good.get() + more;
        let answering = async {
            while self.good.get() < wanted {
                self.one_answered.notified().await;
            }
        };
        let in_time = timeout(PATIENCE, answering).await.is_ok();
        assert!(in_time, "{} of {wanted}: {:?}", self.good.get(), self.bad.borrow());
    }

    async fn end(self) -> (usize, Vec<String>) {
        self.stop.set(true);
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in tasks {
            timeout(PATIENCE, task).await.unwrap().unwrap();
        }
        (self.good.get(), self.bad.take())
    }
}

/// One request on a connection of its own, by bytes: every reset is seen.
async fn once_http1<S>(mut stream: S, clients: Clients) -> Outcome
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let asked = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    stream.write_all(asked).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or(b"000")).parse()?;
    clients.answered(status)
}

fn h2_request() -> Request<Full<Bytes>> {
    Request::builder().uri("https://a.example/").body(Full::default()).unwrap()
}

async fn encrypted(
    stream: TcpStream,
    protocol: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = trusting_anybody();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    tls_on(stream, "a.example", config).await
}

/// Requests with pauses on one connection until the server says that it closes.
async fn kept_http1(address: SocketAddr, pause: Duration, clients: Clients) -> Outcome {
    let mut sender = http1(half_open(address).await?).await;
    while !clients.stop.get() {
        if sender.ready().await.is_err() {
            return Err("closed without a word".into());
        }
        let answer = sender.send_request(request("a.example", "/")).await?;
        let last = answer.headers().get("connection").is_some_and(|value| value == "close");
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        clients.answered(status)?;
        if last {
            return Ok(());
        }
        sleep(pause).await;
    }
    Ok(())
}

/// Requests one after the other until the server goes away (GOAWAY), which fails none of them.
async fn kept_http2(address: SocketAddr, pause: Duration, clients: Clients) -> Outcome {
    let mut sender = http2(encrypted(half_open(address).await?, "h2").await?).await;
    while !clients.stop.get() && sender.ready().await.is_ok() {
        let answer = match sender.try_send_request(h2_request()).await {
            Ok(answer) => answer,
            // The client itself gives it back: GOAWAY came before it was sent.
            Err(error) if error.message().is_some() => return Ok(()),
            Err(error) => return told(&error.into_error()),
        };
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        clients.answered(status)?;
        sleep(pause).await;
    }
    Ok(())
}

/// RFC 9113 6.8: what came after the last stream of a GOAWAY was not processed; clients ask anew.
fn told(error: &hyper::Error) -> Outcome {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if cause.contains("not a result of an error") || cause.contains("refused stream") {
        return Ok(());
    }
    Err(format!("{error}: {cause}").into())
}

#[tokio::test]
async fn replaced_time_and_again_under_load_no_connection_is_refused_or_reset() {
    let upstream = Upstream::echo("web").await;
    let own = |threads| IngressConfig { threads: Some(threads), timeouts: timeouts(), ..config() };
    let mut world = World::with(own(2), web(&upstream)).await;
    let (http, https) = (world.http(), world.https());
    let clients = Clients::default();
    let load = async {
        clients.add("new, HTTP", 2, move |clients| async move {
            once_http1(TcpStream::connect(http).await?, clients).await
        });
        clients.add("half open, HTTP", 40, move |clients| async move {
            once_http1(half_open(http).await?, clients).await
        });
        clients.add("half open, HTTPS", 20, move |clients| async move {
            let stream = encrypted(half_open(https).await?, "http/1.1").await?;
            once_http1(stream, clients).await
        });
        clients.add("half open, HTTP/2", 10, move |clients| async move {
            let mut sender = http2(encrypted(half_open(https).await?, "h2").await?).await;
            let answer = sender.send_request(h2_request()).await?;
            clients.answered(answer.status().as_u16())
        });
        for pause in [1, 250].map(Duration::from_millis) {
            clients.add("kept, HTTP", 4, move |clients| kept_http1(http, pause, clients));
            clients.add("kept, HTTP/2", 4, move |clients| kept_http2(https, pause, clients));
        }
        // As many threads, more, fewer.
        for threads in [2, 3, 1, 2, 4, 2] {
            clients.go_on(ANSWERS_EACH).await;
            replace(&mut world, own(threads)).await;
        }
        clients.go_on(ANSWERS_EACH).await;
        clients.clone().end().await
    };
    let (good, bad) = LocalSet::new().run_until(load).await;
    assert!(bad.is_empty(), "{} of {good}: {:#?}", bad.len(), &bad[..bad.len().min(20)]);
}

#[tokio::test]
async fn replaced_under_load_a_tcp_service_refuses_and_resets_no_connection() {
    let upstream = Upstream::echo("web").await;
    let own = || IngressConfig {
        tcp_services: Some(Key::new("default", "tcp")),
        timeouts: timeouts(),
        ..config()
    };
    let mut world = World::with(own(), backend("web", &[upstream.address])).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let port = address.port().to_string();
    world.apply(vec![config_map("tcp", &[(&port, "default/web:80")])]).await;
    let open = async { while TcpStream::connect(address).await.is_err() {} };
    timeout(PATIENCE, open).await.unwrap();
    let clients = Clients::default();
    let load = async {
        clients.add("new", 2, move |clients| async move {
            once_http1(TcpStream::connect(address).await?, clients).await
        });
        clients.add("half open", 40, move |clients| async move {
            once_http1(half_open(address).await?, clients).await
        });
        for _ in 0..4 {
            clients.go_on(ANSWERS_EACH).await;
            replace(&mut world, own()).await;
        }
        clients.go_on(ANSWERS_EACH).await;
        clients.clone().end().await
    };
    let (good, bad) = LocalSet::new().run_until(load).await;
    assert!(bad.is_empty(), "{} of {good}: {:#?}", bad.len(), &bad[..bad.len().min(20)]);
}

#[tokio::test]
async fn new_connections_go_to_the_newcomer_alone_and_to_all_its_threads() {
    const EACH_TIME: u64 = 60;
    let mut world = World::with(IngressConfig { timeouts: timeouts(), ..config() }, vec![]).await;
    // Half of it per thread: one thread alone could not hold them.
    let limits = Limits { connections_max: 100, ..Limits::default() };
    let config = IngressConfig { limits, timeouts: timeouts(), ..config() };
    let (next, cancel) = next(&world, config).await;
    let connect = async |next: &Running| {
        let wanted = next.counters().connections + EACH_TIME;
        let mut held = Vec::new();
        for _ in 0..EACH_TIME {
            held.push(TcpStream::connect(next.http()[0]).await.unwrap());
        }
        until(|| next.counters().connections >= wanted).await;
        assert_eq!(next.counters().refused[&Refused::ConnectionLimit], 0);
        drop(held);
        until(|| next.counters().connections_open == 0).await;
    };
    connect(&next).await;
    assert_eq!(world.running.counters().connections, 0);
    world.cancel.cancel();
    timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
    connect(&next).await;
    cancel.cancel();
}

async fn until(reached: impl Fn() -> bool) {
    let looking = async {
        while !reached() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap();
}
