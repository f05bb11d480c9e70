//! What fuzz targets do with bytes; tests do it with everything that was ever found. A target fails
//! by a panic.
#![allow(clippy::indexing_slicing, reason = "a panic is what a target has to say")]

use std::{path::Path, sync::LazyLock, time::Instant};

use fairlead_state::{Kind, fuzzing::cluster};
use futures::FutureExt;
use hickory_proto::{
    op::{Message, Query},
    rr::{DNSClass, Name, RecordType},
};

use crate::{
    answer::{Manner, Outcome, answer},
    cache::{Entry, Flavour, only_what_was_asked},
    config::DnsConfig,
    corefile::Corefile,
    server,
    slow::{Wishes, plain_query},
    tcp,
    wire::{
        name::LowerName,
        question::{Question, Shape, with_family},
    },
    zone::Zone,
};

/// Room for a reply.
const REPLY_BYTES: usize = 4096;

/// A little cluster's names.
const DOCUMENTS: [(Kind, &str); 6] = [
    (Kind::Namespace, r#"{"metadata":{"name":"demo"}}"#),
    (
        Kind::Service,
        r#"{"metadata":{"name":"web","namespace":"demo"},
           "spec":{"clusterIPs":["10.96.0.1","fd00::1"],
           "ports":[{"name":"http","port":80},{"name":"dns","protocol":"UDP","port":53}]}}"#,
    ),
    (Kind::Service, r#"{"metadata":{"name":"db","namespace":"demo"},"spec":{"clusterIP":"None"}}"#),
    (
        Kind::EndpointSlice,
        r#"{"metadata":{"name":"web-1","namespace":"demo","labels":
           {"kubernetes.io/service-name":"web"}},"addressType":"IPv4",
           "ports":[{"name":"http","port":8080}],"endpoints":[{"addresses":["10.1.0.1"]}]}"#,
    ),
    (
        Kind::EndpointSlice,
        r#"{"metadata":{"name":"db-1","namespace":"demo","labels":
           {"kubernetes.io/service-name":"db"}},"addressType":"IPv4",
           "ports":[{"name":"pg","port":5432}],"endpoints":[{"addresses":["10.1.0.2"],
           "hostname":"db-0"},{"addresses":["10.1.0.3","10.1.0.4"],"hostname":"db-1"}]}"#,
    ),
    (
        Kind::EndpointSlice,
        r#"{"metadata":{"name":"db-2","namespace":"demo","labels":
           {"kubernetes.io/service-name":"db"}},"addressType":"IPv6",
           "ports":[{"name":"pg","port":5432}],"endpoints":[{"addresses":["fd00:1::"]}]}"#,
    ),
];

pub(crate) static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let Ok(origin) = server::origin(&DnsConfig::default()) else {
        unreachable!("the defaults are good")
    };
    Zone::unsynced(origin, 1).updated(&cluster(&DOCUMENTS), 1)
});

/// A datagram or message from a client: what the quick parser takes, hickory's complete one takes
/// too, and reads the same; and whatever is replied, a client can read.
pub fn question(bytes: &[u8]) {
    let mut question = Question::new();
    if question.read(bytes) != Shape::Plain {
        return;
    }
    let Ok(theirs) = Message::from_vec(&with_family(bytes)) else {
        unreachable!("hickory does not take it: {}", bytes.escape_ascii());
    };
    let [query] = &theirs.queries[..] else { unreachable!("{} questions", theirs.queries.len()) };
    assert_eq!(wire(query.name()), question.name.as_bytes());
    assert_eq!(u16::from(query.query_type()), question.qtype);
    assert_eq!(query.query_class(), DNSClass::IN);
    let edns = question.edns.map(|edns| (edns.payload_bytes.max(512), edns.dnssec_ok));
    let their = theirs.edns.as_ref().map(|e| (e.max_payload().max(512), e.flags().dnssec_ok));
    assert_eq!(edns, their);

    let limit = question.udp_reply_bytes_max();
    let mut buffer = [0; REPLY_BYTES];
    let manner = Manner { limit, recursion_available: true, rotation: 7, minimal: false };
    let Outcome::Reply(made) = answer(&ZONE, &question, bytes, &mut buffer, manner) else { return };
    assert!(made.bytes <= limit);
    reply_is_to(bytes, &buffer[..made.bytes]);
}

/// A reply and the question it is one to.
fn reply_is_to(query: &[u8], reply: &[u8]) {
    let Ok(message) = Message::from_vec(reply) else {
        unreachable!("nobody can read {}", reply.escape_ascii());
    };
    assert_eq!(reply.get(..2), query.get(..2), "the id");
    assert_eq!(message.queries.len(), 1);
    let end = 12 + wire(message.queries[0].name()).len() + 4;
    assert_eq!(reply.get(12..end), query.get(12..end), "the question, in its letter case");
}

/// An upstream's reply: what is kept of it answers the question, and a client can read it, fresh
/// and from the cache.
pub fn response(bytes: &[u8]) {
    let Ok(mut reply) = Message::from_vec(bytes) else { return };
    // Others are waited past.
    let Some(query) = reply.queries.first() else { return };
    let (name, qtype) = (query.name().clone(), query.query_type());
    let lower_wire = wire(&name);
    let mut lower = LowerName::new();
    if lower.read(&lower_wire) != Some(lower_wire.len()) {
        return;
    }
    only_what_was_asked(&mut reply, &name, qtype);
    assert!(reply.additionals.is_empty());
    let allowed = |rtype| {
        let always = [RecordType::CNAME, RecordType::RRSIG, RecordType::DNAME];
        rtype == qtype || always.contains(&rtype)
    };
    assert!(reply.answers.iter().all(|record| allowed(record.record_type())));
    reply.edns = None;
    reply.queries = vec![Query::query(name, qtype)];
    let now = Instant::now();
    let flavour = Flavour::default();
    let Some(entry) = Entry::new(&lower, qtype.into(), flavour, &reply, now) else { return };
    let wishes = Wishes { recursion_desired: true, authentic_data: false, flavour };
    let query = plain_query(7, wishes, &lower_wire, qtype);
    let mut question = Question::new();
    if question.read(&query) != Shape::Plain {
        return;
    }
    let mut buffer = [0; REPLY_BYTES];
    for (rotation, limit) in [512, 1232, REPLY_BYTES].into_iter().enumerate() {
        let made = entry.answer(&question, &query, &mut buffer, limit, now, rotation);
        let Some((made, code)) = made else { unreachable!("there is room for the question") };
        assert!(made <= limit && code < 16);
        reply_is_to(&query, &buffer[..made]);
    }
}

/// What arrives on a connection: each message as its length says, none larger than is taken.
pub fn stream(bytes: &[u8]) {
    let mut rest = bytes;
    let mut at = 0;
    loop {
        // All of it is there: nothing waits.
        let Some(read) = tcp::read_query(&mut rest).now_or_never() else {
            unreachable!("waits for more than the end")
        };
        let Ok(query) = read else { return };
        let length = bytes.get(at..at + 2).map(|length| [length[0], length[1]]);
        assert_eq!(length.map(u16::from_be_bytes).map(usize::from), Some(query.len()));
        assert_eq!(bytes.get(at + 2..at + 2 + query.len()), Some(&query[..]));
        at += 2 + query.len();
        question(&query);
    }
}

/// A Corefile: read, or refused at a line it has. It imports its own snippets and no files.
pub fn corefile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.lines().any(|line| line.contains("import") && line.contains('/')) {
        return;
    }
    let environment = |name: &str| name.starts_with('U').then(|| "10.9.9.9".to_owned());
    match Corefile::parse(Path::new("nowhere/Corefile"), text, &environment) {
        Ok(corefile) => {
            let _ = (corefile.health(), corefile.ready(), corefile.reload());
            assert_eq!(corefile.files.len(), 1);
        }
        Err(error) => {
            let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
            assert!(error.line <= lines.max(1), "{error} of {lines} lines");
            assert!(!error.reason.is_empty() && !error.reason.contains('\n'), "{error}");
        }
    }
}

/// A name's wire form, lower case.
fn wire(name: &Name) -> Vec<u8> {
    let mut bytes: Vec<u8> = vec![];
    for label in name.iter() {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{replay::replay, *};

    #[test]
    fn everything_fuzzing_has_found_is_taken() {
        replay("dns_question", question);
        replay("dns_response", response);
        replay("dns_stream", stream);
        replay("dns_corefile", corefile);
    }
}
