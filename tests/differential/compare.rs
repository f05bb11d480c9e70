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
    /// Whether there is an OPT record, and its DO bit.
    dnssec_ok: Option<bool>,
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
}

impl Plain {
    fn of(message: &Message) -> Self {
        Self {
            code: message.metadata.response_code,
            authoritative: message.metadata.authoritative,
            dnssec_ok: message.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
            answers: lines(&message.answers),
            authorities: lines(&message.authorities),
            additionals: lines(&message.additionals),
        }
    }
}

impl Plain {
    /// All but the sections.
    fn head(&self) -> (ResponseCode, bool, Option<bool>) {
        (self.code, self.authoritative, self.dnssec_ok)
    }

    fn weightless(&self, asked: &str) -> Vec<String> {
        let [answers, ..] = self.lower(asked);
        answers.iter().map(|line| weightless(line)).collect()
    }

    /// Targets in lower case; what was asked for, and the zone it is in, as they are.
    fn lower(&self, asked: &str) -> [Vec<String>; 3] {
        let lower = |lines: &[String], kept: &dyn Fn(&str) -> bool| {
            let lower = |line: &String| {
                let (owner, rest) = line.split_once(' ').unwrap_or((line, ""));
                let owner = if kept(owner) { owner.into() } else { owner.to_ascii_lowercase() };
                format!("{owner} {}", rest.to_ascii_lowercase())
            };
            let mut lines: Vec<_> = lines.iter().map(lower).collect();
            lines.sort();
            lines
        };
        [
            lower(&self.answers, &|owner| owner.eq_ignore_ascii_case(asked)),
            lower(&self.authorities, &|_| true),
            // Each is a target.
            lower(&self.additionals, &|_| false),
        ]
    }
}

/// `NAME TTL SRV PRIORITY WEIGHT PORT TARGET` without its weight.
fn weightless(line: &str) -> String {
    let mut words: Vec<_> = line.split(' ').collect();
    if words.get(2) == Some(&"srv") {
        words.remove(4);
    }
    words.join(" ")
}

/// Whether a PTR record is that of an EndpointSlice whose Service is not there.
fn is_orphan(cluster: &Cluster<'_>, line: &str) -> bool {
    let target = line.rsplit(' ').next().unwrap_or_default();
    let labels: Vec<_> = target.split('.').collect();
    matches!(labels[..], [_, service, namespace, "svc", ..] if !cluster.has_service(namespace, service))
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
    if question.rtype == RecordType::SOA
        && theirs.code == ResponseCode::NoError
        && is_empty(theirs)
        && is_empty(ours)
    {
        return Some("soa-of-nothing");
    }
    let is_hinfo = |line: &String| line.to_ascii_lowercase().contains(" hinfo ");
    if question.rtype == RecordType::ANY && ours.answers.iter().any(is_hinfo) {
        return Some("any");
    }
    if denied_there && exists_here {
        let is_namespace = labels.len() == 4 && ["svc", "pod"].contains(&labels[1]);
        let is_protocol = below_service && ["_tcp", "_udp", "_sctp"].contains(&labels[0]);
        let is_zones = below_service
            && (labels[0] == "_zone"
                || ["pin", "prefer"].contains(&labels[0]) && labels[1] == "_zone");
        let known = ["dns-version.cluster.local.", "dns.cluster.local.", "ns.dns.cluster.local."];
        let for_text = ["cluster.local.", "svc.cluster.local.", "pod.cluster.local."];
        let is_text = question.rtype == RecordType::TXT && for_text.contains(&&*name);
        let is_known = is_text || known.contains(&&*name);
        if is_known || is_namespace || is_protocol || is_zones {
            return Some("ent-exists");
        }
    }
    let is_server = name == "ns.dns.cluster.local."
        || (name == "cluster.local." && question.rtype == RecordType::NS);
    if is_server && ours.code == ResponseCode::NoError && ours.authoritative {
        return Some("name-server");
    }
    if labels.last() == Some(&"arpa") {
        if question.rtype != RecordType::PTR && exists_here && ours.authoritative {
            return Some("reverse-other-types");
        }
        let extra: Vec<_> =
            theirs.answers.iter().filter(|line| !ours.answers.contains(line)).collect();
        if !extra.is_empty() && extra.iter().all(|line| is_orphan(cluster, line)) {
            return Some("orphan-endpoints");
        }
    }
    let is_same_kind = theirs.head() == ours.head();
    let asked = question.name.as_str();
    if is_same_kind && theirs.lower(asked) == ours.lower(asked) {
        return Some("target-case");
    }
    let is_same_servers = || theirs.weightless(asked) == ours.weightless(asked);
    if question.rtype == RecordType::SRV && is_same_kind && is_same_servers() {
        let part = |some: &[String], all: &[String]| some.iter().all(|line| all.contains(line));
        let [some, all] = [ours, theirs].map(|plain| plain.lower(asked)[2].clone());
        if some == all {
            return Some("srv-weight");
        }
        if part(&some, &all) {
            return Some("additional-room");
        }
        if part(&all, &some) {
            return Some("additional-all");
        }
    }
    // Of a headless Service without ready endpoints.
    let is_zonal = labels.len() >= 8 && below_service && labels[labels.len() - 6] == "_zone";
    let exists_there = theirs.code == ResponseCode::NoError && is_empty(theirs);
    if is_zonal && exists_there && ours.code == ResponseCode::NXDomain {
        let (service, namespace) = (labels[labels.len() - 5], labels[labels.len() - 4]);
        return cluster.has_service(namespace, service).then_some("zonal");
    }
    if labels.len() == 5 && labels[2] == "pod" && question.rtype == RecordType::SRV && exists_here {
        return Some("pod-srv");
    }
    if labels[0] == "_" && ours.code == ResponseCode::NXDomain {
        return Some("empty-port");
    }
    if below_service && cluster.is_alias(labels[labels.len() - 4], labels[labels.len() - 5]) {
        let plain_types = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
        if labels.len() == 5 && !plain_types.contains(&question.rtype) {
            return Some("alias-any-type");
        }
        let is_chain = |plain: &Plain| plain.answers.iter().all(|line| line.contains(" CNAME "));
        if theirs.code == ours.code && is_chain(theirs) && is_chain(ours) {
            return Some("alias-nodata");
        }
        if theirs.answers.iter().all(|line| line.contains(" CNAME ")) && theirs.code != ours.code {
            return Some("alias-code");
        }
    }
    None
}
