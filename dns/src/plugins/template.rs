//! `template`: answers made from questions.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use hickory_proto::op::{Message, ResponseCode};
use regex::Captures;

use super::{Claim, Seen, records};
use crate::{
    corefile::{Pattern, Piece, RecordTemplate, TemplateOptions, Value},
    error::DnsError,
    policy::{Misses, ZoneName, zone_names},
    wire::{name::LowerName, rtype, types::type_name},
};

/// One `template` at work.
#[derive(Debug)]
pub(super) struct Template {
    options: TemplateOptions,
    /// The longest first.
    zones: Vec<(ZoneName, String)>,
    misses: Misses,
    /// That it makes no record of a name is said once: clients must not fill the log.
    is_said: AtomicBool,
}

/// What a template is filled in with.
struct Filling<'f> {
    seen: Seen<'f>,
    /// As CoreDNS says it: of a question for any type, the template's own.
    qtype: u16,
    text: &'f str,
    zone: &'f str,
    found: Option<Captures<'f>>,
}

impl Template {
    pub(super) fn new(options: &TemplateOptions) -> Result<Self, DnsError> {
        let names = zone_names(&options.zones)?;
        let texts = options.zones.iter().map(|zone| format!("{}.", zone.trim_end_matches('.')));
        let mut zones: Vec<_> = names.into_iter().zip(texts).collect();
        zones.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.labels));
        let misses = Misses::new(&options.fallthrough)?;
        Ok(Self { options: options.clone(), zones, misses, is_said: AtomicBool::new(false) })
    }

    fn zone(&self, name: &LowerName, qtype: u16) -> Option<&str> {
        let wanted = self.options.qtype;
        if wanted.is_some_and(|wanted| qtype != wanted && qtype != rtype::ANY) {
            return None;
        }
        let holds = self.zones.iter().find(|(zone, _)| zone.holds(name));
        holds.map(|(_, text)| text.as_str())
    }

    fn fitting(&self, text: &str) -> Option<Option<&Pattern>> {
        let matches = &self.options.matches;
        if matches.is_empty() {
            return Some(None);
        }
        matches.iter().find(|pattern| pattern.is_match(text)).map(Some)
    }

    pub(super) fn claim(&self, name: &LowerName, text: &str, qtype: u16) -> Claim {
        if self.zone(name, qtype).is_none() {
            return Claim::None;
        }
        let TemplateOptions { answers, authorities, additionals, code, .. } = &self.options;
        let has_records = [answers, authorities, additionals].iter().any(|all| !all.is_empty());
        match self.fitting(text) {
            None if self.misses.pass_on(name) => Claim::None,
            Some(_) if !has_records && *code != ResponseCode::ServFail => Claim::Code(*code),
            _ => Claim::Slow,
        }
    }

    /// `None`: the next template, and then the next plugin, is asked.
    pub(super) fn make(&self, seen: Seen<'_>, text: &str) -> Option<Result<Message, ResponseCode>> {
        let zone = self.zone(seen.name, seen.qtype)?;
        let Some(pattern) = self.fitting(text) else {
            let ends = !self.misses.pass_on(seen.name);
            return ends.then_some(Err(ResponseCode::ServFail));
        };
        let TemplateOptions { answers, authorities, additionals, code, .. } = &self.options;
        if *code == ResponseCode::ServFail {
            return Some(Err(*code));
        }
        let found = pattern.and_then(|pattern| pattern.captures(text));
        let qtype = match (seen.qtype, self.options.qtype) {
            (rtype::ANY, Some(own)) => own,
            (asked, _) => asked,
        };
        let filling = Filling { seen, qtype, text, zone, found };
        let records = |templates: &[RecordTemplate]| {
            templates.iter().map(|one| filling.record(one)).collect::<Result<Vec<_>, _>>()
        };
        let mut message = Message::query();
        message.metadata.response_code = *code;
        message.metadata.authoritative = true;
        for (place, templates) in [
            (&mut message.answers, answers),
            (&mut message.authorities, authorities),
            (&mut message.additionals, additionals),
        ] {
            match records(templates) {
                Ok(made) => *place = made,
                Err(reason) => {
                    if !self.is_said.swap(true, Relaxed) {
                        tracing::warn!(
                            name = text,
                            reason,
                            "DNS: template: not a record: SERVFAIL"
                        );
                    }
                    return Some(Err(ResponseCode::ServFail));
                }
            }
        }
        Some(Ok(message))
    }
}

impl Filling<'_> {
    fn record(&self, template: &RecordTemplate) -> Result<hickory_proto::rr::Record, String> {
        let mut text = String::new();
        for piece in &template.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Value(value) => text.push_str(&self.value(value)?),
            }
        }
        records::parse(&text)
    }

    fn value(&self, value: &Value) -> Result<String, String> {
        let group = |index| {
            let found = self.found.as_ref().and_then(|found| found.get(index));
            found.map_or("", |group| group.as_str()).to_owned()
        };
        Ok(match value {
            Value::Name => self.text.to_owned(),
            Value::Zone => self.zone.to_owned(),
            Value::Type => type_name(self.qtype).into_owned(),
            Value::Class => "IN".to_owned(),
            Value::Remote => self.seen.source.to_canonical().to_string(),
            Value::Literal(text) => text.clone(),
            Value::Match(0) if self.found.is_none() => self.text.to_owned(),
            Value::Match(index) => {
                let groups = self.found.as_ref().map_or(1, Captures::len);
                if *index >= groups {
                    return Err(format!("index .Match {index}: there are {groups}"));
                }
                group(*index)
            }
            // Numbers name groups too.
            Value::Group(name) => match name.parse::<usize>() {
                Ok(index) => group(index),
                Err(_) => {
                    let found = self.found.as_ref().and_then(|found| found.name(name));
                    found.map_or("", |group| group.as_str()).to_owned()
                }
            },
            Value::Number { digits, base, bits } => {
                let digits = self.value(digits)?;
                let number = u64::from_str_radix(&digits, *base).ok();
                let number = number.filter(|n| *bits >= 64 || n >> bits == 0);
                let number = number.ok_or_else(|| format!("parseInt {digits:?} {base} {bits}"))?;
                let mut text = String::new();
                let _ = write!(text, "{number}");
                text
            }
        })
    }
}
