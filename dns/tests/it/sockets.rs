//! What the transports promise: sizes, truncation, letter case, addresses, limits, a clean end.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
};

use fairlead_dns::{DnsConfig, DnsError, DnsError::Taken, DropReason, Upstreams, start};
use fairlead_state::{Store, model::Object};
use hickory_proto::{
    op::{Edns, Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    contract::objects,
    world::{
        PATIENCE, World, namespace, query, service, slice, tcp, tcp_receive, tcp_send, text, udp,
        udp_bytes,
    },
};

const WEB: &str = "web.demo.svc.cluster.local.";
/// A headless Service of many endpoints.
pub const BIG: &str = "big.demo.svc.cluster.local.";
pub const BIG_ENDPOINTS: usize = 300;

pub fn big() -> Vec<Object> {
    let addresses: Vec<_> =
        (0..BIG_ENDPOINTS).map(|i| format!("10.2.{}.{}", i / 256, i % 256)).collect();
    let endpoints: Vec<_> = addresses.iter().map(|address| (address.as_str(), "", true)).collect();
    vec![
        namespace("demo"),
        service("demo", "big", &[], &[("p", 1)]),
        slice("demo", "big", "big-1", &[("p", 1)], &endpoints),
    ]
}

pub fn with_edns(mut message: Message, payload: u16, dnssec_ok: bool) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    edns.set_dnssec_ok(dnssec_ok);
    message.edns = Some(edns);
    message
}

#[tokio::test]
async fn both_families_and_both_transports_answer_alike() {
    let world = World::with(objects(), vec![]).await;
    let wanted = ["web.demo.svc.cluster.local. A 10.96.0.1"];
    for server in [world.v4(), world.v6()] {
        let asked = query(WEB, RecordType::A);
        assert_eq!(text(&udp(server, &asked).await.answers), wanted, "UDP {server}");
        assert_eq!(text(&tcp(server, &asked).await.answers), wanted, "TCP {server}");
    }
    world.end().await;
}

#[tokio::test]
async fn wildcard_sockets_of_both_families_share_a_port_and_reply_from_the_address_asked() {
    let v4 = World::unsynced(&config("0.0.0.0:0"));
    let port = v4.v4().port();
    let v6 = World::unsynced(&config(&format!("[::]:{port}")));
    // Clients are connected: a reply from another address would never reach them.
    for (world, address) in [(&v4, "127.0.0.1"), (&v4, "127.8.9.10"), (&v6, "::1")] {
        let server = SocketAddr::new(address.parse().unwrap(), world.v4().port());
        let reply = udp(server, &query("dns-version.cluster.local.", RecordType::TXT)).await;
        assert_eq!(reply.answers.len(), 1, "{server}");
        // The slow path replies by the same socket.
        let mut odd = query("dns-version.cluster.local.", RecordType::TXT);
        odd.metadata.op_code = hickory_proto::op::OpCode::Status;
        let reply = udp(server, &odd).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NotImp, "{server}");
    }
    v4.end().await;
    v6.end().await;
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_cut_between_records_and_complete_by_tcp() {
    let world = World::with(big(), vec![]).await;
    let cases = [
        (None, 512),
        // Less than 512 means 512 (RFC 6891 §6.2.3).
        (Some(100), 512),
        (Some(800), 800),
        (Some(1232), 1232),
        // More would be cut into fragments on the way.
        (Some(4096), 1232),
    ];
    for rtype in [RecordType::A, RecordType::SRV] {
        for (payload, limit) in cases {
            let asked = query(BIG, rtype);
            let asked = payload.map_or(asked.clone(), |p| with_edns(asked, p, false));
            let bytes = udp_bytes(world.v4(), &asked.to_vec().unwrap()).await;
            let reply = Message::from_vec(&bytes).unwrap();
            assert!(bytes.len() <= limit, "{rtype} {payload:?}: {}", bytes.len());
            assert!(bytes.len() > limit - 80, "{rtype} {payload:?}: room is used");
            assert!(reply.metadata.truncation, "{rtype} {payload:?}");
            assert!(!reply.answers.is_empty());
            assert_eq!(reply.edns.is_some(), payload.is_some(), "OPT stays");
        }
        let whole = tcp(world.v4(), &query(BIG, rtype)).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), BIG_ENDPOINTS, "{rtype}");
    }
    world.end().await;
}

#[tokio::test]
async fn additional_records_that_do_not_fit_are_left_out_without_tc() {
    let world = World::with(big()[..2].iter().cloned().chain([few()]).collect(), vec![]).await;
    let reply = udp(world.v4(), &query(BIG, RecordType::SRV)).await;
    assert_eq!(reply.answers.len(), 6);
    assert!(reply.additionals.len() < 6, "512 bytes do not hold all");
    assert!(!reply.metadata.truncation);
    world.end().await;
}

#[tokio::test]
async fn a_port_number_of_several_ports_is_one_record_however_many_there_are() {
    let names: Vec<_> = (0..600).map(|number| format!("p{number}")).collect();
    // 300 numbers, each twice.
    let ports: Vec<_> = names.iter().map(String::as_str).zip((1..=300).cycle()).collect();
    let one = [("10.2.0.1", "", true)];
    let objects = vec![
        namespace("demo"),
        service("demo", "wide", &["10.96.0.1"], &ports),
        service("demo", "big", &[], &ports),
        slice("demo", "big", "big-1", &ports[..400], &one),
        slice("demo", "big", "big-2", &ports[400..], &one),
    ];
    let world = World::with(objects, vec![]).await;
    let endpoint = format!("10-2-0-1.{BIG}");
    for name in ["wide.demo.svc.cluster.local.", BIG, &endpoint] {
        let reply = tcp(world.v4(), &query(name, RecordType::SRV)).await;
        let number = |record: &Record| match &record.data {
            RData::SRV(srv) => srv.port,
            other => panic!("{other}"),
        };
        let found: BTreeSet<_> = reply.answers.iter().map(number).collect();
        assert_eq!(reply.answers.len(), 300, "{name}");
        assert_eq!(found, (1..=300).collect(), "{name}");
    }
    // Of one of several names with a number there is one record, too.
    let reply = world.ask("_p0._tcp.wide.demo.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!(reply.answers.len(), 1, "{reply}");
    world.end().await;
}

fn few() -> Object {
    let addresses: Vec<_> = (1..7).map(|i| format!("10.2.0.{i}")).collect();
    let endpoints: Vec<_> = addresses.iter().map(|address| (address.as_str(), "", true)).collect();
    slice("demo", "big", "big-1", &[("p", 1)], &endpoints)
}

#[tokio::test]
async fn addresses_rotate_evenly_for_clients_that_ask_a_and_aaaa_in_turn() {
    let two = slice(
        "demo",
        "big",
        "big-1",
        &[("p", 1)],
        &[("10.2.0.1", "", true), ("10.2.0.2", "", true)],
    );
    let world = World::with(big()[..2].iter().cloned().chain([two]).collect(), vec![]).await;
    // One socket, one thread, as glibc does; counting turns would show A the same address for ever.
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(world.v4()).await.unwrap();
    let mut first = [0; 2];
    let mut buffer = [0; 512];
    for _ in 0..200 {
        for rtype in [RecordType::A, RecordType::AAAA] {
            client.send(&query(BIG, rtype).to_vec().unwrap()).await.unwrap();
            let received = timeout(PATIENCE, client.recv(&mut buffer)).await.unwrap().unwrap();
            let reply = Message::from_vec(&buffer[..received]).unwrap();
            if rtype == RecordType::A {
                let all: BTreeSet<_> = text(&reply.answers).into_iter().collect();
                assert_eq!(all.len(), 2);
                first[usize::from(reply.answers[0].data.to_string() == "10.2.0.2")] += 1;
            }
        }
    }
    assert!(first.iter().all(|count| *count > 50), "{first:?} of 200");
    world.end().await;
}

#[tokio::test]
async fn servers_rotate_too_and_bring_their_addresses_along() {
    // A client that takes the first, or a reply that was cut, would always mean the same ones.
    let named: [(&str, &str, bool); 4] = [
        ("10.2.0.1", "a", true),
        ("10.2.0.2", "b", true),
        ("10.2.0.3", "b", true),
        ("10.2.0.4", "", true),
    ];
    let endpoints = slice("demo", "big", "big-1", &[("p", 1), ("q", 2)], &named);
    let objects: Vec<_> = big()[..2].iter().cloned().chain([endpoints]).collect();
    for (loadbalance, wanted) in [("loadbalance", 3), ("", 1)] {
        let corefile = format!(".:53 {{\n kubernetes cluster.local\n {loadbalance}\n}}\n");
        let world = World::by(&corefile, objects.clone()).await;
        let mut first = BTreeSet::new();
        for _ in 0..100 {
            let asked = with_edns(query(BIG, RecordType::SRV), 1232, false);
            let reply = udp(world.v4(), &asked).await;
            assert_eq!(text(&reply.answers).len(), 6, "{reply}");
            let target = |record: &Record| match &record.data {
                RData::SRV(srv) => srv.target.clone(),
                other => panic!("{other}"),
            };
            // Both ports of a server stand together, and its addresses come first as well.
            assert_eq!(target(&reply.answers[0]), target(&reply.answers[1]), "{reply}");
            assert_eq!(target(&reply.answers[0]), reply.additionals[0].name, "{reply}");
            assert_eq!(reply.additionals.len(), 4, "{reply}");
            first.insert(target(&reply.answers[0]).to_string());
        }
        assert_eq!(first.len(), wanted, "{loadbalance}: {first:?}");
        world.end().await;
    }
}

#[tokio::test]
async fn edns_is_answered_in_kind() {
    let world = World::with(objects(), vec![]).await;
    for dnssec_ok in [false, true] {
        let reply = udp(world.v4(), &with_edns(query(WEB, RecordType::A), 1232, dnssec_ok)).await;
        let edns = reply.edns.expect("an OPT record");
        assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
        assert_eq!(edns.flags().dnssec_ok, dnssec_ok, "DO is copied (RFC 3225)");
        assert_eq!(reply.answers.len(), 1);
    }
    assert!(world.ask(WEB, RecordType::A).await.edns.is_none());
    // An option we do not know (a cookie) is ignored.
    let mut asked = with_edns(query(WEB, RecordType::A), 1232, false);
    let cookie = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(10, vec![1; 8]);
    asked.edns.as_mut().unwrap().options_mut().insert(cookie);
    let reply = udp(world.v4(), &asked).await;
    assert_eq!(reply.answers.len(), 1);
    // A version we do not speak.
    let mut newer = with_edns(query(WEB, RecordType::A), 1232, false);
    newer.edns.as_mut().unwrap().set_version(1);
    let reply = udp(world.v4(), &newer).await;
    // Code 16 is BADSIG as well.
    assert_eq!(u16::from(reply.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert!(reply.edns.is_some());
    world.end().await;
}

#[tokio::test]
async fn letter_case_is_ignored_and_given_back() {
    let world = World::with(objects(), vec![]).await;
    let mixed = "WeB.dEmO.sVc.ClUsTeR.lOcAl.";
    let reply = world.ask(mixed, RecordType::A).await;
    assert_eq!(reply.queries[0].name().to_ascii(), mixed);
    assert_eq!(reply.answers[0].name.to_ascii(), mixed);
    let denied = world.ask("Nope.DEMO.svc.CLUSTER.local.", RecordType::A).await;
    assert_eq!(denied.authorities[0].name.to_ascii(), "CLUSTER.local.");
    // Targets are as the Service is named.
    let srv = world.ask("_HTTP._TCP.WEB.demo.svc.cluster.local.", RecordType::SRV).await;
    let RData::SRV(target) = &srv.answers[0].data else { panic!("{srv}") };
    assert_eq!(target.target.to_ascii(), WEB);
    // An alias keeps the case as well, though the slow path makes its reply.
    let alias = world.ask("INSIDE.demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(alias.queries[0].name().to_ascii(), "INSIDE.demo.svc.cluster.local.");
    assert_eq!(alias.answers[0].name.to_ascii(), "INSIDE.demo.svc.cluster.local.");
    world.end().await;
}

#[tokio::test]
async fn header_flags() {
    let world = World::with(objects(), vec!["127.0.0.1:9".parse().unwrap()]).await;
    let mut asked = query(WEB, RecordType::A);
    for (recursion, checking_disabled) in [(true, false), (false, true)] {
        asked.metadata.recursion_desired = recursion;
        asked.metadata.checking_disabled = checking_disabled;
        let metadata = udp(world.v4(), &asked).await.metadata;
        assert_eq!(metadata.message_type, MessageType::Response);
        assert_eq!(metadata.recursion_desired, recursion);
        assert_eq!(metadata.checking_disabled, checking_disabled);
        assert!(metadata.authoritative && metadata.recursion_available);
        assert!(!metadata.authentic_data);
    }
    world.end().await;
}

#[tokio::test]
async fn tcp_takes_many_queries_on_one_connection() {
    let world = World::with(objects(), vec![]).await;
    let mut stream = TcpStream::connect(world.v4()).await.unwrap();
    let asked: Vec<_> = (0..100).map(|_| query(WEB, RecordType::A)).collect();
    for message in &asked {
        tcp_send(&mut stream, &message.to_vec().unwrap()).await;
    }
    let mut ids = BTreeSet::new();
    for _ in &asked {
        let reply = tcp_receive(&mut stream).await;
        assert_eq!(reply.answers.len(), 1);
        ids.insert(reply.metadata.id);
    }
    assert_eq!(ids, asked.iter().map(|message| message.metadata.id).collect());
    world.end().await;
}

#[tokio::test]
async fn an_open_connection_does_not_keep_the_server_from_ending() {
    let world = World::with(objects(), vec![]).await;
    let mut stream = TcpStream::connect(world.v4()).await.unwrap();
    tcp_send(&mut stream, &query(WEB, RecordType::A).to_vec().unwrap()).await;
    tcp_receive(&mut stream).await;
    world.end().await;
    let closed = timeout(PATIENCE, stream.read(&mut [0])).await.unwrap();
    assert_eq!(closed.unwrap(), 0, "closed, not reset");
}

#[tokio::test]
async fn connections_that_send_nothing_or_half_a_query_are_closed() {
    let world = World::with(objects(), vec![]).await;
    let mut silent = TcpStream::connect(world.v4()).await.unwrap();
    let mut slow = TcpStream::connect(world.v4()).await.unwrap();
    slow.write_all(&[0, 40, 1]).await.unwrap();
    let mut absurd = TcpStream::connect(world.v4()).await.unwrap();
    absurd.write_all(&[0xff, 0xff]).await.unwrap();
    for stream in [&mut absurd, &mut silent, &mut slow] {
        let closed = timeout(2 * PATIENCE, stream.read(&mut [0])).await.expect("closed");
        assert_eq!(closed.unwrap(), 0);
    }
    world.end().await;
}

#[tokio::test]
async fn what_is_not_a_query_is_dropped_and_counted() {
    let world = World::with(objects(), vec![]).await;
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut reply = query(WEB, RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    client.send_to(&reply.to_vec().unwrap(), world.v4()).unwrap();
    client.send_to(&[1, 2, 3], world.v4()).unwrap();
    client.send_to(&[], world.v4()).unwrap();
    client.send_to(&[0; 3000], world.v4()).unwrap();
    let dropped = |reason: DropReason| {
        let place = DropReason::ALL.iter().position(|r| *r == reason).unwrap();
        world.running.counts().dropped[place]
    };
    let counted = async {
        while dropped(DropReason::Short) < 2
            || dropped(DropReason::NotAQuery) < 1
            || dropped(DropReason::Oversized) < 1
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counted).await.expect("every drop is counted");
    assert_eq!(world.running.counts().replies.iter().sum::<u64>(), 0);
    world.end().await;
}

#[tokio::test]
async fn a_taken_port_is_said_with_its_cure() {
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let (_store, snapshots) = Store::new([]);
    let error = start(&config(&address.to_string()), snapshots, CancellationToken::new());
    let error: DnsError = error.unwrap_err();
    assert!(matches!(error, Taken { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("port {} on 127.0.0.1 is taken", address.port())), "{text}");
    assert!(text.contains("--dns-listen"), "{text}");
}

fn config(listen: &str) -> DnsConfig {
    DnsConfig {
        listen: vec![listen.parse().unwrap()],
        upstreams: Upstreams::Addresses(vec![]),
        threads: Some(2),
        ..DnsConfig::default()
    }
}
