//! A client's question as our own, and what a reply to it says.

use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, Edns, Message, Query, ResponseCode},
    rr::{
        Name, RData, RecordType,
        rdata::opt::{ClientSubnet, EdnsOption},
    },
};
use hickory_resolver::net::{DnsError as UpstreamError, NetError, NoRecords};

use super::Wishes;
use crate::{plugins::name_within, wire::UDP_REPLY_BYTES_MAX};

/// What upstreams are asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) qtype: RecordType,
    pub(super) wishes: Wishes,
    /// In a letter case of our own.
    pub(super) random_case: bool,
}

/// An upstream's reply, or the code it refuses with.
pub(super) type Reply = Result<Message, ResponseCode>;

impl Question {
    /// A new id, the flags that change the answer (CD, DO), and, where that is wanted, our own EDNS size.
    pub(super) fn request(&self, with_edns: bool) -> DnsRequest {
        let wishes = self.wishes;
        let mut message = Message::query();
        message.metadata.recursion_desired = wishes.recursion_desired;
        message.metadata.checking_disabled = wishes.flavour.checking_disabled;
        message.metadata.authentic_data = wishes.authentic_data;
        let query = Query::query(self.name.clone(), self.qtype);
        let original = self.random_case.then(|| query.clone());
        message.queries.push(query);
        if self.random_case {
            message.queries.iter_mut().for_each(|query| query.name.randomize_label_case());
        }
        message.edns = with_edns.then(|| edns(wishes));
        let mut options = DnsRequestOptions::default();
        options.case_randomization = self.random_case;
        DnsRequest::new(message, options).with_original_query(original)
    }

    /// What came of asking; `None`: no reply.
    pub(super) fn understood(&self, asked: Result<impl Into<Message>, NetError>) -> Option<Reply> {
        let mut message = match asked {
            Ok(response) => response.into(),
            Err(NetError::Dns(UpstreamError::NoRecordsFound(none))) => denial(none),
            Err(NetError::Dns(UpstreamError::ResponseCode(code))) => return Some(Err(code)),
            Err(_) => return None,
        };
        if self.random_case {
            without_case(&mut message, &self.name);
        }
        Some(Ok(message))
    }
}

fn edns(wishes: Wishes) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(u16::try_from(UDP_REPLY_BYTES_MAX).unwrap_or(u16::MAX));
    edns.set_dnssec_ok(wishes.flavour.dnssec_ok);
    if let Some(network) = wishes.flavour.subnet {
        let subnet = ClientSubnet::new(network.network(), network.prefix(), 0);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
    }
    edns
}

fn denial(none: NoRecords) -> Message {
    let mut message = Message::query();
    message.metadata.response_code = none.response_code;
    message.authorities = match (none.authorities, none.soa) {
        (Some(authorities), _) => authorities.to_vec(),
        (None, soa) => soa.map(|soa| soa.into_record_of_rdata()).into_iter().collect(),
    };
    message
}

/// Takes the letter case of our question out of a reply, whose names end in that question's or are it.
fn without_case(message: &mut Message, asked: &Name) {
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        let is_asked = record.name == *asked;
        record.name = if is_asked { asked.clone() } else { record.name.to_lowercase() };
        if let Some(name) = name_within(&mut record.data) {
            *name = name.to_lowercase();
        }
        if let RData::SOA(soa) = &mut record.data {
            soa.rname = soa.rname.to_lowercase();
        }
    }
}
