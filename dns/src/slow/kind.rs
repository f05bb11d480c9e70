//! What a reply is, as CoreDNS tells replies apart for its `log` (its package `response`).

use hickory_proto::{
    op::{LowerQuery, OpCode, ResponseCode},
    rr::RecordType,
};
use hickory_server::server::Request;

use crate::{
    corefile::LogClass,
    wire::{
        rcode,
        record::{each_record, owner_bytes},
        rtype,
    },
};

/// What a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyKind {
    /// What was asked for, or nothing at all.
    NoError,
    NoName,
    /// The zone's SOA record in place of an answer.
    NoData,
    /// Other servers are named in place of an answer.
    Delegation,
    /// A failure that may be kept for a while.
    ServerError,
    /// Of a zone's transfer, or a notice of one.
    Meta,
    Update,
    /// Any other, and none.
    OtherError,
}

impl ReplyKind {
    /// Of the reply to a request whose question ends at `question_end` in it.
    pub(super) fn of(request: &Request, reply: &[u8], question_end: usize, code: u16) -> Self {
        let asked = request.queries.queries().first().map(LowerQuery::query_type);
        match request.metadata.op_code {
            OpCode::Update => return Self::Update,
            OpCode::Notify => return Self::Meta,
            _ if matches!(asked, Some(RecordType::AXFR | RecordType::IXFR)) => return Self::Meta,
            _ => {}
        }
        let answers = count(reply, 6);
        let says = |wanted| has_authority(reply, question_end, answers, wanted);
        let code = u8::try_from(code).ok().filter(|code| *code <= rcode::MAX && !reply.is_empty());
        let Some(code) = code else { return Self::OtherError };
        match (ResponseCode::from_low(code), answers) {
            (ResponseCode::NoError, 0) if says(rtype::SOA) => Self::NoData,
            (ResponseCode::NoError, 0) if says(rtype::NS) => Self::Delegation,
            (ResponseCode::NoError, _) => Self::NoError,
            (ResponseCode::NXDomain, 0) => Self::NoName,
            (ResponseCode::ServFail | ResponseCode::NotImp, _) => Self::ServerError,
            // Aliases that lead to no name are one, too.
            _ => Self::OtherError,
        }
    }

    /// As CoreDNS writes it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::NoName => "NXDOMAIN",
            Self::NoData => "NODATA",
            Self::Delegation => "DELEGATION",
            Self::ServerError => "SERVERERROR",
            Self::Meta => "META",
            Self::Update => "UPDATE",
            Self::OtherError => "OTHERERROR",
        }
    }

    /// The class that lines of `log` choose by.
    pub(super) fn class(self) -> LogClass {
        match self {
            Self::NoError | Self::Delegation => LogClass::Success,
            Self::NoName | Self::NoData => LogClass::Denial,
            Self::ServerError | Self::Meta | Self::Update | Self::OtherError => LogClass::Error,
        }
    }
}

fn count(reply: &[u8], at: usize) -> u16 {
    let bytes = reply.get(at..).and_then(|bytes| bytes.first_chunk().copied());
    bytes.map_or(0, u16::from_be_bytes)
}

/// Whether a record of the authority section is of a type.
fn has_authority(reply: &[u8], question_end: usize, answers: u16, wanted: u16) -> bool {
    let records = each_record(reply.get(question_end..).unwrap_or_default());
    let mut all = records.skip(answers.into()).take(count(reply, 8).into());
    all.any(|record| {
        let rtype = owner_bytes(record).and_then(|at| record.get(at..)?.first_chunk().copied());
        rtype.map(u16::from_be_bytes) == Some(wanted)
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, Query},
        rr::{
            Name, RData, Record,
            rdata::{A, CNAME, NS, SOA},
        },
    };
    use hickory_server::net::xfer::Protocol;

    use super::*;
    use crate::wire::HEADER_BYTES;

    #[test]
    fn replies_are_told_apart_as_coredns_does() {
        let name = Name::root();
        let record = |data| Record::from_rdata(Name::root(), 1, data);
        let address = record(RData::A(A([192, 0, 2, 1].into())));
        let alias = record(RData::CNAME(CNAME(name.clone())));
        let soa = record(RData::SOA(SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 5)));
        let server = record(RData::NS(NS(name.clone())));
        let (one, none) = (std::slice::from_ref::<Record>, &[][..]);
        let (success, denial, error) = (LogClass::Success, LogClass::Denial, LogClass::Error);
        let cases = [
            (0, one(&address), none, "NOERROR", success),
            (0, one(&alias), one(&soa), "NOERROR", success),
            (0, none, one(&soa), "NODATA", denial),
            (0, none, one(&server), "DELEGATION", success),
            // As `filter` of `acl` makes it.
            (0, none, none, "NOERROR", success),
            (3, none, none, "NXDOMAIN", denial),
            (3, none, one(&soa), "NXDOMAIN", denial),
            (3, one(&alias), one(&soa), "OTHERERROR", error),
            (2, none, none, "SERVERERROR", error),
            (4, none, none, "SERVERERROR", error),
            (5, none, none, "OTHERERROR", error),
        ];
        let kind = |asked: &Message, reply: &[u8], code| {
            let (bytes, source) = (asked.to_vec().unwrap(), "192.0.2.1:53".parse().unwrap());
            let request = Request::from_bytes(bytes, source, Protocol::Udp).unwrap();
            ReplyKind::of(&request, reply, HEADER_BYTES + 5, code)
        };
        let asked = |rtype| {
            let mut message = Message::query();
            message.queries.push(Query::query(Name::root(), rtype));
            message
        };
        let plain = asked(RecordType::A);
        for (code, answers, authorities, word, class) in cases {
            let mut reply = plain.clone();
            (reply.answers, reply.authorities) = (answers.to_vec(), authorities.to_vec());
            let kind = kind(&plain, &reply.to_vec().unwrap(), code);
            assert_eq!((kind.as_str(), kind.class()), (word, class), "{code} {reply}");
        }
        let transfer = kind(&asked(RecordType::AXFR), &plain.to_vec().unwrap(), 5);
        assert_eq!((transfer.as_str(), transfer.class()), ("META", error));
        // None was sent.
        let dropped = kind(&plain, &[], 0);
        assert_eq!((dropped.as_str(), dropped.class()), ("OTHERERROR", error));
    }
}
