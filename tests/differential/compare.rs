//! Are two replies the same, and if not, which rule of docs/dns-differences.md allows it?

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};

use crate::{
    cluster::Cluster,
    questions::{Question, Replies},
};

/// What comparing came to.
#[derive(Debug)]
pub(crate) enum Verdict {
    Same,
    /// Different, as this rule says.
    Rule(&'static str),
    Different(String),
}

/// A reply with what is never the same taken out: order, ids, serials, denials' times, RA.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
}

impl Plain {
    fn of(message: &Message) -> Self {
        Self {
            code: message.metadata.response_code,
            authoritative: message.metadata.authoritative,
            answers: lines(&message.answers),
            authorities: lines(&message.authorities),
            additionals: lines(&message.additionals),
        }
    }
}

fn lines(records: &[Record]) -> Vec<String> {
    let mut lines: Vec<_> = records.iter().map(line).collect();
    lines.sort();
    lines
}

fn line(record: &Record) -> String {
    let (name, rtype) = (&record.name, record.record_type());
    match &record.data {
        RData::SOA(soa) => format!("{name} {rtype} {} {}", soa.mname, soa.rname),
        data => format!("{name} {} {rtype} {data}", record.ttl),
    }
}

pub(crate) fn verdict(cluster: &Cluster<'_>, question: &Question, replies: &Replies) -> Verdict {
    let (theirs, ours) = (Plain::of(&replies.theirs), Plain::of(&replies.ours));
    if theirs == ours {
        return Verdict::Same;
    }
    match rule(cluster, question, &theirs, &ours) {
        Some(rule) => Verdict::Rule(rule),
        None => Verdict::Different(format!("  CoreDNS:  {theirs:?}\n  Fairlead: {ours:?}")),
    }
}

fn rule(
    cluster: &Cluster<'_>,
    question: &Question,
    theirs: &Plain,
    ours: &Plain,
) -> Option<&'static str> {
    let name = question.name.to_ascii_lowercase();
    let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
    let is_empty = |plain: &Plain| plain.answers.is_empty();
    let denied_there = theirs.code == ResponseCode::NXDomain && is_empty(theirs);
    let exists_here = ours.code == ResponseCode::NoError && is_empty(ours);
    let below_service = labels.len() >= 5 && labels[labels.len() - 3] == "svc";
    if denied_there && exists_here {
        if name == "dns-version.cluster.local." || name == "dns.cluster.local." {
            return Some("ent-exists");
        }
        if below_service && ["_tcp", "_udp", "_sctp"].contains(&labels[0]) {
            return Some("ent-exists");
        }
    }
    if labels[0] == "_" && ours.code == ResponseCode::NXDomain {
        return Some("empty-port");
    }
    if below_service && cluster.is_alias(labels[labels.len() - 4], labels[labels.len() - 5]) {
        let plain_types = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
        if labels.len() == 5 && !plain_types.contains(&question.rtype) {
            return Some("alias-any-type");
        }
        if theirs.answers.iter().all(|line| line.contains(" CNAME ")) && theirs.code != ours.code {
            return Some("alias-code");
        }
    }
    None
}
