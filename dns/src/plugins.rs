//! Plugins that change questions or make answers themselves. A server block without them has none
//! of this and pays nothing for it.

mod records;
pub(crate) mod rewrite;
mod template;

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};

pub(crate) use self::records::name;
use self::template::Template;
use crate::{
    corefile::{RewriteRule, ServerBlock},
    error::DnsError,
    wire::{name::LowerName, question::Question, text::NameText},
};

/// One server block's.
#[derive(Debug)]
pub(crate) struct Plugins {
    rewrites: Vec<RewriteRule>,
    templates: Vec<Template>,
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
        if block.rewrites.is_empty() && block.templates.is_empty() {
            return Ok(None);
        }
        let templates: Result<_, _> = block.templates.iter().map(Template::new).collect();
        Ok(Some(Self { rewrites: block.rewrites.clone(), templates: templates? }))
    }

    /// Whether a plain question can be answered as if there were no plugins.
    pub(crate) fn claim(&self, question: &Question) -> Claim {
        let text = NameText::of(&question.name);
        let mut rewrites = self.rewrites.iter();
        if rewrites.any(|rule| rewrite::applies(rule, text.as_str(), question.qtype)) {
            return Claim::Slow;
        }
        self.claimed(&question.name, text.as_str(), question.qtype)
    }

    fn claimed(&self, name: &LowerName, text: &str, qtype: u16) -> Claim {
        let claims = self.templates.iter().map(|template| template.claim(name, text, qtype));
        claims.into_iter().find(|claim| *claim != Claim::None).unwrap_or(Claim::None)
    }

    /// The question to ask instead; `None` if no rule fits.
    pub(crate) fn rewrite(&self, name: &LowerName, qtype: u16) -> Option<rewrite::Rewritten<'_>> {
        if self.rewrites.is_empty() {
            return None;
        }
        rewrite::rewrite(&self.rewrites, NameText::of(name).as_str(), qtype)
    }

    /// Whether a template answers this.
    pub(crate) fn makes(&self, name: &LowerName, qtype: u16) -> bool {
        !self.templates.is_empty()
            && self.claimed(name, NameText::of(name).as_str(), qtype) != Claim::None
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
