//! What a question would be answered, and by whom: the server's own way through a server block,
//! without asking anyone.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use fairlead_state::Snapshot;
use hickory_proto::{
    op::Message,
    rr::{Name, RData, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

use crate::{
    answer::{Manner, Outcome, answer},
    cache::Flavour,
    config::DnsConfig,
    corefile::AclAction,
    counters::Ledgers,
    error::DnsError,
    plugins::Claim,
    policy::{Asking, Policy},
    server,
    slow::{Wishes, alias::ALIASES_MAX, in_hosts, plain_query},
    wire::{
        name::{BadName, WireName},
        question::{Question, Shape},
        rcode, reply,
    },
    zone::{Zone, lookup::Found},
};

/// Explains by the settings and names of one moment.
#[derive(Debug)]
pub struct Explainer {
    policy: Arc<Policy>,
    zone: Arc<Zone>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The cluster's names.
    Kubernetes,
    /// `hosts`.
    Hosts,
    /// These servers would be asked, or files that name them.
    Upstreams(Vec<String>),
    /// `acl`.
    Acl,
    /// `rewrite`, `template` or another that changes questions: only the server itself can tell.
    Plugin,
    /// Nobody serves the name.
    Nobody,
}

/// Why something cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    /// It is no domain name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// No type of records is called so.
    #[error("{0:?} is no type of records: give A, AAAA, CNAME, SRV, PTR, TXT or another")]
    Type(String),
}

/// What a name and type are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The name that was asked for, absolute.
    pub name: String,
    /// `A`, `AAAA`, …
    pub record: String,
    /// `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`; of a name that is asked elsewhere `forwarded`,
    /// of one that a plugin answers, unless that is a mere code, `plugin`.
    pub code: &'static str,
    /// Who answers.
    pub by: By,
    /// Answer records as text.
    pub records: Vec<String>,
    /// The addresses among them.
    pub addresses: Vec<IpAddr>,
    /// The zone of the server block that takes the question; `None`: none does.
    pub zone: Option<String>,
}

impl Explainer {
    /// Explains what a server with these settings would answer from `snapshot`.
    ///
    /// # Errors
    /// The settings name something that is no domain.
    pub fn new(config: &DnsConfig, snapshot: Option<&Snapshot>) -> Result<Self, DnsError> {
        config.listening()?;
        let origin = server::origin(config)?;
        let mut zone = Zone::unsynced(origin, 1);
        if let Some(snapshot) = snapshot {
            zone = zone.updated(snapshot, 1);
        }
        let policy = Policy::new(&config.in_force(), &[], &Ledgers::default())?;
        Ok(Self { policy: policy.into(), zone: zone.into() })
    }

    pub(crate) fn of(policy: Arc<Policy>, zone: Arc<Zone>) -> Self {
        Self { policy, zone }
    }

    /// The cluster's domain.
    pub fn domain(&self) -> String {
        text(&self.zone.origin().name)
    }

    /// What `source` is answered for a name (with or without its final dot) and type.
    ///
    /// # Errors
    /// It is no name, or no type.
    pub fn explain(
        &self,
        name: &str,
        record: &str,
        source: IpAddr,
    ) -> Result<Explanation, BadQuestion> {
        let mut wire = match name.trim_end_matches('.') {
            "" => WireName::root(),
            name => WireName::from_text(name)?,
        };
        let qtype = record.to_ascii_uppercase().parse::<RecordType>();
        let qtype = qtype.map_err(|_| BadQuestion::Type(record.to_owned()))?;
        let mut explanation = Explanation {
            name: text(&wire),
            record: qtype.to_string(),
            code: "SERVFAIL",
            by: By::Nobody,
            records: vec![],
            addresses: vec![],
            zone: None,
        };
        for _ in 0..=ALIASES_MAX {
            match self.step(&wire, qtype, source, &mut explanation) {
                Some(target) => wire = target,
                None => break,
            }
        }
        Ok(explanation)
    }

    /// One name; an alias' target is the next.
    fn step(
        &self,
        name: &WireName,
        qtype: RecordType,
        source: IpAddr,
        into: &mut Explanation,
    ) -> Option<WireName> {
        let query = query(name, qtype);
        let mut question = Question::new();
        if question.read(&query) != Shape::Plain {
            return None;
        }
        // The group of the first server block is what `--dns-listen` serves.
        let source_port = SocketAddr::new(source, 0);
        let asking = Asking { question: &question, query: &query, source: source_port, tcp: false };
        let Some(site) = self.policy.site(0, asking) else {
            (into.code, into.by) = ("REFUSED", By::Nobody);
            return None;
        };
        into.zone.get_or_insert_with(|| text(site.zone()));
        if site.verdict(source, &question.name, qtype.into()) != AclAction::Allow {
            (into.code, into.by) = ("REFUSED", By::Acl);
            return None;
        }
        match site.plugins.as_ref().map_or(Claim::None, |plugins| plugins.claim(asking)) {
            Claim::None => {}
            Claim::Code(code) => {
                (into.code, into.by) = (word(code.low()), By::Plugin);
                return None;
            }
            Claim::Slow => {
                (into.code, into.by) = ("plugin", By::Plugin);
                return None;
            }
        }
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let manner = Manner {
            limit: buffer.len(),
            recursion_available: true,
            rotation: 0,
            minimal: site.minimal,
        };
        if let Some(bytes) = in_hosts(site, &question, &query, &mut buffer, manner) {
            buffer.truncate(bytes);
            (into.code, into.by) = (word(reply::code(&buffer)), By::Hosts);
            take_records(&buffer, into);
            return None;
        }
        if site.kubernetes {
            if let Found::Alias(target) = self.zone.lookup(&question.name, qtype.into()).0 {
                into.by = By::Kubernetes;
                let line = format!("{} CNAME {}", text(name), text(target));
                into.records.push(line);
                return Some(target.clone());
            }
            match answer(&self.zone, &question, &query, &mut buffer, manner) {
                Outcome::Reply(made) | Outcome::Refresh(made) => {
                    let reply = buffer.get_mut(..made.bytes).unwrap_or_default();
                    if !site
                        .plugins
                        .as_ref()
                        .is_none_or(|all| all.finish(asking, &self.zone, reply))
                    {
                        (into.code, into.by) = ("plugin", By::Plugin);
                        return None;
                    }
                    into.by = By::Kubernetes;
                    into.code = word(made.code);
                    buffer.truncate(made.bytes);
                    take_records(&buffer, into);
                    return None;
                }
                Outcome::Outside | Outcome::Elsewhere => {}
            }
        }
        match site.forwards(&question.name).next() {
            Some(forward) => {
                (into.code, into.by) = ("forwarded", By::Upstreams(forward.targets()));
            }
            None => (into.code, into.by) = ("REFUSED", By::Nobody),
        }
        None
    }
}

fn take_records(reply: &[u8], into: &mut Explanation) {
    let Ok(message) = Message::from_vec(reply) else { return };
    for record in &message.answers {
        let (name, kind, data) = (&record.name, record.record_type(), &record.data);
        into.records.push(format!("{name} {} {kind} {data}", record.ttl));
        match data {
            RData::A(ip) => into.addresses.push(ip.0.into()),
            RData::AAAA(ip) => into.addresses.push(ip.0.into()),
            _ => {}
        }
    }
}

fn word(code: u8) -> &'static str {
    match code {
        rcode::NO_ERROR => "NOERROR",
        rcode::NO_SUCH_NAME => "NXDOMAIN",
        _ => "SERVFAIL",
    }
}

/// A name as people write it.
fn text(name: &WireName) -> String {
    let read = Name::read(&mut BinDecoder::new(name.as_bytes()));
    read.map(|name| name.to_string()).unwrap_or_default()
}

fn query(name: &WireName, qtype: RecordType) -> Vec<u8> {
    let flavour = Flavour::default();
    let wishes = Wishes { recursion_desired: true, authentic_data: false, flavour };
    plain_query(0, wishes, name.as_bytes(), qtype)
}

#[cfg(test)]
mod tests;
