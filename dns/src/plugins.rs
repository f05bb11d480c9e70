//! Plugins that change questions or make answers themselves. A server block without them has none
//! of this and pays nothing for it.

mod autopath;
mod external;
mod order;
mod records;
mod replies;
pub(crate) mod rewrite;
mod template;
mod weights;

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::DNSClass,
};
use ipnetwork::IpNetwork;

use self::{autopath::Autopath, template::Template, weights::Weights};
pub(crate) use self::{
    external::External,
    order::turn,
    records::{name, name_within, text as name_text},
    replies::whoami,
};
use crate::{
    corefile::{Dns64Options, HeaderOptions, RewriteRule, ServerBlock},
    error::DnsError,
    policy::Asking,
    wire::{name::LowerName, reply, rtype, text::NameText},
    zone::Zone,
};

/// One server block's.
#[derive(Debug)]
pub(crate) struct Plugins {
    rewrites: Vec<RewriteRule>,
    templates: Vec<Template>,
    pub(crate) header: HeaderOptions,
    /// `nsid`: what this server calls itself.
    pub(crate) nsid: Option<Box<[u8]>>,
    pub(crate) dns64: Option<Dns64Options>,
    /// `prefer` of `loadbalance`.
    prefer: Vec<IpNetwork>,
    /// `weighted` of `loadbalance`.
    weights: Option<Weights>,
    pub(crate) autopath: Option<Autopath>,
    pub(crate) external: Option<External>,
    /// `any`: questions for ANY are answered with one small record, whatever the name (RFC 8482 §4.2).
    pub(crate) any: bool,
    /// Questions that nobody else answers are told who asked.
    pub(crate) whoami: bool,
}

/// What the plugins want of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nothing: it goes on as it is.
    None,
    /// This response code without records.
    Code(ResponseCode),
    /// Work for the slow path.
    Slow,
}

/// A question for a plugin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'q> {
    pub(crate) name: &'q LowerName,
    pub(crate) qtype: u16,
    pub(crate) source: IpAddr,
}

impl Plugins {
    /// `None` if the block has none of them.
    pub(crate) fn new(block: &ServerBlock) -> Result<Option<Self>, DnsError> {
        let ServerBlock { rewrites, templates, header, nsid, dns64, .. } = block;
        let ServerBlock { autopath, external, whoami, any, prefer, weights, .. } = block;
        let changes_questions = !rewrites.is_empty() || !templates.is_empty() || autopath.is_some();
        let makes_answers = external.is_some() || *whoami || *any;
        let orders = !prefer.is_empty() || weights.is_some();
        let changes_replies = header.is_some() || nsid.is_some() || dns64.is_some() || orders;
        if !changes_questions && !changes_replies && !makes_answers {
            return Ok(None);
        }
        let templates: Result<_, _> = templates.iter().map(Template::new).collect();
        Ok(Some(Self {
            rewrites: rewrites.clone(),
            templates: templates?,
            header: header.unwrap_or_default(),
            nsid: nsid.as_ref().map(|text| identifier(text.as_deref())),
            dns64: *dns64,
            prefer: prefer.clone(),
            weights: weights.as_ref().map(Weights::new).transpose()?,
            autopath: autopath.as_ref().map(Autopath::new).transpose()?,
            external: external.as_ref().map(External::new).transpose()?,
            any: *any,
            whoami: *whoami,
        }))
    }

    /// Whether a plain question can be answered as if there were no plugins.
    pub(crate) fn claim(&self, asking: Asking<'_>) -> Claim {
        let question = asking.question;
        let wants_nsid = self.nsid.is_some() && question.edns.is_some_and(|edns| edns.nsid);
        let translates = |dns64: Dns64Options| dns64.translate_all && dns64.is_for(asking);
        let is_external = self.external.as_ref().is_some_and(|all| all.holds(&question.name));
        let is_any = self.any && question.qtype == rtype::ANY;
        let changes = wants_nsid || !self.header.query.is_empty() || is_external || is_any;
        if changes || self.dns64.is_some_and(translates) {
            return Claim::Slow;
        }
        if self.rewrites.is_empty() && self.templates.is_empty() {
            return Claim::None;
        }
        let text = NameText::of(&question.name);
        let mut rewrites = self.rewrites.iter();
        if rewrites.any(|rule| rewrite::applies(rule, text.as_str(), question.qtype)) {
            return Claim::Slow;
        }
        self.claimed(&question.name, text.as_str(), question.qtype)
    }

    /// Completes a reply that was made without plugins; false if it must be made by the slow path.
    pub(crate) fn finish(&self, asking: Asking<'_>, zone: &Zone, reply: &mut [u8]) -> bool {
        let translates =
            |dns64: Dns64Options| dns64.is_for(asking) && dns64.wants(reply, asking.question.end);
        let searches = |autopath: &Autopath| {
            !is_final(reply::code(reply))
                && autopath.is_for(zone, &asking.question.name, asking.source.ip())
        };
        if self.dns64.is_some_and(translates) || self.autopath.as_ref().is_some_and(searches) {
            return false;
        }
        // What is preferred may have been cut off.
        if !self.prefer.is_empty() && reply::is_cut(reply) {
            return false;
        }
        order::prefer(reply, asking.question.end, &self.prefer);
        self.header.response.apply(reply);
        true
    }

    /// Whether answers to questions of a type are put in order by weights, which the slow path does.
    pub(crate) fn weigh(&self, qtype: u16) -> bool {
        self.weights.as_ref().is_some_and(|weights| weights.are_for(qtype))
    }

    /// Whether the slow path puts answers to questions of a type in order.
    pub(crate) fn order(&self, qtype: u16) -> bool {
        !self.prefer.is_empty() || self.weigh(qtype)
    }

    /// A whole reply of the slow path with its addresses in the order that is preferred; `None` if it cannot be read.
    pub(crate) fn ordered(&self, reply: &[u8], qtype: u16) -> Option<Message> {
        let weights = self.weights.as_ref().filter(|weights| weights.are_for(qtype));
        let mut message = Message::from_vec(reply).ok()?;
        match weights {
            Some(weights) => {
                weights.order(&mut message.answers);
                weights.order(&mut message.additionals);
            }
            None => order::prefer_records(&mut message.answers, &self.prefer),
        }
        Some(message)
    }

    fn claimed(&self, name: &LowerName, text: &str, qtype: u16) -> Claim {
        let claims = self.templates.iter().map(|template| template.claim(name, text, qtype));
        claims.into_iter().find(|claim| *claim != Claim::None).unwrap_or(Claim::None)
    }

    /// The question to ask instead; `None` if no rule fits.
    pub(crate) fn rewrite(
        &self,
        name: &LowerName,
        qtype: u16,
        class: DNSClass,
        client: rewrite::Client,
    ) -> Option<rewrite::Rewritten<'_>> {
        if self.rewrites.is_empty() {
            return None;
        }
        rewrite::rewrite(&self.rewrites, NameText::of(name).as_str(), qtype, class, client)
    }

    /// The answer a template makes; `None` if none is for this question.
    pub(crate) fn make(&self, seen: Seen<'_>) -> Option<Result<Message, ResponseCode>> {
        if self.templates.is_empty() {
            return None;
        }
        let text = NameText::of(seen.name);
        self.templates.iter().find_map(|template| template.make(seen, text.as_str()))
    }
}

/// What this server calls itself: by default the machine's name.
fn identifier(text: Option<&str>) -> Box<[u8]> {
    let own = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let text = text.map(str::to_owned).or_else(own).unwrap_or_else(|| "localhost".to_owned());
    text.into_bytes().into()
}

/// Whether a resolver stops searching at a response code.
pub(crate) fn is_final(code: u8) -> bool {
    !matches!(
        ResponseCode::from_low(code),
        ResponseCode::NXDomain
            | ResponseCode::ServFail
            | ResponseCode::Refused
            | ResponseCode::FormErr
            | ResponseCode::NotImp
    )
}
