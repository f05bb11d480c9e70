//! `rewrite [continue|stop] FIELD ...`: questions as if another had been asked.

use hickory_proto::{op::ResponseCode, rr::DNSClass};

use super::{
    CorefileError,
    blocks::Directive,
    matching::{NameMatch, Pattern, absolute},
    tokens::Token,
    values::{record_type, response_code},
};

const FIELDS: &str = "name, type, class, cname, edns0, ttl and rcode";
const MATCHES: &str = "exact, prefix, suffix, substring or regex";

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RewriteRule {
    /// `continue`: rules behind it are looked at too.
    pub goes_on: bool,
    /// What it does.
    pub field: RewriteField,
}

/// What a rule changes.
#[derive(Clone, Debug, PartialEq)]
pub enum RewriteField {
    /// The name asked for.
    Name {
        /// Which.
        from: NameMatch,
        /// What takes the place of the part that fits.
        to: String,
        /// Names in the answer are changed back.
        auto: bool,
        /// Further changes of the answer, in order.
        answers: Vec<AnswerRewrite>,
    },
    /// The type asked for.
    Type {
        /// Which.
        from: u16,
        /// What instead.
        to: u16,
    },
    /// The class asked for, which becomes IN: no other is served.
    Class(DNSClass),
    /// Where aliases in the answer lead: the records are those of the new target.
    Cname {
        /// Which targets.
        from: NameMatch,
        /// What takes the place of the part that fits.
        to: String,
    },
    /// An EDNS option taken out of the question. None is passed on to upstreams anyway.
    Unset,
    /// The network of the client told to upstreams (RFC 7871).
    Subnet {
        /// For which questions.
        action: OptionAction,
        /// Bits of IPv4 and IPv6 addresses that are told.
        bits: (u8, u8),
    },
    /// Times to live in the answer.
    Ttl {
        /// Questions for these names.
        names: NameMatch,
        /// Least and most, in seconds.
        seconds: (u32, u32),
    },
    /// The response code.
    Rcode {
        /// Questions for these names.
        names: NameMatch,
        /// Which.
        from: ResponseCode,
        /// What instead.
        to: ResponseCode,
    },
}

/// What is done where a question has the option, or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionAction {
    /// It has this one then.
    Set,
    /// It gets one if it has none.
    Append,
    /// It gets another if it has one.
    Replace,
}

/// `answer name|value FROM TO`.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerRewrite {
    /// Names within records' data, not their owners.
    pub in_data: bool,
    /// What a name must be like.
    pub from: Pattern,
    /// What it becomes.
    pub to: String,
}

pub(super) fn read(line: &Directive) -> Result<RewriteRule, CorefileError> {
    let mut words: Vec<&Token> = line.args.iter().collect();
    // Braces only break a long line, and only behind one word at most (CoreDNS's reading).
    if words.len() < 2 {
        for inner in &line.body {
            inner.no_body()?;
            words.push(&inner.name);
            words.extend(&inner.args);
        }
    } else {
        line.no_body()?;
    }
    let is = |word: Option<&&Token>, text| word.is_some_and(|w| w.text.eq_ignore_ascii_case(text));
    let goes_on = is(words.first(), "continue");
    let skipped = usize::from(goes_on || is(words.first(), "stop"));
    let Some((field, rest)) = words.get(skipped..).and_then(<[_]>::split_first) else {
        return Err(line.name.error(format!("rewrite what? Known are {FIELDS}")));
    };
    let field = match field.text.to_ascii_lowercase().as_str() {
        "name" => read_name(field, rest)?,
        "type" => {
            let [from, to] = rest else {
                return Err(field.error("rewrite type: write `type FROM TO`, as `type ANY HINFO`"));
            };
            RewriteField::Type { from: record_type(from)?, to: record_type(to)? }
        }
        "ttl" => read_ttl(field, rest)?,
        "rcode" => read_rcode(field, rest)?,
        "class" => read_class(field, rest)?,
        "cname" => read_cname(field, rest)?,
        "edns0" => read_edns(field, rest)?,
        "answer" => return Err(field.error("rewrite: an answer belongs behind its name rule")),
        other => return Err(field.error(format!("rewrite {other:?}: known are {FIELDS}"))),
    };
    Ok(RewriteRule { goes_on, field })
}

fn read_class(field: &Token, words: &[&Token]) -> Result<RewriteField, CorefileError> {
    let [from, to] = words else {
        return Err(field.error("rewrite class: write `class FROM IN`, as `class CH IN`"));
    };
    let class = |word: &Token| match word.text.to_ascii_uppercase().as_str() {
        "IN" => Ok(DNSClass::IN),
        "CH" => Ok(DNSClass::CH),
        "HS" => Ok(DNSClass::HS),
        "NONE" => Ok(DNSClass::NONE),
        "ANY" => Ok(DNSClass::ANY),
        "CS" => Ok(DNSClass::Unknown(2)),
        _ => Err(word.error(format!("{:?}: give IN, CH, HS, CS, NONE or ANY", word.text))),
    };
    if class(to)? != DNSClass::IN {
        return Err(to.error("rewrite class: no class but IN is served: write `class FROM IN`"));
    }
    Ok(RewriteField::Class(class(from)?))
}

fn read_edns(field: &Token, words: &[&Token]) -> Result<RewriteField, CorefileError> {
    const USAGE: &str = "rewrite edns0: write `subnet set|append|replace BITS4 BITS6` or `... unset`; \
                         other options are not passed on to upstreams";
    let [option, action, rest @ ..] = words else { return Err(field.error(USAGE)) };
    let option_text = option.text.to_ascii_lowercase();
    let action = match (option_text.as_str(), action.text.to_ascii_lowercase().as_str()) {
        ("local" | "nsid" | "subnet", "unset") => return Ok(RewriteField::Unset),
        ("subnet", "set") => OptionAction::Set,
        ("subnet", "append") => OptionAction::Append,
        ("subnet", "replace") => OptionAction::Replace,
        _ => return Err(option.error(USAGE)),
    };
    // Replies of upstreams lose their options on the way: there is nothing to revert.
    let (v4, v6) = match rest {
        [v4, v6] => (v4, v6),
        [v4, v6, revert] if revert.text == "revert" => (v4, v6),
        _ => return Err(field.error(USAGE)),
    };
    Ok(RewriteField::Subnet { action, bits: (v4.number(0, 32)?, v6.number(0, 128)?) })
}

fn read_cname(field: &Token, words: &[&Token]) -> Result<RewriteField, CorefileError> {
    let usage = || field.error(format!("rewrite cname: write `cname [{MATCHES}] FROM TO`"));
    let (kind, from, to) = match words {
        [from, to] => ("exact".to_owned(), from, to),
        [kind, from, to] => (kind.text.to_ascii_lowercase(), from, to),
        _ => return Err(usage()),
    };
    // Only whole names get a final dot here, unlike those of `name` (CoreDNS's reading).
    let from = NameMatch::read_as_written(&kind, from)?.ok_or_else(usage)?;
    let is_whole = matches!(from, NameMatch::Exact(_));
    let to = if is_whole { absolute(&to.text) } else { to.text.to_ascii_lowercase() };
    Ok(RewriteField::Cname { from, to })
}

fn read_name(field: &Token, words: &[&Token]) -> Result<RewriteField, CorefileError> {
    let usage = || field.error(format!("rewrite name: write `name [{MATCHES}] FROM TO`"));
    let (kind, from, to, options) = match words {
        [from, to] => ("exact".to_owned(), from, to, &[][..]),
        [kind, from, to, options @ ..] => (kind.text.to_ascii_lowercase(), from, to, options),
        _ => return Err(usage()),
    };
    let from_match = NameMatch::read(&kind, from)?.ok_or_else(usage)?;
    if let NameMatch::Regex(pattern) = &from_match {
        check_groups(to, pattern)?;
    }
    let (mut auto, answers) = read_answers(options)?;
    // CoreDNS: always for whole names.
    auto |= matches!(from_match, NameMatch::Exact(_));
    Ok(RewriteField::Name { from: from_match, to: absolute(&to.text), auto, answers })
}

fn read_answers(words: &[&Token]) -> Result<(bool, Vec<AnswerRewrite>), CorefileError> {
    let mut auto = false;
    let mut answers = vec![];
    let mut rest = words;
    let mut is_first = true;
    while let Some((word, behind)) = rest.split_first() {
        let usage = "rewrite: write `answer auto`, `answer name FROM TO` or `answer value FROM TO`";
        let (kind, behind) = match (word.text.as_str(), behind) {
            ("answer", [kind, behind @ ..]) => (kind, behind),
            ("answer", []) => return Err(word.error(usage)),
            _ if is_first => return Err(word.error(usage)),
            _ => (word, behind),
        };
        is_first = false;
        rest = match (kind.text.as_str(), behind) {
            ("auto", behind) => {
                auto = true;
                behind
            }
            (part @ ("name" | "value"), [from, to, behind @ ..]) => {
                let pattern = Pattern::read(from)?;
                check_groups(to, &pattern)?;
                let to = absolute(&to.text);
                answers.push(AnswerRewrite { in_data: part == "value", from: pattern, to });
                behind
            }
            _ => return Err(kind.error(usage)),
        };
        if auto && answers.iter().any(|answer| !answer.in_data) {
            return Err(kind.error("rewrite: `answer auto` and `answer name`: keep one of them"));
        }
    }
    Ok((auto, answers))
}

/// CoreDNS's check: no more groups used than there are.
fn check_groups(to: &Token, pattern: &Pattern) -> Result<(), CorefileError> {
    let there = pattern.captures_len() - 1;
    let used = (0..=100).filter(|n| to.text.contains(&format!("{{{n}}}"))).count();
    if used > there {
        let reason = format!("{:?} uses {used} groups, the pattern has {there}", to.text);
        return Err(to.error(reason));
    }
    Ok(())
}

fn read_ttl(field: &Token, words: &[&Token]) -> Result<RewriteField, CorefileError> {
    let usage = || field.error(format!("rewrite ttl: write `ttl [{MATCHES}] NAME SECONDS`"));
    let (names, ttl) = match words {
        [name, ttl] => (NameMatch::read("exact", name)?, ttl),
        [kind, name, ttl] => (NameMatch::read(&kind.text.to_ascii_lowercase(), name)?, ttl),
        _ => return Err(usage()),
    };
    let names = names.ok_or_else(usage)?;
    let seconds = ttl_range(&ttl.text).ok_or_else(|| {
        ttl.error(format!("{:?}: give seconds, or a range as 30-300, 30- or -300", ttl.text))
    })?;
    Ok(RewriteField::Ttl { names, seconds })
}

fn ttl_range(text: &str) -> Option<(u32, u32)> {
    let Some((least, most)) = text.split_once('-') else {
        return text.parse().ok().map(|ttl| (ttl, ttl));
    };
    let range = match (least, most) {
        ("", "") => return None,
        ("", most) => (0, most.parse().ok()?),
        (least, "") => (least.parse().ok()?, i32::MAX.unsigned_abs()),
        (least, most) => (least.parse().ok()?, most.parse().ok()?),
    };
    (range.0 <= range.1).then_some(range)
}

fn read_rcode(field: &Token, words: &[&Token]) -> Result<RewriteField, CorefileError> {
    let usage = || field.error(format!("rewrite rcode: write `rcode [{MATCHES}] NAME FROM TO`"));
    let (names, from, to) = match words {
        [name, from, to] => (NameMatch::read("exact", name)?, from, to),
        [kind, name, from, to] => {
            (NameMatch::read(&kind.text.to_ascii_lowercase(), name)?, from, to)
        }
        _ => return Err(usage()),
    };
    let names = names.ok_or_else(usage)?;
    Ok(RewriteField::Rcode { names, from: response_code(from)?, to: response_code(to)? })
}
