//! Which queries are served at all, and replies as hickory encodes them.

use hickory_proto::{
    op::{Edns, Metadata, OpCode, ResponseCode},
    rr::{Record, RecordType},
    serialize::binary::BinEncoder,
};
use hickory_server::{net::xfer::Protocol, server::Request, zone_handler::MessageResponseBuilder};

use crate::wire::{UDP_REPLY_BYTES_MAX, UDP_REPLY_BYTES_WITHOUT_EDNS, rcode};

/// What to do with a query that could be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look the name up.
    Resolve,
    /// Say why not.
    Error(ResponseCode),
}

/// Records of a reply.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
}

impl Sections {
    /// Leaves what `minimal` does of a reply with this code: of one that is no denial, and no referral,
    /// the answer. An alias that leads to nothing is a denial, which nobody can keep without its SOA.
    pub(super) fn reduce(&mut self, code: ResponseCode) {
        let says = |rtype| self.authorities.iter().any(|record| record.record_type() == rtype);
        let last = self.answers.last().map(Record::record_type);
        let is_denial = last.is_none_or(|last| last == RecordType::CNAME) && says(RecordType::SOA);
        let is_referral = last.is_none() && says(RecordType::NS);
        if code == ResponseCode::NoError && !is_denial && !is_referral {
            self.authorities.clear();
            self.additionals.clear();
        }
    }
}

/// Judges a query by everything but its name and class.
pub(super) fn verdict(request: &Request) -> Verdict {
    if request.metadata.op_code != OpCode::Query {
        return Verdict::Error(ResponseCode::NotImp);
    }
    // RFC 6891 §6.1.3.
    if request.version() > 0 {
        return Verdict::Error(ResponseCode::BADVERS);
    }
    let [question] = request.queries.queries() else {
        return Verdict::Error(ResponseCode::FormErr);
    };
    // We share no key with anyone (RFC 8945 §5.2.1). Without DNSSEC hickory takes a signature for any
    // record.
    let is_signature = |record: &Record| record.record_type() == RecordType::TSIG;
    if request.signature.is_some() || request.additionals.iter().any(is_signature) {
        return Verdict::Error(ResponseCode::NotAuth);
    }
    match question.query_type() {
        RecordType::AXFR | RecordType::IXFR => Verdict::Error(ResponseCode::Refused),
        // No questions, but records of the additional section.
        RecordType::OPT | RecordType::TSIG => Verdict::Error(ResponseCode::FormErr),
        // TKEY, MAILB and MAILA: known, never needed.
        RecordType::Unknown(249 | 253 | 254) => Verdict::Error(ResponseCode::NotImp),
        _ => Verdict::Resolve,
    }
}

/// A reply without records.
pub(super) fn error(
    request: &Request,
    code: ResponseCode,
    recursion_available: bool,
) -> Option<Vec<u8>> {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = code;
    metadata.recursion_available = recursion_available;
    reply(request, metadata, &Sections::default(), reply_bytes_max(request))
}

/// A reply of so many bytes at most. `None` if hickory cannot encode it.
pub(super) fn reply(
    request: &Request,
    metadata: Metadata,
    sections: &Sections,
    bytes_max: u16,
) -> Option<Vec<u8>> {
    let edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(u16::try_from(UDP_REPLY_BYTES_MAX).unwrap_or(u16::MAX));
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    let Sections { answers, authorities, additionals } = sections;
    let response = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
        metadata,
        answers,
        authorities,
        &[],
        additionals,
    );
    let mut bytes = Vec::with_capacity(UDP_REPLY_BYTES_MAX);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(bytes_max);
    response.destructive_emit(&mut encoder).ok()?;
    Some(bytes)
}

/// Largest reply that a client takes to its request, in bytes; its server block may say less.
pub(super) fn reply_bytes_max(request: &Request) -> u16 {
    if request.protocol() != Protocol::Udp {
        return u16::MAX;
    }
    let limits = [UDP_REPLY_BYTES_WITHOUT_EDNS, UDP_REPLY_BYTES_MAX];
    let [least, most] = limits.map(|limit| u16::try_from(limit).unwrap_or(u16::MAX));
    request.max_payload().clamp(least, most)
}

/// A response code as CoreDNS writes it.
pub(super) fn code_name(code: u16) -> String {
    let name = rcode::NAMES.get(usize::from(code));
    name.map_or_else(|| format!("RCODE{code}"), |name| (*name).to_owned())
}

/// A reply's flags as CoreDNS writes them: `qr,aa,rd,ra`.
pub(super) fn flag_names(reply: &[u8]) -> String {
    let Some([high, low]) = reply.get(2..4).and_then(|flags| flags.first_chunk()).copied() else {
        return String::new();
    };
    let flags = [
        ("qr", high & 0x80),
        ("aa", high & 0x04),
        ("tc", high & 0x02),
        ("rd", high & 0x01),
        ("ra", low & 0x80),
        ("ad", low & 0x20),
        ("cd", low & 0x10),
    ];
    let set = flags.iter().filter(|(_, bit)| *bit != 0).map(|(name, _)| *name);
    set.collect::<Vec<_>>().join(",")
}
