//! Whom both servers forward to.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, SOA, TXT},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::servers::free;

/// Names it knows, or fails at, and one it does not know.
pub(crate) const NAMES: [&str; 11] = [
    "www.example.",
    "WWW.Example.",
    "v4.example.",
    "alias.example.",
    "twice.example.",
    "lost.example.",
    "many.example.",
    "fail.example.",
    "refused.example.",
    "nope.example.",
    "example.",
];
/// More than fit a datagram of 512 bytes.
const MANY: u8 = 60;

/// Knows some names below `example`; denies all else with its SOA.
pub(crate) async fn upstream() -> SocketAddr {
    let address = free();
    let socket = UdpSocket::bind(address).await.unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.expect("free for TCP as well");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_stream(stream));
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let Ok((received, from)) = socket.recv_from(&mut buffer).await else { continue };
            let Ok(asked) = Message::from_vec(&buffer[..received]) else { continue };
            let mut reply = answer(&asked);
            let room = asked.edns.as_ref().map_or(512, |edns| edns.max_payload().max(512));
            if reply.to_vec().unwrap().len() > usize::from(room) {
                reply.answers.clear();
                reply.metadata.truncation = true;
            }
            let _ = socket.send_to(&reply.to_vec().unwrap(), from).await;
        }
    });
    address
}

/// CoreDNS forwards by TCP what came by TCP.
async fn answer_stream(mut stream: TcpStream) {
    while let Ok(length) = stream.read_u16().await {
        let mut bytes = vec![0; length.into()];
        let Ok(_) = stream.read_exact(&mut bytes).await else { return };
        let Ok(asked) = Message::from_vec(&bytes) else { return };
        let reply = answer(&asked).to_vec().unwrap();
        let framed = [&u16::try_from(reply.len()).unwrap().to_be_bytes()[..], &reply].concat();
        let Ok(()) = stream.write_all(&framed).await else { return };
    }
}

fn answer(asked: &Message) -> Message {
    let question = &asked.queries[0];
    let mut reply = Message::response(asked.metadata.id, OpCode::Query);
    reply.metadata.recursion_available = true;
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    // RFC 4035 §3.2.2.
    reply.metadata.checking_disabled = asked.metadata.checking_disabled;
    reply.queries = asked.queries.clone();
    let (mut owner, rtype) = (question.name().clone(), question.query_type());
    let mut name = owner.to_lowercase().to_ascii();
    while let Some(target) = alias(&name) {
        let target = Name::from_ascii(target).unwrap();
        let data = RData::CNAME(CNAME(target.clone()));
        reply.answers.push(Record::from_rdata(owner, 60, data));
        (name, owner) = (target.to_ascii(), target);
        if rtype == RecordType::CNAME {
            return reply;
        }
    }
    let found = match records(&name, rtype) {
        Ok(found) => found,
        Err(code) => {
            reply.metadata.response_code = code;
            vec![]
        }
    };
    let is_denial = found.is_empty()
        && [ResponseCode::NoError, ResponseCode::NXDomain].contains(&reply.metadata.response_code);
    if is_denial {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let soa = SOA::new(name("ns.example."), name("admin.example."), 1, 2, 3, 4, 77);
        reply.authorities.push(Record::from_rdata(name("."), 77, RData::SOA(soa)));
    }
    let record = |data| Record::from_rdata(owner.clone(), 60, data);
    reply.answers.extend(found.into_iter().map(record));
    reply
}

fn alias(name: &str) -> Option<&'static str> {
    match name {
        "alias.example." => Some("www.example."),
        "twice.example." => Some("alias.example."),
        "lost.example." => Some("nope.example."),
        _ => None,
    }
}

fn records(name: &str, rtype: RecordType) -> Result<Vec<RData>, ResponseCode> {
    let v4 = |last| RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
    let v6 = RData::AAAA(AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)));
    Ok(match (name, rtype) {
        ("www.example." | "v4.example.", RecordType::A) => vec![v4(1), v4(2)],
        ("www.example.", RecordType::AAAA) => vec![v6],
        ("www.example.", RecordType::TXT) => vec![RData::TXT(TXT::new(vec!["a text".into()]))],
        ("www.example.", RecordType::MX) => {
            vec![RData::MX(MX::new(10, Name::from_ascii("mail.example.").unwrap()))]
        }
        ("many.example.", RecordType::A) => (1..=MANY).map(v4).collect(),
        ("fail.example.", _) => return Err(ResponseCode::ServFail),
        ("refused.example.", _) => return Err(ResponseCode::Refused),
        ("www.example." | "v4.example." | "many.example." | "example.", _) => vec![],
        _ => return Err(ResponseCode::NXDomain),
    })
}
