//! `template CLASS TYPE [ZONES...] { match, answer, additional, authority, rcode, fallthrough }`:
//! records made from the question, in the part of Go's template language that is in use.

use hickory_proto::op::ResponseCode;

use super::{
    CorefileError,
    blocks::Directive,
    kubernetes::Fallthrough,
    matching::Pattern,
    tokens::Token,
    values::{self, record_type, response_code},
};

const KNOWN: &str = "match, answer, additional, authority, rcode and fallthrough";
const TERMS: &str = ".Name, .Zone, .Type, .Class, .Remote, .Group.NAME, `index .Match N`, \
                     `index .Group \"NAME\"` and `parseInt TERM BASE BITS`";

/// One `template`.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateOptions {
    /// Questions of this type; `None` for all.
    pub qtype: Option<u16>,
    /// Questions at and below these zones; never empty.
    pub zones: Vec<String>,
    /// `match`: the first that fits; none fits everything.
    pub matches: Vec<Pattern>,
    /// `answer`.
    pub answers: Vec<RecordTemplate>,
    /// `authority`.
    pub authorities: Vec<RecordTemplate>,
    /// `additional`.
    pub additionals: Vec<RecordTemplate>,
    /// `rcode`.
    pub code: ResponseCode,
    /// `fallthrough`: what becomes of names no pattern fits; else they are SERVFAIL.
    pub fallthrough: Fallthrough,
}

/// A record's text with places to fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordTemplate(pub Vec<Piece>);

/// A part of a record's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Written as it is.
    Text(String),
    /// Filled in.
    Value(Value),
}

/// What is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `.Name`: lower case, with the final dot.
    Name,
    /// `.Zone`: with the final dot.
    Zone,
    /// `.Type`.
    Type,
    /// `.Class`.
    Class,
    /// `.Remote`: the client's address.
    Remote,
    /// `index .Match N`.
    Match(usize),
    /// `.Group.NAME`; empty if there is no such group.
    Group(String),
    /// A text that was written in quotes.
    Literal(String),
    /// `parseInt TERM BASE BITS`, in decimal.
    Number {
        /// What is read.
        digits: Box<Value>,
        /// 2 to 36.
        base: u32,
        /// The largest number has so many bits, 64 at most.
        bits: u32,
    },
}

pub(super) fn read(line: &Directive, zones: &[String]) -> Result<TemplateOptions, CorefileError> {
    let [class, qtype, own @ ..] = line.expect(2, usize::MAX)? else {
        return Err(line.name.error("template: write `template IN TYPE [ZONES...]`"));
    };
    if !["IN", "ANY"].contains(&class.text.as_str()) {
        return Err(class.error("template: only the classes IN and ANY are served"));
    }
    let own = values::zones(own)?;
    let mut options = TemplateOptions {
        qtype: match qtype.text.as_str() {
            "ANY" => None,
            _ => Some(record_type(qtype)?),
        },
        zones: if own.is_empty() { zones.to_vec() } else { own },
        matches: vec![],
        answers: vec![],
        authorities: vec![],
        additionals: vec![],
        code: ResponseCode::NoError,
        fallthrough: Fallthrough::Never,
    };
    for option in &line.body {
        option.no_body()?;
        let records =
            || option.expect(1, usize::MAX)?.iter().map(record).collect::<Result<Vec<_>, _>>();
        match option.name.text.as_str() {
            "match" => {
                let words = option.expect(1, usize::MAX)?.iter();
                options.matches.extend(words.map(Pattern::read).collect::<Result<Vec<_>, _>>()?);
            }
            "answer" => options.answers.extend(records()?),
            "authority" => options.authorities.extend(records()?),
            "additional" => options.additionals.extend(records()?),
            "rcode" => options.code = response_code(option.one()?)?,
            "fallthrough" => options.fallthrough = Fallthrough::read(option)?,
            "upstream" => {}
            known @ ("ederror" | "var" | "expr") => {
                return Err(option.name.error(format!(
                    "template: {known} is CoreDNS's and not served here: remove this line, or \
                     keep CoreDNS for it"
                )));
            }
            _ => return Err(option.unknown("template", KNOWN)),
        }
    }
    Ok(options)
}

fn record(word: &Token) -> Result<RecordTemplate, CorefileError> {
    let mut pieces = vec![];
    let mut rest = word.text.as_str();
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some((action, after)) = behind.split_once("}}") else {
            return Err(word.error("template: `{{` without its `}}`: close it"));
        };
        // Go's trim markers.
        let (before, action) = match action.strip_prefix("- ") {
            Some(action) => (before.trim_end(), action),
            None => (before, action),
        };
        let (after, action) = match action.strip_suffix(" -") {
            Some(action) => (after.trim_start(), action),
            None => (after, action),
        };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let unknown = || {
            let action = action.trim();
            word.error(format!("template: {{{{ {action} }}}} is not understood: known are {TERMS}"))
        };
        let mut words = words(action).ok_or_else(unknown)?.into_iter();
        let value = value(&mut words).filter(|_| words.next().is_none()).ok_or_else(unknown)?;
        pieces.push(Piece::Value(value));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(RecordTemplate(pieces))
}

/// The words of an action; parentheses are words, quotes stay.
fn words(action: &str) -> Option<Vec<String>> {
    let mut words = vec![];
    let mut characters = action.chars().peekable();
    while let Some(first) = characters.next() {
        match first {
            space if space.is_whitespace() => {}
            '(' | ')' => words.push(first.to_string()),
            quote @ ('"' | '`') => {
                let mut word = String::from('"');
                loop {
                    match characters.next()? {
                        '\\' => return None,
                        end if end == quote => break,
                        character => word.push(character),
                    }
                }
                words.push(word);
            }
            first => {
                let mut word = String::from(first);
                let goes_on = |c: &char| !c.is_whitespace() && !"()".contains(*c);
                while let Some(next) = characters.next_if(goes_on) {
                    word.push(next);
                }
                words.push(word);
            }
        }
    }
    Some(words)
}

/// A whole action: a term, or a function with its arguments.
fn value(words: &mut std::vec::IntoIter<String>) -> Option<Value> {
    match words.as_slice().first()?.as_str() {
        "index" => {
            words.next();
            match (words.next()?.as_str(), words.next()?) {
                (".Match", number) => Some(Value::Match(number.parse().ok()?)),
                (".Group", name) => Some(Value::Group(name.strip_prefix('"')?.to_owned())),
                _ => None,
            }
        }
        "parseInt" => {
            words.next();
            let digits = Box::new(term(words)?);
            let base = words.next()?.parse().ok().filter(|base| (2..=36).contains(base))?;
            let bits = words.next()?.parse().ok().filter(|bits| *bits <= 64)?;
            // Go: 0 stands for the machine's own.
            let bits = if bits == 0 { 64 } else { bits };
            Some(Value::Number { digits, base, bits })
        }
        _ => term(words),
    }
}

fn term(words: &mut std::vec::IntoIter<String>) -> Option<Value> {
    let word = words.next()?;
    Some(match word.as_str() {
        "(" => {
            let inner = value(words)?;
            return (words.next()? == ")").then_some(inner);
        }
        ".Name" | ".Question.Name" => Value::Name,
        ".Zone" => Value::Zone,
        ".Type" => Value::Type,
        ".Class" => Value::Class,
        ".Remote" => Value::Remote,
        word => match (word.strip_prefix(".Group."), word.strip_prefix('"')) {
            (Some(name), _) if !name.is_empty() && !name.contains('.') => {
                Value::Group(name.to_owned())
            }
            (_, Some(text)) => Value::Literal(text.to_owned()),
            _ => return None,
        },
    })
}
