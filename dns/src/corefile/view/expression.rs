//! The part of expr-lang that server blocks are chosen by: what is asked, compared with what is
//! written.

use super::{Condition, NumberOf, NumberTest, TextOf, TextTest};
use crate::corefile::{CorefileError, matching::Pattern, tokens::Token};

/// Parentheses and negations within each other.
const DEPTH_MAX: usize = 16;
/// Words of one expression.
const WORDS_MAX: usize = 1000;
const TEXTS: [(&str, TextOf); 6] = [
    ("client_ip", TextOf::ClientIp),
    ("port", TextOf::Port),
    ("name", TextOf::Name),
    ("type", TextOf::Type),
    ("class", TextOf::Class),
    ("proto", TextOf::Proto),
];
const NUMBERS: [(&str, NumberOf); 4] = [
    ("bufsize", NumberOf::BufferBytes),
    ("size", NumberOf::Bytes),
    ("id", NumberOf::Id),
    ("opcode", NumberOf::Opcode),
];
const KNOWN: &str = "client_ip(), port(), name(), type(), class(), proto(), bufsize(), size(), id(), \
                     opcode(), do() and incidr(client_ip(), 'NETWORK')";
const OPERATORS: [&str; 10] = ["==", "!=", "<=", ">=", "&&", "||", "..", "??", "|>", "?."];

#[derive(Clone, Debug, PartialEq)]
enum Word {
    Text(String),
    Number(i64),
    /// An identifier, an operator or a bracket.
    Sign(String),
}

/// One side of a comparison, or a whole condition.
#[derive(Clone, Debug, PartialEq)]
enum Term {
    Condition(Condition),
    Text(TextOf),
    Number(NumberOf),
    Texts(Vec<String>),
    Numbers(Vec<i64>),
    /// A literal alone, no list.
    OneText(String),
    OneNumber(i64),
}

/// Understands an expression, or says which part is not served.
pub(super) fn parse(text: &str, place: &Token) -> Result<Condition, CorefileError> {
    let words = words(text).map_err(|reason| place.error(format!("view: {reason}")))?;
    let mut parser = Parser { words, at: 0, place };
    let condition = parser.any(0)?;
    match parser.next() {
        None => Ok(condition),
        Some(word) => Err(parser.no(&word)),
    }
}

struct Parser<'p> {
    words: Vec<Word>,
    at: usize,
    place: &'p Token,
}

impl Parser<'_> {
    fn error(&self, reason: &str) -> CorefileError {
        self.place.error(format!("view: {reason}"))
    }

    fn no(&self, word: &Word) -> CorefileError {
        let shown = match word {
            Word::Text(text) => format!("'{text}'"),
            Word::Number(number) => number.to_string(),
            Word::Sign(sign) => sign.clone(),
        };
        self.error(&format!("{shown} is not understood there: known are {KNOWN}"))
    }

    fn next(&mut self) -> Option<Word> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word
    }

    fn takes(&mut self, signs: &[&str]) -> bool {
        let fits = matches!(self.words.get(self.at), Some(Word::Sign(sign)) if signs.contains(&sign.as_str()));
        self.at += usize::from(fits);
        fits
    }

    fn wants(&mut self, sign: &str) -> Result<(), CorefileError> {
        if self.takes(&[sign]) {
            return Ok(());
        }
        Err(self.error(&format!("{sign:?} is missing")))
    }

    fn any(&mut self, depth: usize) -> Result<Condition, CorefileError> {
        let mut all = vec![self.all(depth)?];
        while self.takes(&["||", "or"]) {
            all.push(self.all(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::Any(all) })
    }

    fn all(&mut self, depth: usize) -> Result<Condition, CorefileError> {
        let mut all = vec![self.comparison(depth)?];
        while self.takes(&["&&", "and"]) {
            all.push(self.comparison(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::All(all) })
    }

    fn comparison(&mut self, depth: usize) -> Result<Condition, CorefileError> {
        let left = self.term(depth)?;
        let negated = self.takes(&["not"]);
        let word = self.words.get(self.at).cloned();
        let operator = match &word {
            Some(Word::Sign(sign)) if !["||", "or", "&&", "and", ")"].contains(&sign.as_str()) => {
                self.at += 1;
                sign.as_str()
            }
            _ if negated => return Err(self.error("`not` needs `in` or another comparison")),
            Some(Word::Text(_) | Word::Number(_)) | Some(Word::Sign(_)) | None => {
                return match left {
                    Term::Condition(condition) => Ok(condition),
                    _ => Err(self.error("a value that is compared with nothing")),
                };
            }
        };
        let right = self.term(depth)?;
        let condition = match compare(&left, operator, &right) {
            Some(condition) => condition,
            None if operator == "matches" => self.matches(&left, &right)?,
            None => {
                let reason = format!("{operator:?} between these is not understood: compare");
                return Err(self.error(&format!("{reason} one of {KNOWN} with what is written")));
            }
        };
        Ok(if negated { Condition::Not(condition.into()) } else { condition })
    }

    fn matches(&self, left: &Term, right: &Term) -> Result<Condition, CorefileError> {
        let (Term::Text(of), Term::OneText(pattern)) = (left, right) else {
            return Err(self.error("`matches` compares a text with a pattern in quotes"));
        };
        let pattern = Pattern::read(&Token { text: pattern.clone(), ..self.place.clone() })?;
        Ok(Condition::Text(*of, TextTest::Matches(pattern)))
    }

    fn term(&mut self, depth: usize) -> Result<Term, CorefileError> {
        if depth > DEPTH_MAX {
            return Err(self.error("too deep: write it flatter"));
        }
        let Some(word) = self.next() else {
            return Err(self.error("the expression ends too early"));
        };
        let name = match &word {
            Word::Text(text) => return Ok(Term::OneText(text.clone())),
            Word::Number(number) => return Ok(Term::OneNumber(*number)),
            Word::Sign(sign) => sign.as_str(),
        };
        match name {
            "(" => {
                let inner = self.any(depth + 1)?;
                self.wants(")")?;
                Ok(Term::Condition(inner))
            }
            "!" | "not" => match self.term(depth + 1)? {
                Term::Condition(inner) => Ok(Term::Condition(Condition::Not(inner.into()))),
                _ => Err(self.error("`not` binds to what follows at once: use parentheses")),
            },
            "true" | "false" => Ok(Term::Condition(Condition::Always(name == "true"))),
            "[" => self.list(),
            "incidr" => self.in_network(),
            "do" => self.call(Term::Condition(Condition::DnssecOk)),
            name => {
                let text = TEXTS.iter().find(|(known, _)| *known == name);
                let number = NUMBERS.iter().find(|(known, _)| *known == name);
                match (text, number) {
                    (Some((_, of)), _) => self.call(Term::Text(*of)),
                    (_, Some((_, of))) => self.call(Term::Number(*of)),
                    _ => Err(self.no(&word)),
                }
            }
        }
    }

    /// The empty parentheses of a call.
    fn call(&mut self, term: Term) -> Result<Term, CorefileError> {
        self.wants("(")?;
        self.wants(")")?;
        Ok(term)
    }

    fn list(&mut self) -> Result<Term, CorefileError> {
        let (mut texts, mut numbers) = (vec![], vec![]);
        while !self.takes(&["]"]) {
            match self.next() {
                Some(Word::Text(text)) => texts.push(text),
                Some(Word::Number(number)) => numbers.push(number),
                Some(word) => return Err(self.no(&word)),
                None => return Err(self.error("\"]\" is missing")),
            }
            if !self.takes(&[","]) {
                self.wants("]")?;
                break;
            }
        }
        match (texts.is_empty(), numbers.is_empty()) {
            (_, true) => Ok(Term::Texts(texts)),
            (true, _) => Ok(Term::Numbers(numbers)),
            _ => Err(self.error("a list of texts and numbers")),
        }
    }

    fn in_network(&mut self) -> Result<Term, CorefileError> {
        const USAGE: &str = "write incidr(client_ip(), 'ADDRESS/LENGTH')";
        self.wants("(")?;
        let address = self.term(DEPTH_MAX)?;
        self.wants(",")?;
        let network = self.term(DEPTH_MAX)?;
        self.wants(")")?;
        let (Term::Text(TextOf::ClientIp), Term::OneText(network)) = (address, network) else {
            return Err(self.error(USAGE));
        };
        let network = network.parse().ok().filter(|_| network.contains('/'));
        let network = network.ok_or_else(|| self.error(USAGE))?;
        Ok(Term::Condition(Condition::From(network)))
    }
}

/// What a comparison means; either side may be what is written.
fn compare(left: &Term, operator: &str, right: &Term) -> Option<Condition> {
    let not = |condition: Condition| Condition::Not(condition.into());
    let condition = match (left, right) {
        (Term::Text(of), Term::OneText(text)) => {
            let test = match operator {
                "==" | "!=" => TextTest::OneOf(vec![text.clone()]),
                "contains" => TextTest::Contains(text.clone()),
                "startsWith" => TextTest::StartsWith(text.clone()),
                "endsWith" => TextTest::EndsWith(text.clone()),
                _ => return None,
            };
            Condition::Text(*of, test)
        }
        (Term::Text(of), Term::Texts(texts)) if operator == "in" => {
            Condition::Text(*of, TextTest::OneOf(texts.clone()))
        }
        (Term::Number(of), Term::Numbers(numbers)) if operator == "in" => {
            Condition::Number(*of, NumberTest::OneOf(numbers.clone()))
        }
        (Term::Number(of), Term::OneNumber(number)) => match operator {
            "==" | "!=" => Condition::Number(*of, NumberTest::OneOf(vec![*number])),
            "<" => Condition::Number(*of, NumberTest::Less(*number)),
            ">" => Condition::Number(*of, NumberTest::More(*number)),
            "<=" => not(Condition::Number(*of, NumberTest::More(*number))),
            ">=" => not(Condition::Number(*of, NumberTest::Less(*number))),
            _ => return None,
        },
        (Term::Condition(condition), Term::Condition(Condition::Always(wanted)))
            if matches!(operator, "==" | "!=") =>
        {
            if *wanted {
                condition.clone()
            } else {
                not(condition.clone())
            }
        }
        (Term::OneText(_), Term::Text(_)) | (Term::OneNumber(_), Term::Number(_)) => {
            let turned = match operator {
                "==" | "!=" => operator,
                "<" => ">",
                ">" => "<",
                "<=" => ">=",
                ">=" => "<=",
                _ => return None,
            };
            return compare(right, turned, left);
        }
        _ => return None,
    };
    Some(if operator == "!=" { not(condition) } else { condition })
}

/// Splits an expression as expr-lang does.
fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = vec![];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if words.len() >= WORDS_MAX {
            return Err(format!("more than {WORDS_MAX} words: shorten it"));
        }
        let (word, behind) = match first {
            '\'' | '"' => quoted(rest, first)?,
            '`' => {
                let body = rest.get(1..).unwrap_or_default();
                let (text, behind) = body.split_once('`').ok_or("a quotation without its end")?;
                (Word::Text(text.to_owned()), behind)
            }
            '0'..='9' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                let (digits, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
                let number = digits.parse().map_err(|_| format!("{digits:?} is no number"))?;
                (Word::Number(number), behind)
            }
            letter if letter.is_alphabetic() || letter == '_' => {
                let is_part = |c: char| c.is_alphanumeric() || c == '_';
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                let (name, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
                (Word::Sign(name.to_owned()), behind)
            }
            sign => {
                let long = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
                let length = long.map_or(sign.len_utf8(), |operator| operator.len());
                let (sign, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
                (Word::Sign(sign.to_owned()), behind)
            }
        };
        words.push(word);
        rest = behind.trim_start();
    }
    Ok(words)
}

fn quoted(text: &str, mark: char) -> Result<(Word, &str), String> {
    let mut out = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some((_, other @ ('\\' | '\'' | '"'))) => out.push(other),
                other => {
                    let shown = other.map(|(_, c)| c).unwrap_or_default();
                    return Err(format!("\\{shown} in quotes: write a backslash as \\\\"));
                }
            },
            end if end == mark => {
                let behind = text.get(at + 1..).unwrap_or_default();
                return Ok((Word::Text(out), behind));
            }
            other => out.push(other),
        }
    }
    Err("a quotation without its end".to_owned())
}
