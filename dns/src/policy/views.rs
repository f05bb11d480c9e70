//! `view`: which questions a server block is for.

use std::{borrow::Cow, net::SocketAddr};

use crate::{
    corefile::{Condition, NumberOf, NumberTest, TextOf, TextTest},
    wire::{UDP_REPLY_BYTES_WITHOUT_EDNS, question::Question, text::NameText, types::type_name},
};

/// A question, and who asks it: what server blocks are chosen by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'q> {
    pub(crate) question: &'q Question,
    /// The message that `question` was read from.
    pub(crate) query: &'q [u8],
    pub(crate) source: SocketAddr,
    pub(crate) tcp: bool,
}

/// Whether a condition holds for a question.
pub(super) fn holds(condition: &Condition, asking: Asking<'_>) -> bool {
    match condition {
        Condition::Always(always) => *always,
        Condition::Not(inner) => !holds(inner, asking),
        Condition::All(all) => all.iter().all(|one| holds(one, asking)),
        Condition::Any(all) => all.iter().any(|one| holds(one, asking)),
        Condition::DnssecOk => asking.question.edns.is_some_and(|edns| edns.dnssec_ok),
        Condition::From(network) => network.contains(asking.source.ip().to_canonical()),
        Condition::Number(of, test) => number_fits(number(*of, asking), test),
        Condition::Text(TextOf::Name, test) => {
            text_fits(NameText::of(&asking.question.name).as_str(), test)
        }
        Condition::Text(of, test) => text_fits(&text(*of, asking), test),
    }
}

fn number(of: NumberOf, asking: Asking<'_>) -> i64 {
    let offered = asking.question.edns.map_or(0, |edns| usize::from(edns.payload_bytes));
    let number = match of {
        NumberOf::BufferBytes if asking.tcp => usize::from(u16::MAX),
        NumberOf::BufferBytes => offered.max(UDP_REPLY_BYTES_WITHOUT_EDNS),
        NumberOf::Bytes => asking.query.len(),
        NumberOf::Id => asking.query.first_chunk().copied().map_or(0, u16::from_be_bytes).into(),
        // Nothing but queries comes here.
        NumberOf::Opcode => 0,
    };
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number_fits(number: i64, test: &NumberTest) -> bool {
    match test {
        NumberTest::OneOf(numbers) => numbers.contains(&number),
        NumberTest::Less(than) => number < *than,
        NumberTest::More(than) => number > *than,
    }
}

fn text(of: TextOf, asking: Asking<'_>) -> Cow<'static, str> {
    match of {
        TextOf::ClientIp => asking.source.ip().to_canonical().to_string().into(),
        TextOf::Port => asking.source.port().to_string().into(),
        TextOf::Name => NameText::of(&asking.question.name).as_str().to_owned().into(),
        TextOf::Type => type_name(asking.question.qtype),
        TextOf::Class => "IN".into(),
        TextOf::Proto => if asking.tcp { "tcp" } else { "udp" }.into(),
    }
}

fn text_fits(text: &str, test: &TextTest) -> bool {
    match test {
        TextTest::OneOf(texts) => texts.iter().any(|known| known == text),
        TextTest::Matches(pattern) => pattern.is_match(text),
        TextTest::Contains(part) => text.contains(part.as_str()),
        TextTest::StartsWith(part) => text.starts_with(part.as_str()),
        TextTest::EndsWith(part) => text.ends_with(part.as_str()),
    }
}
