//! Ports without HTTP, by ingress-nginx's ConfigMaps.

mod clients;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fairlead_ingress::{Counters, IngressConfig, Limits, Timeouts};
use fairlead_state::{
    Key, Kind, Object, ObjectRef,
    model::{EndpointSlice, Protocol, Service},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

use crate::support::{
    PATIENCE, World,
    client::{read_to_close, read_until},
    objects::{backend, config_map},
    upstream::{Upstream, dead},
};

/// More than the sockets on its way hold.
const MUCH_BYTES: usize = 64 << 20;

/// Answers each line with its name before it.
async fn lines(name: &'static str) -> Upstream {
    Upstream::raw(move |mut stream, counts| async move {
        counts.request();
        let mut bytes = [0; 256];
        while let Ok(n @ 1..) = stream.read(&mut bytes).await {
            let answer = [name.as_bytes(), b": ", &bytes[..n]].concat();
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn world(objects: Vec<Object>) -> World {
    limited(objects, Limits::default()).await
}

async fn limited(objects: Vec<Object>, limits: Limits) -> World {
    let key = |name: &str| Some(Key::new("default", name));
    let config = IngressConfig {
        threads: Some(1),
        tcp_services: key("tcp"),
        udp_services: key("udp"),
        limits,
        ..crate::support::config()
    };
    World::with(config, objects).await
}

/// A port that is free now.
async fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Ports are opened and closed by a thread of their own.
async fn connected(port: u16) -> TcpStream {
    let connecting = async {
        loop {
            match TcpStream::connect(at(port)).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, connecting).await.unwrap()
}

async fn closed(port: u16) {
    let closing = async {
        while TcpStream::connect(at(port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closing).await.unwrap();
}

#[tokio::test]
async fn tcp_ports_come_move_and_go_with_the_config_map() {
    let (a, b) = (lines("a").await, lines("b").await);
    let mut objects = backend("a", &[dead().await, a.address]);
    objects.extend(backend("b", &[b.address]));
    let mut world = world(objects).await;
    let number = port().await;
    let entry = |value: &str| vec![config_map("tcp", &[(&number.to_string(), value)])];
    world.apply(entry("default/a:80")).await;
    let mut kept = connected(number).await;
    for _ in 0..3 {
        let mut stream = connected(number).await;
        stream.write_all(b"hello\n").await.unwrap();
        assert_eq!(read_until(&mut stream, "\n").await, "a: hello\n");
    }
    world.apply(entry("default/b:http")).await;
    let moved = async {
        loop {
            let mut stream = connected(number).await;
            stream.write_all(b"hello\n").await.unwrap();
            if read_until(&mut stream, "\n").await == "b: hello\n" {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.unwrap();
    world.apply(vec![config_map("tcp", &[])]).await;
    closed(number).await;
    // What was open goes on.
    kept.write_all(b"still\n").await.unwrap();
    assert_eq!(read_until(&mut kept, "\n").await, "a: still\n");
}

/// Options stay, as guards are among them; a port that stayed would be open without anybody's word.
#[tokio::test]
async fn ports_of_a_config_map_that_is_deleted_are_closed_and_open_connections_go_on() {
    let upstream = lines("a").await;
    let mut world = world(backend("a", &[upstream.address])).await;
    let number = port().await;
    let entry = || vec![config_map("tcp", &[(&number.to_string(), "default/a:80")])];
    assert_eq!(world.reasons("tcp"), ["waiting: ConfigMap default/tcp does not exist"]);
    world.apply(entry()).await;
    let mut kept = connected(number).await;
    let key = Key::new("default", "tcp");
    world.delete(ObjectRef { kind: Kind::ConfigMap, key }).await;
    closed(number).await;
    kept.write_all(b"still\n").await.unwrap();
    assert_eq!(read_until(&mut kept, "\n").await, "a: still\n");
    assert_eq!(
        world.reasons("tcp"),
        [
            "waiting: ConfigMap default/tcp was deleted: its ports are closed until it is there again; \
          connections that are open go on"
        ]
    );
    world.apply(entry()).await;
    connected(number).await;
    assert_eq!(world.reasons("tcp"), Vec::<String>::new());
}

#[tokio::test]
async fn a_service_without_endpoints_closes_and_bad_entries_are_told() {
    let mut world = world(backend("a", &[])).await;
    let number = port().await;
    let name = number.to_string();
    let entries = [(&*name, "default/a:80"), ("x", "default/a:80"), ("9", "nonsense")];
    world.apply(vec![config_map("tcp", &entries)]).await;
    let mut stream = connected(number).await;
    assert_eq!(read_to_close(&mut stream).await, "");
    world.eventually(|counters| counters.streams_failed >= 1).await;
    let reasons = world.reasons("tcp");
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.starts_with("refused: entry")), "{reasons:?}");
    assert!(world.reasons("udp")[0].contains("does not exist"));
}

/// It was a line of the log, once, that named neither the entry nor whoever has the port.
#[tokio::test]
async fn bug_a_port_that_somebody_else_has_was_nowhere_told() {
    let upstream = lines("a").await;
    let key = |name: &str| Some(Key::new("default", name));
    let config = IngressConfig {
        threads: Some(1),
        tcp_services: key("tcp"),
        udp_services: key("udp"),
        holder_of: |address, is_udp| {
            (!is_udp).then(|| format!("postgres (pid {})", address.port()))
        },
        ..crate::support::config()
    };
    let mut world = World::with(config, backend("a", &[upstream.address])).await;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let numbers = [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port()];
    let free = port().await.to_string();
    let [tcp_name, udp_name] = numbers.map(|number| number.to_string());
    world
        .apply(vec![
            config_map("tcp", &[(&tcp_name, "default/a:80"), (&free, "default/a:http")]),
            config_map("udp", &[(&udp_name, "default/a:80")]),
        ])
        .await;
    let taken = "cannot be listened on: Address already in use (os error 98)";
    let expected = [
        format!(
            "waiting: entry {tcp_name} (default/a:80): TCP 127.0.0.1:{tcp_name} {taken}; the port is held by \
             postgres (pid {tcp_name}): stop that, or take another port"
        ),
        format!(
            "waiting: entry {udp_name} (default/a:80): UDP 127.0.0.1:{udp_name} {taken}; stop what holds it, or \
             take another port"
        ),
    ];
    let told = |told: Option<&String>, name: &str, world: &World| {
        let reasons = world.reasons(name);
        let mut own = reasons.iter().filter(|reason| reason.contains("cannot be listened on"));
        own.next() == told && own.next().is_none()
    };
    let both_told = async {
        while !(told(Some(&expected[0]), "tcp", &world) && told(Some(&expected[1]), "udp", &world))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let both_told = tokio::time::timeout(PATIENCE, both_told).await;
    assert!(both_told.is_ok(), "{:?} {:?}", world.reasons("tcp"), world.reasons("udp"));
    let before = world.running.explainer().told();
    drop((tcp, udp));
    connected(numbers[0]).await;
    let none_told = async {
        while !(told(None, "tcp", &world) && told(None, "udp", &world)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, none_told).await.unwrap();
    assert!(world.running.explainer().told() > before, "the Event is looked at again");
}

/// Whatever is lost, doubled or displaced of it is seen.
fn much() -> Vec<u8> {
    let words = (0..1 << 17).map(|word: u64| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut block: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    block.truncate(block.len() - 3);
    let mut much = block.repeat(MUCH_BYTES / block.len() + 1);
    much.truncate(MUCH_BYTES);
    much
}

/// Says what it is told, and the end of it, too.
async fn parrot() -> Upstream {
    Upstream::raw(|mut stream, counts| async move {
        counts.request();
        let (mut from, mut to) = stream.split();
        _ = tokio::io::copy(&mut from, &mut to).await;
        _ = to.shutdown().await;
    })
    .await
}

/// What comes back once all was said.
async fn all_back(stream: TcpStream, said: Vec<u8>) -> Vec<u8> {
    let (mut from, mut to) = stream.into_split();
    let saying = async {
        to.write_all(&said).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let both = async { tokio::join!(saying, from.read_to_end(&mut heard)) };
    tokio::time::timeout(PATIENCE, both).await.unwrap().1.unwrap();
    heard
}

#[tokio::test]
async fn much_goes_within_the_kernel_behind_what_is_said_of_who_connects() {
    let upstream = parrot().await;
    let mut world = world(backend("a", &[upstream.address])).await;
    let (goes, both) = (port().await, port().await);
    let names = (goes.to_string(), both.to_string());
    let entries = [(&*names.0, "default/a:80::PROXY"), (&*names.1, "default/a:80:PROXY:PROXY")];
    world.apply(vec![config_map("tcp", &entries)]).await;
    let told = "PROXY TCP4 192.0.2.1 198.51.100.1 1234 443\r\n".to_owned();
    for (number, told) in [(goes, None), (both, Some(told))] {
        let before = world.running.counters().spliced_bytes;
        let stream = connected(number).await;
        let own = stream.local_addr().unwrap().port();
        let said = [told.clone().unwrap_or_default().into_bytes(), much()].concat();
        let heard = all_back(stream, said).await;
        let made = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {number}\r\n");
        let expected = [told.unwrap_or(made).into_bytes(), much()].concat();
        assert!(heard == expected, "{} bytes", heard.len());
        let spliced = world.running.counters().spliced_bytes - before;
        assert!(spliced > MUCH_BYTES as u64 / 2, "{spliced} bytes, of both ways");
    }
}

/// A world that is about to leave, and its only port.
async fn leaving(upstream: &Upstream, drain_ms: u64) -> (World, u16) {
    let timeouts = Timeouts { drain_accept_ms: 10, drain_ms, ..Timeouts::default() };
    let tcp_services = Some(Key::new("default", "tcp"));
    let config = IngressConfig { tcp_services, timeouts, ..crate::support::config() };
    let mut world = World::with(config, backend("a", &[upstream.address])).await;
    let number = port().await;
    world.apply(vec![config_map("tcp", &[(&number.to_string(), "default/a:80")])]).await;
    (world, number)
}

#[tokio::test]
async fn what_is_on_its_way_when_draining_begins_arrives_and_its_end_is_the_last() {
    let upstream = parrot().await;
    let (mut world, number) = leaving(&upstream, 30_000).await;
    let (mut from, mut to) = connected(number).await.into_split();
    let saying = tokio::spawn(async move {
        to.write_all(&much()).await.unwrap();
        to.shutdown().await.unwrap();
    });
    // More than fits into sockets, and nothing of it is read yet.
    world.eventually(|counters| counters.spliced_bytes > 0).await;
    world.cancel.cancel();
    closed(number).await;
    let mut heard = Vec::new();
    let hearing = from.read_to_end(&mut heard);
    tokio::time::timeout(PATIENCE, hearing).await.unwrap().unwrap();
    assert!(heard == much(), "{} bytes", heard.len());
    saying.await.unwrap();
    tokio::time::timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_lives_until_the_drain_time_is_over() {
    let upstream = parrot().await;
    let (mut world, number) = leaving(&upstream, 600).await;
    let mut stream = connected(number).await;
    let begun = tokio::time::Instant::now();
    world.cancel.cancel();
    closed(number).await;
    stream.write_all(b"hello\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "\n").await, "hello\n");
    tokio::time::timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(600));
    assert_eq!(read_to_close(&mut stream).await, "");
}

fn udp_backend(name: &str, address: SocketAddr) -> Vec<Object> {
    let objects = backend(name, &[address]).into_iter();
    let made = objects.map(|object| match object {
        Object::Service(service) => {
            let mut ports = service.ports.to_vec();
            ports[0].protocol = Protocol::Udp;
            Object::Service(Arc::new(Service { ports: ports.into(), ..(*service).clone() }))
        }
        Object::EndpointSlice(slice) => {
            let mut ports = slice.ports.to_vec();
            ports[0].protocol = Protocol::Udp;
            let slice = EndpointSlice { ports: ports.into(), ..(*slice).clone() };
            Object::EndpointSlice(Arc::new(slice))
        }
        object => object,
    });
    made.collect()
}

/// Says what it got.
async fn echo() -> (SocketAddr, JoinHandle<()>) {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut bytes = [0; 256];
        while let Ok((n, from)) = server.recv_from(&mut bytes).await {
            let answer = [b"got ", &bytes[..n]].concat();
            server.send_to(&answer, from).await.unwrap();
        }
    });
    (address, serving)
}

#[tokio::test]
async fn udp_answers_come_back_to_whoever_asked() {
    let (address, serving) = echo().await;
    let mut world = world(udp_backend("dns", address)).await;
    let number = port().await;
    world.apply(vec![config_map("udp", &[(&number.to_string(), "default/dns:80")])]).await;
    let (first, second) = (client(at(number)).await, client(at(number)).await);
    for (socket, text) in [(&first, "one"), (&second, "two"), (&first, "three")] {
        assert_eq!(asked(socket, text).await, format!("got {text}"));
    }
    assert_eq!(world.running.counters().streams, 2, "one endpoint for each client");
    serving.abort();
}

#[tokio::test]
async fn udp_answers_come_from_the_address_that_was_asked() {
    let (address, serving) = echo().await;
    let any: Vec<SocketAddr> = ["0.0.0.0:0", "[::]:0"].map(|any| any.parse().unwrap()).into();
    let config = IngressConfig {
        http_listen: any.clone(),
        https_listen: any,
        udp_services: Some(Key::new("default", "udp")),
        ..crate::support::config()
    };
    let mut world = World::with(config, udp_backend("dns", address)).await;
    let number = port().await;
    world.apply(vec![config_map("udp", &[(&number.to_string(), "default/dns:80")])]).await;
    for asked_address in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"] {
        // Connected: what comes from elsewhere is not taken.
        let socket = client(SocketAddr::new(asked_address.parse().unwrap(), number)).await;
        assert_eq!(asked(&socket, asked_address).await, format!("got {asked_address}"));
    }
    serving.abort();
}

/// Each client costs a socket for a minute, and anybody may write any address into a datagram.
#[tokio::test]
async fn attack_spoofed_clients_push_out_who_was_silent_longest_and_nobody_elses() {
    let (address, serving) = echo().await;
    let limits = Limits { udp_clients_max: 3, udp_clients_per_service_max: 2, ..Limits::default() };
    let mut world = limited(udp_backend("dns", address), limits).await;
    let (flooded, other) = (port().await, port().await);
    let names = (flooded.to_string(), other.to_string());
    let entries = [(&*names.0, "default/dns:80"), (&*names.1, "default/dns:80")];
    world.apply(vec![config_map("udp", &entries)]).await;
    let own = client(at(other)).await;
    let mut known = Vec::new();
    for _ in 0..4 {
        known.push(client(at(flooded)).await);
    }
    // Who asks; clients seen, and pushed out, by then.
    for (name, socket, streams, displaced) in [
        ("another service's", &own, 1, 0),
        ("first", &known[0], 2, 0),
        ("second", &known[1], 3, 0),
        ("first", &known[0], 3, 0),
        ("third", &known[2], 4, 1),
        ("first", &known[0], 4, 1),
        ("fourth", &known[3], 5, 2),
        ("third, anew", &known[2], 6, 3),
        ("another service's", &own, 6, 3),
    ] {
        assert_eq!(asked(socket, name).await, format!("got {name}"));
        let counters = world.running.counters();
        assert_eq!((counters.streams, counters.streams_displaced), (streams, displaced), "{name}");
    }
    serving.abort();
}

#[tokio::test]
async fn a_client_whose_endpoint_cannot_be_reached_pushes_out_nobody() {
    let (address, serving) = echo().await;
    // EACCES for sockets that did not ask to broadcast.
    let nowhere = "255.255.255.255:53".parse().unwrap();
    let limits = Limits { udp_clients_max: 1, ..Limits::default() };
    let objects = [udp_backend("dns", address), udp_backend("broken", nowhere)].concat();
    let mut world = limited(objects, limits).await;
    let (good, bad) = (port().await, port().await);
    let names = (good.to_string(), bad.to_string());
    let entries = [(&*names.0, "default/dns:80"), (&*names.1, "default/broken:80")];
    world.apply(vec![config_map("udp", &entries)]).await;
    let [known, unlucky] = [client(at(good)).await, client(at(bad)).await];
    assert_eq!(asked(&known, "one").await, "got one");
    let has_failed = |counters: &Counters| {
        let _ = unlucky.try_send(b"?");
        counters.streams_failed >= 1
    };
    world.eventually(has_failed).await;
    assert_eq!(asked(&known, "two").await, "got two");
    let counters = world.running.counters();
    assert_eq!((counters.streams, counters.streams_displaced), (1, 0), "known still");
    serving.abort();
}

async fn client(to: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

/// Asks again while the port is being opened.
async fn asked(socket: &UdpSocket, text: &str) -> String {
    let asking = async {
        let mut bytes = [0; 256];
        loop {
            let _ = socket.send(text.as_bytes()).await;
            let wait = Duration::from_millis(200);
            if let Ok(Ok(n)) = tokio::time::timeout(wait, socket.recv(&mut bytes)).await {
                return String::from_utf8_lossy(&bytes[..n]).into_owned();
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}
