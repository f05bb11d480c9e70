//! `header`, `nsid`, `dns64`, `whoami`: what they make of questions and replies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, SRV},
    },
};
use hickory_server::{net::xfer::Protocol, server::Request};

use crate::{
    corefile::{Dns64Options, FlagBits},
    policy::Asking,
    wire::{
        rcode,
        record::{owner_bytes, record_bytes},
        reply, rtype,
    },
};

/// Time to live where a denial tells none, in seconds (RFC 6147 §5.1.7).
const DNS64_TTL_SECONDS: u32 = 600;

impl FlagBits {
    pub(super) fn is_empty(self) -> bool {
        self.set | self.clear == 0
    }

    /// Changes a message's header.
    pub(crate) fn apply(self, message: &mut [u8]) {
        if let Some(place) = message.get_mut(2..4).and_then(|bytes| bytes.first_chunk_mut()) {
            *place = (u16::from_be_bytes(*place) & !self.clear | self.set).to_be_bytes();
        }
    }
}

impl Dns64Options {
    /// Whether the answer to a question may be made from IPv4 addresses.
    pub(crate) fn is_for(&self, asking: Asking<'_>) -> bool {
        let is_ipv6 = asking.source.ip().to_canonical().is_ipv6();
        asking.question.qtype == rtype::AAAA && (self.allow_ipv4 || is_ipv6)
    }

    /// Whether a reply calls for it (RFC 6147 §5.1.1, §5.1.2).
    pub(super) fn wants(&self, reply: &[u8], question_end: usize) -> bool {
        if reply::code(reply) == rcode::NO_SUCH_NAME {
            return false;
        }
        self.translate_all || !has_type(reply, question_end, rtype::AAAA)
    }

    /// As [`Self::wants`], of a message.
    pub(crate) fn wants_for(&self, reply: &Message) -> bool {
        let has_any = || reply.answers.iter().any(|r| r.record_type() == RecordType::AAAA);
        reply.metadata.response_code != ResponseCode::NXDomain && (self.translate_all || !has_any())
    }

    /// Turns the reply for IPv4 addresses into one for IPv6 addresses, none of which live longer
    /// than the denial they take the place of.
    pub(crate) fn translate(&self, denial: &Message, reply: &mut Message) {
        let soa = denial.authorities.iter().find(|r| r.record_type() == RecordType::SOA);
        let most = soa.map_or(DNS64_TTL_SECONDS, |soa| soa.ttl);
        for record in &mut reply.answers {
            if let RData::A(A(address)) = record.data {
                record.data = RData::AAAA(AAAA(self.embed(address)));
                record.ttl = record.ttl.min(most);
            }
        }
        // What is made here is not what was signed.
        reply.metadata.authentic_data = false;
    }

    /// An IPv4 address within the prefix; bits 64 to 71 stay 0 (RFC 6052 §2.2).
    fn embed(&self, address: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = self.prefix.octets();
        let places = (self.prefix_bytes..16).filter(|place| *place != 8);
        for (place, octet) in places.zip(address.octets()) {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = octet;
            }
        }
        bytes.into()
    }
}

/// Whether one of a reply's answers is of a type.
fn has_type(reply: &[u8], question_end: usize, wanted: u16) -> bool {
    let answers = reply.get(6..8).and_then(|count| count.first_chunk().copied());
    let answers = answers.map_or(0, u16::from_be_bytes);
    let mut records = reply.get(question_end..).unwrap_or_default();
    for _ in 0..answers {
        let Some((record, rest)) =
            record_bytes(records).and_then(|length| records.split_at_checked(length))
        else {
            return false;
        };
        let rtype = owner_bytes(record).and_then(|at| record.get(at..)?.first_chunk().copied());
        if rtype.map(u16::from_be_bytes) == Some(wanted) {
            return true;
        }
        records = rest;
    }
    false
}

/// Who asks, as records for the additional section.
pub(crate) fn whoami(request: &Request, name: &Name) -> Vec<Record> {
    let source = request.src();
    let address = match source.ip().to_canonical() {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    let mut records = vec![Record::from_rdata(name.clone(), 0, address)];
    let label = if request.protocol() == Protocol::Udp { "_udp" } else { "_tcp" };
    if let Ok(owner) = name.prepend_label(label) {
        let port = SRV::new(0, 0, source.port(), Name::root());
        records.push(Record::from_rdata(owner, 0, RData::SRV(port)));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_embedded_as_rfc_6052_says() {
        // The table of §2.4.
        let cases = [
            ("2001:db8::", 4, "2001:db8:c000:221::"),
            ("2001:db8:100::", 5, "2001:db8:1c0:2:21::"),
            ("2001:db8:122::", 6, "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::", 7, "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::", 8, "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::", 12, "2001:db8:122:344::192.0.2.33"),
        ];
        for (prefix, prefix_bytes, wanted) in cases {
            let prefix = prefix.parse().unwrap();
            let options = Dns64Options { prefix, prefix_bytes, ..Dns64Options::default() };
            let wanted: Ipv6Addr = wanted.parse().unwrap();
            assert_eq!(options.embed(Ipv4Addr::new(192, 0, 2, 33)), wanted);
        }
    }
}
