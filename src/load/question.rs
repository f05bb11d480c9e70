//! One question to a name server, and what its answer is worth.

use bytes::Bytes;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};

use super::request::{self, Answer, Caller, Failure};

/// Asks for the IPv4 address of the target's path. Good is an answer that holds one; the name server
/// is asked once, without the repetitions of a resolver.
pub(super) async fn ask(caller: &Caller) -> Result<Answer, Failure> {
    let asked = question(caller.target.path.trim_start_matches('/'));
    let asked = asked.map_err(|error| failure("other", error.to_string()))?;
    let said = asked.to_vec().map_err(|error| failure("other", error.to_string()))?;
    let body = request::talk(caller, &said).await?;
    judge(&asked, &body)?;
    Ok(Answer { status: 0, location: None, body, last: true })
}

fn question(name: &str) -> anyhow::Result<Message> {
    let name = Name::from_ascii(name)?.append_domain(&Name::root())?;
    let mut asked = Message::query();
    asked.metadata.op_code = OpCode::Query;
    asked.metadata.recursion_desired = true;
    asked.queries.push(Query::query(name, RecordType::A));
    Ok(asked)
}

fn judge(asked: &Message, body: &Bytes) -> Result<(), Failure> {
    let reply = Message::from_vec(body).map_err(|error| failure("other", error.to_string()))?;
    let is_reply = reply.metadata.message_type == MessageType::Response;
    if !is_reply || reply.metadata.id != asked.metadata.id || reply.queries != asked.queries {
        return Err(failure("other", "not the answer to the question".into()));
    }
    match reply.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Err(failure("nxdomain", "no such name".into())),
        other => return Err(failure("rcode", format!("the server says {other}"))),
    }
    if reply.answers.iter().any(|record| record.record_type() == RecordType::A) {
        return Ok(());
    }
    Err(failure("nodata", "the name has no IPv4 address".into()))
}

fn failure(kind: &'static str, detail: String) -> Failure {
    Failure { kind, detail, broken: false }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::{RData, Record};

    use super::*;

    fn reply(code: ResponseCode, change: impl FnOnce(&mut Message)) -> Result<(), Failure> {
        let asked = question("hello.default.svc.cluster.local").unwrap();
        let mut reply = Message::response(asked.metadata.id, OpCode::Query);
        reply.queries = asked.queries.clone();
        reply.metadata.response_code = code;
        change(&mut reply);
        judge(&asked, &reply.to_vec().unwrap().into())
    }

    fn address(reply: &mut Message) {
        let name = reply.queries[0].name().clone();
        reply.answers.push(Record::from_rdata(name, 5, RData::A(Ipv4Addr::LOCALHOST.into())));
    }

    #[test]
    fn only_an_address_is_a_good_answer() {
        reply(ResponseCode::NoError, address).unwrap();
        for (code, kind) in [
            (ResponseCode::NoError, "nodata"),
            (ResponseCode::NXDomain, "nxdomain"),
            (ResponseCode::ServFail, "rcode"),
        ] {
            assert_eq!(reply(code, |_| {}).unwrap_err().kind, kind, "{code}");
        }
    }

    #[test]
    fn a_forged_id_is_no_answer() {
        let forged = reply(ResponseCode::NoError, |reply| {
            address(reply);
            reply.metadata.id = reply.metadata.id.wrapping_add(1);
        });
        assert_eq!(forged.unwrap_err().kind, "other");
    }
}
