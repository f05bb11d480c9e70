//! `rewrite`: another question is asked, and the answer made to fit the first one.

use std::net::IpAddr;

use hickory_proto::{
    op::Message,
    rr::{DNSClass, Name, Record},
};

use ipnetwork::IpNetwork;

use super::records::{name, name_within, text};
use crate::corefile::{AnswerRewrite, NameMatch, OptionAction, RewriteField, RewriteRule};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) source: IpAddr,
    /// The question has an option of RFC 7871.
    pub(crate) has_subnet: bool,
}

impl Client {
    fn network(self, (v4, v6): (u8, u8)) -> Option<IpNetwork> {
        let source = self.source.to_canonical();
        let network = IpNetwork::new(source, if source.is_ipv4() { v4 } else { v6 }).ok()?;
        // Bits beyond the prefix are not told.
        IpNetwork::new(network.network(), network.prefix()).ok()
    }
}

/// The question to ask, and how its answer is changed.
#[derive(Debug)]
pub(crate) struct Rewritten<'r> {
    /// Lower case, with the final dot; may be no name at all.
    pub(crate) name: String,
    pub(crate) qtype: u16,
    pub(crate) class: DNSClass,
    /// The client's network, for upstreams to be told.
    pub(crate) subnet: Option<IpNetwork>,
    /// Where aliases in the answer are to lead instead, in the order of the rules.
    pub(crate) aliases: Vec<(&'r NameMatch, &'r str)>,
    /// In the order of the rules; carried out from the last to the first.
    back: Vec<Back<'r>>,
}

#[derive(Debug)]
enum Back<'r> {
    /// Names at and below the first become the second's.
    Name {
        in_data: bool,
        from: String,
        to: String,
    },
    /// Names that end in the first end in the second.
    Suffix {
        in_data: bool,
        from: &'r str,
        to: &'r str,
    },
    /// As the rule says.
    Answer(&'r AnswerRewrite),
    Ttl(u32, u32),
    Code(&'r RewriteField),
}

/// Whether a rule does anything with this question.
pub(super) fn applies(rule: &RewriteRule, name: &str, qtype: u16) -> bool {
    match &rule.field {
        RewriteField::Name { from: names, .. }
        | RewriteField::Ttl { names, .. }
        | RewriteField::Rcode { names, .. } => names.fits(name),
        RewriteField::Type { from, .. } => *from == qtype,
        // Plain questions are of class IN already.
        RewriteField::Class(_) | RewriteField::Unset => false,
        // Only the answer, or the client, can tell.
        RewriteField::Cname { .. } | RewriteField::Subnet { .. } => true,
    }
}

/// Applies the rules in order, up to the first that fits and stops.
pub(super) fn rewrite<'r>(
    rules: &'r [RewriteRule],
    name: &str,
    qtype: u16,
    class: DNSClass,
    client: Client,
) -> Option<Rewritten<'r>> {
    let mut done = Rewritten {
        name: name.to_owned(),
        qtype,
        class,
        subnet: None,
        aliases: vec![],
        back: vec![],
    };
    let mut any = false;
    for rule in rules {
        if !done.apply(&rule.field, client) {
            continue;
        }
        any = true;
        // What is no name any more fits nothing that is meant.
        if !rule.goes_on || super::records::name(&done.name).is_none() {
            break;
        }
    }
    any.then_some(done)
}

impl<'r> Rewritten<'r> {
    fn apply(&mut self, field: &'r RewriteField, client: Client) -> bool {
        match field {
            RewriteField::Name { from, to, auto, answers } => {
                let Some(new) = from.replaced(&self.name, to) else { return false };
                let old = std::mem::replace(&mut self.name, new);
                if *auto {
                    self.back.extend([false, true].map(|in_data| match from {
                        NameMatch::Suffix(suffix) => Back::Suffix { in_data, from: to, to: suffix },
                        _ => Back::Name { in_data, from: self.name.clone(), to: old.clone() },
                    }));
                }
                self.back.extend(answers.iter().map(Back::Answer));
            }
            RewriteField::Type { from, to } => {
                if self.qtype != *from {
                    return false;
                }
                self.qtype = *to;
            }
            RewriteField::Class(from) => {
                if self.class != *from {
                    return false;
                }
                self.class = DNSClass::IN;
            }
            RewriteField::Cname { from, to } => self.aliases.push((from, to)),
            RewriteField::Unset => {}
            RewriteField::Subnet { action, bits } => {
                let fits = match action {
                    OptionAction::Set => true,
                    OptionAction::Append => !client.has_subnet,
                    OptionAction::Replace => client.has_subnet,
                };
                if !fits {
                    return false;
                }
                self.subnet = client.network(*bits);
            }
            RewriteField::Ttl { names, seconds: (least, most) } => {
                if !names.fits(&self.name) {
                    return false;
                }
                self.back.push(Back::Ttl(*least, *most));
            }
            RewriteField::Rcode { names, .. } => {
                if !names.fits(&self.name) {
                    return false;
                }
                self.back.push(Back::Code(field));
            }
        }
        true
    }

    /// Makes an answer one to the question the client has asked.
    pub(crate) fn restore(&self, reply: &mut Message) {
        for back in self.back.iter().rev() {
            if let Back::Code(RewriteField::Rcode { from, to, .. }) = back
                && reply.metadata.response_code == *from
            {
                reply.metadata.response_code = *to;
            }
        }
        let Message { answers, authorities, additionals, .. } = reply;
        for record in answers.iter_mut().chain(authorities).chain(additionals) {
            self.back.iter().rev().for_each(|back| back.change(record));
        }
    }
}

impl Back<'_> {
    fn change(&self, record: &mut Record) {
        match self {
            Self::Ttl(least, most) => record.ttl = record.ttl.clamp(*least, *most),
            Self::Code(_) => {}
            Self::Name { in_data, from, to } => {
                rename(record, *in_data, |text| match text.strip_suffix(from.as_str())? {
                    "" => Some(to.clone()),
                    below if below.ends_with('.') => Some(format!("{below}{to}")),
                    _ => None,
                });
            }
            Self::Suffix { in_data, from, to } => {
                rename(record, *in_data, |text| {
                    text.strip_suffix(from).map(|rest| format!("{rest}{to}"))
                });
            }
            Self::Answer(answer) => {
                rename(record, answer.in_data, |text| answer.from.replaced(text, &answer.to));
            }
        }
    }
}

/// Changes a name; what would be no name is left as it is.
fn rename(record: &mut Record, in_data: bool, new: impl Fn(&str) -> Option<String>) {
    let renamed = |old: &Name| text(old).and_then(|old| new(&old)).and_then(|new| name(&new));
    let place = if in_data { name_within(&mut record.data) } else { Some(&mut record.name) };
    if let Some(place) = place
        && let Some(new) = renamed(place)
    {
        *place = new;
    }
}
