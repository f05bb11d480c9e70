//! The name server of the world outside: one name exists, everything else does not.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process::ExitCode,
};

use anyhow::Context;
use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::SOA},
};
use tokio::net::UdpSocket;

/// The one name, and its addresses (of the ranges that documentation uses: RFC 5737, RFC 3849).
pub(crate) const NAME: &str = "www.outside.test";
/// See [`NAME`].
pub(crate) const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// See [`NAME`].
pub(crate) const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80);

/// Seconds for which any answer may be kept.
const TTL: u32 = 60;
/// Plain DNS over UDP never needs more for a question (RFC 1035 §4.2.1).
const QUESTION_BYTES_MAX: usize = 512;

/// Answers until it is killed.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = UdpSocket::bind(("0.0.0.0", 53)).await.context("UDP port 53")?;
        crate::exit::print("ready\n")?;
        let mut buffer = [0; QUESTION_BYTES_MAX];
        loop {
            // An error is the ICMP answer to an earlier reply, whose asker is gone.
            let Ok((length, asker)) = socket.recv_from(&mut buffer).await else { continue };
            let Some(question) = buffer.get(..length) else { continue };
            match answer(question) {
                Ok(reply) => drop(socket.send_to(&reply, asker).await),
                Err(error) => tracing::debug!(%error, %asker, "no question"),
            }
        }
    })
}

fn answer(question: &[u8]) -> anyhow::Result<Vec<u8>> {
    let asked = Message::from_vec(question)?;
    let mut reply = Message::response(asked.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.queries = asked.queries.clone();
    let Some(question) = asked.queries.first() else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return Ok(reply.to_vec()?);
    };
    let known = Name::from_ascii(NAME)?.append_domain(&Name::root())?;
    let exists = *question.name() == known;
    let data = match question.query_type() {
        RecordType::A if exists => Some(RData::A(V4.into())),
        RecordType::AAAA if exists => Some(RData::AAAA(V6.into())),
        _ => None,
    };
    match data {
        Some(data) => reply.answers.push(Record::from_rdata(known, TTL, data)),
        None => {
            let (primary, contact) = (Name::from_ascii("ns.")?, Name::from_ascii("admin.")?);
            let soa = SOA::new(primary, contact, 1, 3600, 600, 86400, TTL);
            reply.authorities.push(Record::from_rdata(Name::root(), TTL, RData::SOA(soa)));
        }
    }
    if !exists {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    Ok(reply.to_vec()?)
}
