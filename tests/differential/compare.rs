//! Are two replies the same, and if not, which rule of docs/dns-differences.md allows it?

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};

use crate::{
    cluster::{Cluster, NAMESPACES},
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
    /// The question as it comes back, letter case included.
    question: Vec<String>,
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
            question: message.queries.iter().map(ToString::to_string).collect(),
            answers: lines(&message.answers),
            authorities: lines(&message.authorities),
            additionals: lines(&message.additionals),
        }
    }
}

impl Plain {
    /// All but the sections.
    fn head(&self) -> (ResponseCode, bool, Option<bool>, &[String]) {
        (self.code, self.authoritative, self.dnssec_ok, &self.question)
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

/// Namespaces there are.
fn has_namespace(name: &str) -> bool {
    NAMESPACES.contains(&name) || ["kube-system", "probe"].contains(&name)
}

/// The most bytes a reply to a question for servers can have: no name in it is a pointer.
fn reply_bytes(asked: &str, reply: &Plain) -> usize {
    /// Header, question type and class, OPT record.
    const FIXED_BYTES: usize = 12 + 4 + 11;
    /// Type, class, time to live, length; then an address, or priority, weight and port.
    const RECORD_BYTES: usize = 10 + 16;
    let name = |word: &str| word.len() + 1;
    let record = |line: &String| {
        let words = || line.split(' ');
        let target = words().next_back().filter(|_| line.contains(" SRV ")).map_or(0, name);
        words().next().map_or(0, name) + RECORD_BYTES + target
    };
    let records = reply.answers.iter().chain(&reply.additionals).map(record);
    FIXED_BYTES + name(asked) + records.sum::<usize>()
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
    if theirs.question != ours.question {
        return None;
    }
    let is_empty = |plain: &Plain| plain.answers.is_empty();
    let denied_there = theirs.code == ResponseCode::NXDomain && is_empty(theirs);
    let exists_here = ours.code == ResponseCode::NoError && is_empty(ours);
    let exists_there = theirs.code == ResponseCode::NoError && is_empty(theirs);
    let below_service = labels.len() >= 5 && labels[labels.len() - 3] == "svc";
    // That of the Service, if it is one's name or below it.
    let key =
        if below_service { (labels[labels.len() - 4], labels[labels.len() - 5]) } else { ("", "") };
    let is_service = cluster.has_service(key.0, key.1);
    let is_denial = [ResponseCode::NoError, ResponseCode::NXDomain].contains(&ours.code);
    if question.rtype == RecordType::SOA && exists_there && is_denial && is_empty(ours) {
        return Some("soa-of-nothing");
    }
    let is_hinfo = |line: &String| line.to_ascii_lowercase().contains(" hinfo ");
    let is_ours = name.ends_with("cluster.local.") && !name.ends_with("xcluster.local.");
    if question.rtype == RecordType::ANY
        && !is_ours
        && ours.answers.iter().all(is_hinfo)
        && !is_empty(ours)
    {
        return Some("any");
    }
    if denied_there && exists_here {
        let is_namespace =
            labels.len() == 4 && ["svc", "pod"].contains(&labels[1]) && has_namespace(labels[0]);
        let is_protocol =
            is_service && labels.len() == 6 && ["_tcp", "_udp", "_sctp"].contains(&labels[0]);
        let is_zones = is_service
            && (labels[0] == "_zone" && labels.len() == 6
                || ["pin", "prefer"].contains(&labels[0])
                    && labels[1] == "_zone"
                    && labels.len() == 7);
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
    let is_kube_dns = |line: &String| line.ends_with(" NS kube-dns.kube-system.svc.cluster.local.");
    let is_right = match question.rtype {
        RecordType::NS => ours.answers.iter().all(is_kube_dns),
        // There is no such Service here.
        _ => is_empty(ours),
    };
    if is_server && is_right && ours.code == ResponseCode::NoError && ours.authoritative {
        return Some("name-server");
    }
    if labels.last() == Some(&"arpa") {
        let is_other = question.rtype != RecordType::PTR && denied_there;
        if is_other && exists_here && ours.authoritative {
            return Some("reverse-other-types");
        }
        let (orphans, others): (Vec<_>, Vec<_>) =
            theirs.answers.iter().partition(|line| is_orphan(cluster, line));
        if !orphans.is_empty() && others == ours.answers.iter().collect::<Vec<_>>() {
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
        if part(&some, &all) && question.lacks_room(reply_bytes(asked, theirs)) {
            return Some("additional-room");
        }
        let is_target = |line: &&String| {
            let owner = line.split(' ').next().unwrap_or_default();
            ours.answers
                .iter()
                .any(|answer| answer.to_ascii_lowercase().ends_with(&format!(" {owner}")))
        };
        if part(&all, &some)
            && some.iter().filter(|line| !all.contains(line)).all(|line| is_target(&line))
        {
            return Some("additional-all");
        }
    }
    // Of a headless Service without ready endpoints.
    let is_zonal = labels.len() >= 8 && below_service && labels[labels.len() - 6] == "_zone";
    if is_zonal && exists_there && ours.code == ResponseCode::NXDomain {
        return is_service.then_some("zonal");
    }
    let is_pod = labels.len() == 5 && labels[2] == "pod";
    if is_pod && question.rtype == RecordType::SRV && exists_here && !is_empty(theirs) {
        return Some("pod-srv");
    }
    if labels[0] == "_" && is_service && labels.len() == 7 && ours.code == ResponseCode::NXDomain {
        return Some("empty-port");
    }
    if labels.len() == 5 && cluster.is_alias(key.0, key.1) {
        // One that leads to itself leads nowhere.
        let is_endless = ours.code == ResponseCode::ServFail && is_empty(ours);
        let is_chain = |plain: &Plain| plain.answers.iter().all(|line| line.contains(" CNAME "));
        let begins_here = ours.answers.iter().any(|line| line.contains(" CNAME "));
        let plain_types = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
        if !plain_types.contains(&question.rtype) && exists_there && (begins_here || is_endless) {
            return Some("alias-any-type");
        }
        if theirs.code == ours.code && is_chain(theirs) && is_chain(ours) {
            return Some("alias-nodata");
        }
        let is_failure = ours.code != ResponseCode::NoError && is_chain(ours);
        if is_chain(theirs) && theirs.code == ResponseCode::NoError && is_failure {
            return Some("alias-code");
        }
    }
    None
}
