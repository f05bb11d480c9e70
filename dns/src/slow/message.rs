//! Which queries are served at all, and replies as hickory encodes them.

use std::borrow::Cow;

use hickory_proto::{
    op::{Metadata, OpCode, ResponseCode},
    rr::{Record, RecordType},
    serialize::binary::BinEncoder,
};
use hickory_server::{net::xfer::Protocol, server::Request, zone_handler::MessageResponseBuilder};

use crate::wire::{UDP_REPLY_BYTES_MAX, UDP_REPLY_BYTES_WITHOUT_EDNS, rcode, reply::opt_record};

/// Where a header counts the records of the additional section (RFC 1035 §4.1.1).
const ADDITIONAL_COUNT_AT: usize = 10;

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

/// Why a message that could be parsed is no query with one question, which is all that policy can judge.
pub(super) fn not_a_query(request: &Request) -> Option<ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Some(ResponseCode::NotImp);
    }
    // RFC 6891 §6.1.3.
    if request.version() > 0 {
        return Some(ResponseCode::BADVERS);
    }
    (request.queries.queries().len() != 1).then_some(ResponseCode::FormErr)
}

/// Why nothing is looked up for a question that policy lets pass, whatever its name and class.
pub(super) fn unserved(request: &Request) -> Option<ResponseCode> {
    // We share no key with anyone (RFC 8945 §5.2.1). Without DNSSEC hickory takes a signature for any
    // record.
    let is_signature = |record: &Record| record.record_type() == RecordType::TSIG;
    if request.signature.is_some() || request.additionals.iter().any(is_signature) {
        return Some(ResponseCode::NotAuth);
    }
    match request.queries.queries().first()?.query_type() {
        RecordType::AXFR | RecordType::IXFR => Some(ResponseCode::Refused),
        // No questions, but records of the additional section.
        RecordType::OPT | RecordType::TSIG => Some(ResponseCode::FormErr),
        // TKEY, MAILB and MAILA: known, never needed.
        RecordType::Unknown(249 | 253 | 254) => Some(ResponseCode::NotImp),
        _ => None,
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
    mut metadata: Metadata,
    sections: &Sections,
    bytes_max: u16,
) -> Option<Vec<u8>> {
    let opt = request
        .edns
        .as_ref()
        .map(|asked| opt_record(metadata.response_code.high(), asked.flags().dnssec_ok));
    // hickory would write it into what records leave, which may be nothing (RFC 6891 §7: it must be there).
    let reserved = u16::try_from(opt.as_ref().map_or(0, |opt| opt.len())).unwrap_or(0);
    metadata.response_code = ResponseCode::from_low(metadata.response_code.low());
    let Sections { answers, authorities, additionals } = sections;
    let response = MessageResponseBuilder::new(&request.queries, None).build(
        metadata,
        answers,
        authorities,
        &[],
        additionals,
    );
    let mut bytes = Vec::with_capacity(UDP_REPLY_BYTES_MAX);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(bytes_max.saturating_sub(reserved));
    let counts = response.destructive_emit(&mut encoder).ok()?.counts();
    // Of a record that had no room a part is left behind.
    encoder.trim();
    let is_whole = usize::from(counts.answers) == answers.len()
        && usize::from(counts.authorities) == authorities.len();
    if is_whole && !metadata.truncation {
        // Leaving additional records out is no truncation (RFC 2181 §9).
        *bytes.get_mut(2)? &= !0x02;
    }
    if let Some(opt) = opt {
        bytes.extend_from_slice(&opt);
        let count = bytes.get_mut(ADDITIONAL_COUNT_AT..)?.first_chunk_mut::<2>()?;
        *count = u16::from_be_bytes(*count).saturating_add(1).to_be_bytes();
    }
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

/// A response code as CoreDNS writes it: by name, or number.
pub(super) fn code_name(code: u16) -> Cow<'static, str> {
    let name = rcode::NAMES.get(usize::from(code));
    name.map_or_else(|| code.to_string().into(), |name| Cow::Borrowed(*name))
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

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Edns, Message, Query},
        rr::{Name, RData, rdata::A},
        serialize::binary::BinEncodable,
    };

    use super::*;
    use crate::wire::{HEADER_BYTES, record::each_record, rtype};

    fn request(name: &Name, edns: Option<Edns>) -> Request {
        let mut asked = Message::query();
        asked.queries.push(Query::query(name.clone(), RecordType::A));
        asked.edns = edns;
        let source = "192.0.2.1:53".parse().unwrap();
        Request::from_bytes(asked.to_vec().unwrap(), source, Protocol::Udp).unwrap()
    }

    /// RFC 2181 §9.
    #[test]
    fn a_reply_that_lacks_additional_records_alone_is_not_cut() {
        let name = Name::from_ascii("many.example.").unwrap();
        let record = |last| Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, last)));
        let of = |count: u8| -> Vec<_> { (0..count).map(record).collect() };
        let request = request(&name, None);
        for (counts, was_cut, is_cut) in [
            ([1, 1, 1], false, false),
            ([1, 1, 200], false, false),
            ([1, 0, 200], true, true),
            ([1, 200, 1], false, true),
            ([200, 1, 1], false, true),
        ] {
            let [answers, authorities, additionals] = counts.map(of);
            let sections = Sections { answers, authorities, additionals };
            let mut metadata = Metadata::response_from_request(&request.metadata);
            metadata.truncation = was_cut;
            let bytes = reply(&request, metadata, &sections, 512).unwrap();
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.metadata.truncation, is_cut, "{counts:?}, {was_cut}");
        }
    }

    /// dnspython and others take no message with bytes behind its last record.
    #[test]
    fn a_cut_reply_ends_with_its_last_record_and_has_its_opt_record() {
        let name = Name::from_ascii("many.example.").unwrap();
        let question_end = HEADER_BYTES + name.to_bytes().unwrap().len() + 4;
        let record = |last| Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, last)));
        let sections = Sections { answers: (0..=255).map(record).collect(), ..Sections::default() };
        for (has_edns, bytes_max) in
            [false, true].into_iter().flat_map(|e| (512..=1232).map(move |b| (e, b)))
        {
            let request = request(&name, has_edns.then(Edns::new));
            let metadata = Metadata::response_from_request(&request.metadata);
            let cut = reply(&request, metadata, &sections, bytes_max).unwrap();
            let case = format!("EDNS {has_edns}, {bytes_max} bytes");
            let room = usize::from(bytes_max);
            assert!((room - 15..=room).contains(&cut.len()), "{case}");
            assert!(cut[2] & 0x02 != 0, "{case}: TC");
            let records = each_record(&cut[question_end..]);
            let records: Vec<_> = records.collect();
            let counted: u16 =
                cut[6..HEADER_BYTES].chunks(2).map(|n| u16::from_be_bytes([n[0], n[1]])).sum();
            assert_eq!(records.len(), usize::from(counted), "{case}");
            let length: usize = records.iter().map(|record| record.len()).sum();
            assert_eq!(cut.len(), question_end + length, "{case}");
            let last = records.last().unwrap();
            let is_opt = last.starts_with(&[&[0][..], &rtype::OPT.to_be_bytes()].concat());
            assert_eq!(is_opt, has_edns, "{case}");
        }
    }
}
