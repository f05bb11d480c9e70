//! Are two replies the same, and if not, which rule of docs/dns-differences.md allows it?

mod rules;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record},
};

use self::rules::{Case, rule};
use crate::{
    cluster::Known,
    questions::{Question, Replies},
    setups::Setup,
};

/// What comparing came to.
#[derive(Debug)]
pub(crate) enum Verdict {
    Same,
    /// Different, as this rule says.
    Rule(&'static str),
    Different(String),
}

/// An OPT record but for its size.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opt {
    version: u8,
    dnssec_ok: bool,
    options: Vec<String>,
}

/// A reply with what is never the same taken out: order, ids, serials, denials' times, RA.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plain {
    code: ResponseCode,
    authoritative: bool,
    /// AD, CD, RD.
    flags: [bool; 3],
    edns: Option<Opt>,
    /// The question as it comes back, letter case included.
    question: Vec<String>,
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
}

impl Plain {
    fn of(message: &Message) -> Self {
        let metadata = &message.metadata;
        let options = |edns: &hickory_proto::op::Edns| {
            let all = edns.options().as_ref().iter();
            let mut all: Vec<_> = all.map(|(_, option)| format!("{option:?}")).collect();
            all.sort();
            all
        };
        let edns = message.edns.as_ref().map(|edns| Opt {
            version: edns.version(),
            dnssec_ok: edns.flags().dnssec_ok,
            options: options(edns),
        });
        Self {
            code: metadata.response_code,
            authoritative: metadata.authoritative,
            flags: [
                metadata.authentic_data,
                metadata.checking_disabled,
                metadata.recursion_desired,
            ],
            edns,
            question: message.queries.iter().map(ToString::to_string).collect(),
            answers: lines(&message.answers),
            authorities: lines(&message.authorities),
            additionals: lines(&message.additionals),
        }
    }
}

impl Plain {
    /// All but the sections.
    fn head(&self) -> (ResponseCode, bool, [bool; 3], &Option<Opt>, &[String]) {
        (self.code, self.authoritative, self.flags, &self.edns, &self.question)
    }

    /// No time to live of what others know: it runs.
    fn timeless(mut self) -> Self {
        for line in self.answers.iter_mut().chain(&mut self.additionals) {
            let mut words: Vec<_> = line.split(' ').collect();
            if !words[0].to_ascii_lowercase().ends_with("cluster.local.") && words.len() > 2 {
                words[1] = "?";
            }
            *line = words.join(" ");
        }
        self
    }

    /// Nothing but a code.
    fn is_bare(&self) -> bool {
        self.answers.is_empty() && self.authorities.is_empty() && self.additionals.is_empty()
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

pub(crate) fn verdict(
    setup: &Setup,
    known: &Known,
    question: &Question,
    replies: &Replies,
) -> Verdict {
    let [mut theirs, mut ours] = [&replies.theirs, &replies.ours].map(Plain::of);
    if setup.has("cache") {
        [theirs, ours] = [theirs, ours].map(Plain::timeless);
    }
    if theirs == ours {
        return Verdict::Same;
    }
    let case = Case { setup, known, question, theirs: &theirs, ours: &ours };
    match rule(case) {
        Some(rule) => Verdict::Rule(rule),
        None => Verdict::Different(format!("  CoreDNS:  {theirs:?}\n  Fairlead: {ours:?}")),
    }
}
