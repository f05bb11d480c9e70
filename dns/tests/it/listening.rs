//! What a server block says of its own sockets: `bind`, ports, and `bufsize`.

use std::net::{SocketAddr, TcpListener};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};

use crate::{
    contract::objects,
    sockets::{BIG, big, with_edns},
    world::{World, query, tcp, text, udp, udp_bytes},
};

const A: RecordType = RecordType::A;

/// A port that nobody has at the loopback addresses now.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if std::net::UdpSocket::bind(("127.0.0.2", port)).is_ok() {
            return port;
        }
    }
}

#[tokio::test]
async fn a_block_with_bind_answers_at_its_own_addresses_and_nowhere_else() {
    let port = free_port();
    let corefile = format!(
        ".:53 {{\n kubernetes cluster.local\n}}\n\
         example.org:{port} {{\n bind 127.0.0.2\n hosts {{\n 192.0.2.7 www.example.org\n }}\n}}\n"
    );
    let world = World::by(&corefile, objects()).await;
    let bound = SocketAddr::new("127.0.0.2".parse().unwrap(), port);
    let asked = query("www.example.org.", A);
    for reply in [udp(bound, &asked).await, tcp(bound, &asked).await] {
        assert_eq!(text(&reply.answers), ["www.example.org. A 192.0.2.7"], "{reply}");
    }
    // Names of the other block are not asked for here, nor these there.
    for (server, name) in [(bound, "web.demo.svc.cluster.local."), (world.v4(), "www.example.org.")]
    {
        let reply = udp(server, &query(name, A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused, "{server}: {reply}");
    }
    let elsewhere = SocketAddr::new("127.0.0.3".parse().unwrap(), port);
    assert!(TcpListener::bind(elsewhere).is_ok(), "nobody listens there");
    world.end().await;
}

#[tokio::test]
async fn bufsize_is_the_largest_reply_by_udp_whatever_the_client_takes() {
    let corefile = ".:53 {\n kubernetes cluster.local\n bufsize 700\n}\n";
    let world = World::by(corefile, big()).await;
    for (payload, limit) in [(None, 512), (Some(600), 600), (Some(700), 700), (Some(4096), 700)] {
        let asked = query(BIG, A);
        let asked = payload.map_or(asked.clone(), |bytes| with_edns(asked, bytes, false));
        let bytes = udp_bytes(world.v4(), &asked.to_vec().unwrap()).await;
        assert!(bytes.len() <= limit && bytes.len() > limit - 80, "{payload:?}: {}", bytes.len());
        assert!(Message::from_vec(&bytes).unwrap().metadata.truncation, "{payload:?}");
    }
    let whole = tcp(world.v4(), &query(BIG, A)).await;
    assert!(!whole.metadata.truncation, "TCP has room");
    world.end().await;
}
