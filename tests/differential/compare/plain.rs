//! A reply with what is never the same taken out: order, ids, serials; denials' times, RA and the size of OPT
//! records, which `promises` holds ours to.

use std::fmt;

use hickory_proto::{
    op::{Edns, Message, ResponseCode},
    rr::{RData, Record},
};

/// An OPT record but for its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opt {
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
    pub(super) options: Vec<String>,
}

/// One record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) owner: String,
    /// Seconds; `None` where it is not compared.
    pub(super) ttl: Option<u32>,
    /// `SRV`.
    pub(super) rtype: String,
    /// As in a zone file.
    pub(super) data: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) code: ResponseCode,
    pub(super) authoritative: bool,
    /// AD, CD, RD.
    pub(super) flags: [bool; 3],
    pub(super) edns: Option<Opt>,
    /// The question as it comes back, letter case included.
    pub(super) question: Vec<String>,
    pub(super) answers: Vec<Line>,
    pub(super) authorities: Vec<Line>,
    pub(super) additionals: Vec<Line>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, ttl, rtype, data } = self;
        let ttl = ttl.map_or_else(|| "?".to_owned(), |ttl| ttl.to_string());
        write!(f, "{owner} {ttl} {rtype} {data}")
    }
}

impl Opt {
    fn of(edns: &Edns) -> Self {
        let all = edns.options().as_ref().iter();
        let mut options: Vec<_> = all.map(|(_, option)| format!("{option:?}")).collect();
        options.sort();
        Self { version: edns.version(), dnssec_ok: edns.flags().dnssec_ok, options }
    }
}

impl Line {
    fn of(record: &Record) -> Self {
        let (ttl, data) = match &record.data {
            RData::SOA(soa) => (None, format!("{} {}", soa.mname, soa.rname)),
            data => (Some(record.ttl), data.to_string()),
        };
        let rtype = record.record_type().to_string();
        Self { owner: record.name.to_string(), ttl, rtype, data }
    }

    /// The name that an SRV record ends with.
    pub(super) fn target(&self) -> &str {
        self.data.rsplit(' ').next().unwrap_or_default()
    }

    /// Of an SRV record.
    pub(super) fn weight(&self) -> Option<u32> {
        let weight = self.data.split(' ').nth(1).filter(|_| self.rtype == "SRV");
        weight.and_then(|weight| weight.parse().ok())
    }

    /// Without the weight of an SRV record: `PRIORITY WEIGHT PORT TARGET`.
    pub(super) fn data_without_weight(&self) -> String {
        match self.data.split(' ').collect::<Vec<_>>()[..] {
            [priority, _, port, target] if self.rtype == "SRV" => {
                format!("{priority} {port} {target}")
            }
            _ => self.data.clone(),
        }
    }

    /// The same for records that are one but for letter case, weight and time to live.
    pub(super) fn key(&self) -> [String; 3] {
        let data = self.data_without_weight().to_ascii_lowercase();
        [self.owner.to_ascii_lowercase(), self.rtype.clone(), data]
    }
}

impl Plain {
    pub(super) fn of(message: &Message) -> Self {
        let metadata = &message.metadata;
        Self {
            code: metadata.response_code,
            authoritative: metadata.authoritative,
            flags: [
                metadata.authentic_data,
                metadata.checking_disabled,
                metadata.recursion_desired,
            ],
            edns: message.edns.as_ref().map(Opt::of),
            question: message.queries.iter().map(ToString::to_string).collect(),
            answers: lines(&message.answers),
            authorities: lines(&message.authorities),
            additionals: lines(&message.additionals),
        }
    }

    /// No time to live of what others know: it runs.
    pub(super) fn timeless(mut self) -> Self {
        for line in self.answers.iter_mut().chain(&mut self.additionals) {
            if !line.owner.to_ascii_lowercase().ends_with("cluster.local.") {
                line.ttl = None;
            }
        }
        self
    }

    /// Nothing but a code.
    pub(super) fn is_bare(&self) -> bool {
        self.answers.is_empty() && self.authorities.is_empty() && self.additionals.is_empty()
    }

    /// Nothing but aliases in the answer, or nothing at all.
    pub(super) fn is_chain(&self) -> bool {
        self.answers.iter().all(|line| line.rtype == "CNAME")
    }

    pub(super) fn has_alias(&self) -> bool {
        self.answers.iter().any(|line| line.rtype == "CNAME")
    }
}

fn lines(records: &[Record]) -> Vec<Line> {
    let mut lines: Vec<_> = records.iter().map(Line::of).collect();
    lines.sort();
    lines
}
