//! Who connects: by whose word, and how often.

use fairlead_ingress::{IngressConfig, Limits, ProxyProtocol};
use fairlead_state::Key;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{connected, limited, lines, port, world};
use crate::support::{
    PATIENCE, World,
    client::{read_to_close, read_until},
    objects::{backend, config_map},
};

#[tokio::test]
async fn who_connects_is_said_where_that_is_wished() {
    let upstream = lines("a").await;
    let mut world = world(backend("a", &[upstream.address])).await;
    let (goes, both) = (port().await, port().await);
    let names = (goes.to_string(), both.to_string());
    let entries = [(&*names.0, "default/a:80::PROXY"), (&*names.1, "default/a:80:PROXY:PROXY")];
    world.apply(vec![config_map("tcp", &entries)]).await;
    let mut stream = connected(goes).await;
    let own = stream.local_addr().unwrap().port();
    let expected = format!("a: PROXY TCP4 127.0.0.1 127.0.0.1 {own} {goes}\r\n");
    assert_eq!(read_until(&mut stream, "\n").await, expected);
    let mut stream = connected(both).await;
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.1 1234 443\r\n";
    stream.write_all(header).await.unwrap();
    let answer = read_until(&mut stream, "\n").await;
    assert_eq!(answer, "a: PROXY TCP4 192.0.2.1 198.51.100.1 1234 443\r\n");
    // Without the header that is required nothing is passed on.
    let mut stream = connected(both).await;
    stream.write_all(b"hello, no header here\n").await.unwrap();
    assert_eq!(read_to_close(&mut stream).await, "");
}

#[tokio::test]
async fn attack_who_is_none_of_the_named_balancers_says_in_vain_who_connects() {
    let upstream = lines("a").await;
    let balancers = |text: &str| [text.parse().unwrap()].into_iter().collect();
    for (case, proxy_protocol, trusted_proxies, is_believed) in [
        ("nobody is named", None, Default::default(), true),
        ("forwarding fields are another's", None, balancers("192.0.2.0/24"), false),
        ("they are this one's", None, balancers("127.0.0.0/8"), true),
        (
            "PROXY headers are another's",
            Some(balancers("192.0.2.0/24")),
            balancers("127.0.0.0/8"),
            false,
        ),
    ] {
        let config = IngressConfig {
            threads: Some(1),
            tcp_services: Some(Key::new("default", "tcp")),
            proxy_protocol: proxy_protocol.map(|trusted| ProxyProtocol { trusted }),
            trusted_proxies,
            ..crate::support::config()
        };
        let mut world = World::with(config, backend("a", &[upstream.address])).await;
        let number = port().await;
        let entry = (&*number.to_string(), "default/a:80:PROXY:PROXY");
        world.apply(vec![config_map("tcp", &[entry])]).await;
        let mut stream = connected(number).await;
        let own = stream.local_addr().unwrap().port();
        stream.write_all(b"PROXY TCP4 10.9.9.9 198.51.100.1 1234 443\r\n").await.unwrap();
        let told = match is_believed {
            true => "10.9.9.9 198.51.100.1 1234 443".to_owned(),
            false => format!("127.0.0.1 127.0.0.1 {own} {number}"),
        };
        let answer = read_until(&mut stream, "\n").await;
        assert_eq!(answer, format!("a: PROXY TCP4 {told}\r\n"), "{case}");
    }
}

#[tokio::test]
async fn attack_connections_of_one_address_are_counted_at_all_ports_together() {
    let upstream = lines("a").await;
    let max = std::num::NonZero::new(2);
    let limits = Limits { client_connections_max: max, ..Limits::default() };
    let mut world = limited(backend("a", &[upstream.address]), limits).await;
    let (one, other) = (port().await, port().await);
    let names = (one.to_string(), other.to_string());
    let entries = [(&*names.0, "default/a:80"), (&*names.1, "default/a:80:PROXY")];
    world.apply(vec![config_map("tcp", &entries)]).await;
    let said = |mut stream: TcpStream, text: &'static [u8]| async move {
        stream.write_all(text).await.unwrap();
        (read_until(&mut stream, "\n").await, stream)
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let (answer, stream) = said(connected(one).await, b"hello\n").await;
        assert_eq!(answer, "a: hello\n");
        held.push(stream);
    }
    let refused = |world: &World| {
        world.running.counters().refused[&fairlead_ingress::Refused::ClientConnectionLimit]
    };
    assert_eq!(read_to_close(&mut connected(one).await).await, "");
    assert_eq!(refused(&world), 1);
    // By a header that is believed it is another client's.
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.1 1234 443\r\nhello\n";
    assert_eq!(said(connected(other).await, header).await.0, "a: hello\n");
    // HTTP's are among them.
    let mut http = TcpStream::connect(world.http()).await.unwrap();
    assert_eq!(read_to_close(&mut http).await, "");
    assert_eq!(refused(&world), 2);
    drop(held);
    // What ends makes room.
    let room = async {
        loop {
            let mut stream = connected(one).await;
            let _ = stream.write_all(b"hello\n").await;
            if matches!(stream.read(&mut [0]).await, Ok(1)) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, room).await.unwrap();
}
