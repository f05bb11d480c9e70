//! Another process on the same addresses takes over: nobody is refused, nobody is reset.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
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

/// How many clients of a kind there are, and what they have been answered.
struct Kind {
    clients: usize,
    answers: usize,
}

/// Clients that go on until stopped, and what went wrong.
#[derive(Clone, Default)]
struct Clients {
    stop: Rc<Cell<bool>>,
    kinds: Rc<RefCell<BTreeMap<&'static str, Kind>>>,
    one_answered: Rc<Notify>,
    bad: Rc<RefCell<Vec<String>>>,
    tasks: Rc<RefCell<Vec<JoinHandle<()>>>>,
}

/// One of them, by its kind.
#[derive(Clone)]
struct Client {
    kind: &'static str,
    all: Clients,
}

impl Clients {
    fn add<F, R>(&self, kind: &'static str, number: usize, client: F)
    where
        F: Fn(Client) -> R + Clone + 'static,
        R: Future<Output = Outcome> + 'static,
    {
        let other = self.kinds.borrow_mut().insert(kind, Kind { clients: number, answers: 0 });
        assert!(other.is_none(), "two kinds are called {kind}");
        for _ in 0..number {
            let (own, client) = (Client { kind, all: self.clone() }, client.clone());
            let task = spawn_local(async move {
                while !own.is_stopped() {
                    if let Err(error) = client(own.clone()).await {
                        own.all.bad.borrow_mut().push(format!("{kind}: {error}"));
                    }
                }
            });
            self.tasks.borrow_mut().push(task);
        }
    }

    fn of_each(&self, count: impl Fn(&Kind) -> usize) -> BTreeMap<&'static str, usize> {
        self.kinds.borrow().iter().map(|(name, kind)| (*name, count(kind))).collect()
    }

    /// Until each kind was answered once more than it has clients: at least one of them has asked after this began.
    async fn go_on(&self) {
        let wanted = self.of_each(|kind| kind.answers + kind.clients + 1);
        let answers = || self.of_each(|kind| kind.answers);
        let is_enough = || answers().iter().all(|(kind, answers)| *answers >= wanted[kind]);
        let answering = async {
            while !is_enough() {
                self.one_answered.notified().await;
            }
        };
        let in_time = timeout(PATIENCE, answering).await.is_ok();
        assert!(in_time, "{:?} of {wanted:?}: {:?}", answers(), self.bad.borrow());
    }

    /// No connection was refused or reset, and no answer was anything but good.
    async fn end(self) {
        self.stop.set(true);
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in tasks {
            timeout(PATIENCE, task).await.unwrap().unwrap();
        }
        let (answers, bad) = (self.of_each(|kind| kind.answers), self.bad.take());
        assert!(bad.is_empty(), "{} of {answers:?}: {:#?}", bad.len(), &bad[..bad.len().min(20)]);
    }
}

impl Client {
    fn is_stopped(&self) -> bool {
        self.all.stop.get()
    }

    fn answered(&self, status: u16) -> Outcome {
        self.all.kinds.borrow_mut().get_mut(self.kind).unwrap().answers += 1;
        self.all.one_answered.notify_one();
        if status == 200 { Ok(()) } else { Err(format!("status {status}").into()) }
    }
}

/// One request on a connection of its own, by bytes: every reset is seen.
async fn once_http1<S>(mut stream: S, client: Client) -> Outcome
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let asked = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    stream.write_all(asked).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or(b"000")).parse()?;
    client.answered(status)
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
async fn kept_http1(address: SocketAddr, pause: Duration, client: Client) -> Outcome {
    let mut sender = http1(half_open(address).await?).await;
    while !client.is_stopped() {
        if sender.ready().await.is_err() {
            return Err("closed without a word".into());
        }
        let answer = sender.send_request(request("a.example", "/")).await?;
        let last = answer.headers().get("connection").is_some_and(|value| value == "close");
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        client.answered(status)?;
        if last {
            return Ok(());
        }
        sleep(pause).await;
    }
    Ok(())
}

/// Requests one after the other until the server goes away (GOAWAY), which fails none of them.
async fn kept_http2(address: SocketAddr, pause: Duration, client: Client) -> Outcome {
    let mut sender = http2(encrypted(half_open(address).await?, "h2").await?).await;
    while !client.is_stopped() && sender.ready().await.is_ok() {
        let answer = match sender.try_send_request(h2_request()).await {
            Ok(answer) => answer,
            // The client itself gives it back: GOAWAY came before it was sent.
            Err(error) if error.message().is_some() => return Ok(()),
            Err(error) => return told(&error.into_error()),
        };
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        client.answered(status)?;
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
    let load = async {
        let clients = Clients::default();
        clients.add("new, HTTP", 2, move |client| async move {
            once_http1(TcpStream::connect(http).await?, client).await
        });
        clients.add("half open, HTTP", 40, move |client| async move {
            once_http1(half_open(http).await?, client).await
        });
        clients.add("half open, HTTPS", 20, move |client| async move {
            let stream = encrypted(half_open(https).await?, "http/1.1").await?;
            once_http1(stream, client).await
        });
        clients.add("half open, HTTP/2", 10, move |client| async move {
            let mut sender = http2(encrypted(half_open(https).await?, "h2").await?).await;
            let answer = sender.send_request(h2_request()).await?;
            client.answered(answer.status().as_u16())
        });
        for (pause, kept1, kept2) in [
            (1, "kept and busy, HTTP", "kept and busy, HTTP/2"),
            (250, "kept and mostly idle, HTTP", "kept and mostly idle, HTTP/2"),
        ] {
            let pause = Duration::from_millis(pause);
            clients.add(kept1, 4, move |client| kept_http1(http, pause, client));
            clients.add(kept2, 4, move |client| kept_http2(https, pause, client));
        }
        // As many threads, more, fewer.
        for threads in [2, 3, 1, 2, 4, 2] {
            clients.go_on().await;
            replace(&mut world, own(threads)).await;
        }
        clients.go_on().await;
        clients.end().await;
    };
    LocalSet::new().run_until(load).await;
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
    let load = async {
        let clients = Clients::default();
        clients.add("new", 2, move |client| async move {
            once_http1(TcpStream::connect(address).await?, client).await
        });
        clients.add("half open", 40, move |client| async move {
            once_http1(half_open(address).await?, client).await
        });
        for _ in 0..4 {
            clients.go_on().await;
            replace(&mut world, own()).await;
        }
        clients.go_on().await;
        clients.end().await;
    };
    LocalSet::new().run_until(load).await;
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
