//! Are two replies the same, and if not, which rules of docs/dns-differences.md allow each part that differs?

mod parts;
mod plain;
mod promises;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub(crate) use self::promises::broken;
use self::{
    parts::{Differences, Part},
    plain::Plain,
    rules::{Case, rules},
};
use crate::{
    cluster::Known,
    questions::{Question, Replies},
    setups::Setup,
};

/// What comparing came to.
#[derive(Debug)]
pub(crate) enum Verdict {
    Same,
    /// Different, as these rules say: each of them for some part, all of them for every part.
    Rules(Vec<&'static str>),
    Different(String),
}

pub(crate) fn verdict(
    setup: &Setup,
    known: &Known,
    question: &Question,
    replies: &Replies,
) -> Verdict {
    let plain = [&replies.theirs, &replies.ours].map(Plain::of);
    let [theirs, ours] = match setup.has("cache") {
        true => plain.map(Plain::timeless),
        false => plain,
    };
    match explained(setup, known, question, [&theirs, &ours]) {
        Ok(rules) if rules.is_empty() => Verdict::Same,
        Ok(rules) => Verdict::Rules(rules),
        Err(left) => Verdict::Different(format!(
            "  no rule for {left:?}\n  CoreDNS:  {theirs:?}\n  Fairlead: {ours:?}"
        )),
    }
}

/// The rules that together allow all in which CoreDNS's reply and ours differ, or the parts that none does.
fn explained(
    setup: &Setup,
    known: &Known,
    question: &Question,
    [theirs, ours]: [&Plain; 2],
) -> Result<Vec<&'static str>, BTreeSet<Part>> {
    let differences = Differences::between(theirs, ours);
    let parts = differences.parts(&question.name);
    let case = Case { setup, known, question, theirs, ours, differences: &differences };
    rules(&case, &parts)
}
