//! `view NAME { expr EXPRESSION }`: a server block for some questions only.

mod expression;

use ipnetwork::IpNetwork;

use super::{CorefileError, blocks::Directive, matching::Pattern};

/// `view`.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewOptions {
    /// Its name, which metrics carry.
    pub name: String,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

/// What a question must be like.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Whatever it is.
    Always(bool),
    /// `!`, `not`.
    Not(Box<Condition>),
    /// `&&`, `and`.
    All(Vec<Condition>),
    /// `||`, `or`.
    Any(Vec<Condition>),
    /// `do()`: the client wants DNSSEC records.
    DnssecOk,
    /// `incidr(client_ip(), '...')`.
    From(IpNetwork),
    /// A text.
    Text(TextOf, TextTest),
    /// A number.
    Number(NumberOf, NumberTest),
}

/// A text of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextOf {
    /// `client_ip()`.
    ClientIp,
    /// `port()`: the client's.
    Port,
    /// `name()`: lower case, with the final dot.
    Name,
    /// `type()`.
    Type,
    /// `class()`.
    Class,
    /// `proto()`: `udp` or `tcp`.
    Proto,
}

/// What a text is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum TextTest {
    /// `==`, `in`.
    OneOf(Vec<String>),
    /// `matches`.
    Matches(Pattern),
    /// `contains`.
    Contains(String),
    /// `startsWith`.
    StartsWith(String),
    /// `endsWith`.
    EndsWith(String),
}

/// A number of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberOf {
    /// `bufsize()`: largest reply the client takes, in bytes.
    BufferBytes,
    /// `size()`: of the message, in bytes.
    Bytes,
    /// `id()`.
    Id,
    /// `opcode()`.
    Opcode,
}

/// What a number is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumberTest {
    /// `==`, `in`.
    OneOf(Vec<i64>),
    /// `<`.
    Less(i64),
    /// `>`.
    More(i64),
}

pub(super) fn read(line: &Directive) -> Result<ViewOptions, CorefileError> {
    let mut view = ViewOptions { name: line.one()?.text.clone(), conditions: vec![] };
    for option in &line.body {
        option.no_body()?;
        if option.name.text != "expr" {
            return Err(option.unknown("view", "expr"));
        }
        let words: Vec<_> = option.args.iter().map(|word| word.text.as_str()).collect();
        let first = option.expect(1, usize::MAX)?.first().unwrap_or(&option.name);
        view.conditions.push(expression::parse(&words.join(" "), first)?);
    }
    Ok(view)
}
