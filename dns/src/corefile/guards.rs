//! `acl [ZONES...] { ACTION [type QTYPE...] [net SOURCE...] }`.

use ipnetwork::IpNetwork;

use super::{CorefileError, blocks::Directive, tokens::Token, values};

/// What becomes of a question a rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAction {
    /// Answered; no further rule is looked at.
    Allow,
    /// REFUSED.
    Block,
    /// NOERROR without records.
    Filter,
    /// No reply at all.
    Drop,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    /// Zones it is for; empty for the block's.
    pub zones: Vec<String>,
    /// What happens.
    pub action: AclAction,
    /// Types it is for; empty for all.
    pub types: Vec<u16>,
    /// Clients it is for; empty for all.
    pub sources: Vec<IpNetwork>,
}

/// The rules of one `acl`.
pub(super) fn read(line: &Directive) -> Result<Vec<AclRule>, CorefileError> {
    let zones = values::zones(&line.args)?;
    if line.body.is_empty() {
        return Err(line.name.error("acl without rules: write `{ block net 10.0.0.0/8 }`"));
    }
    line.body.iter().map(|rule| read_rule(rule, &zones)).collect()
}

fn read_rule(line: &Directive, zones: &[String]) -> Result<AclRule, CorefileError> {
    line.no_body()?;
    let action = match line.name.text.as_str() {
        "allow" => AclAction::Allow,
        "block" => AclAction::Block,
        "filter" => AclAction::Filter,
        "drop" => AclAction::Drop,
        _ => return Err(line.unknown("acl", "allow, block, filter and drop")),
    };
    let mut rule = AclRule { zones: zones.to_vec(), action, types: vec![], sources: vec![] };
    let (mut every_type, mut every_source) = (false, false);
    for section in line.expect(0, usize::MAX)?.chunk_by(|_, next| !is_section(next)) {
        let [name, words @ ..] = section else { continue };
        if !is_section(name) {
            return Err(name.error("acl: write `ACTION [type QTYPE...] [net SOURCE...]`"));
        }
        if words.is_empty() {
            return Err(name.error(format!("acl: a value is missing behind {}", name.text)));
        }
        // Whatever stands beside it, in this section or another of its name: a rule that blocks all clients must
        // not be read as one for some.
        let is_every = words.iter().any(|word| word.text == "*");
        let named = words.iter().take_while(|word| word.text != "*");
        if name.text == "type" {
            every_type |= is_every;
            rule.types.extend(named.map(values::record_type).collect::<Result<Vec<_>, _>>()?);
        } else {
            every_source |= is_every;
            rule.sources.extend(named.map(Token::network).collect::<Result<Vec<_>, _>>()?);
        }
    }
    if every_type {
        rule.types.clear();
    }
    if every_source {
        rule.sources.clear();
    }
    Ok(rule)
}

fn is_section(word: &Token) -> bool {
    ["type", "net"].contains(&word.text.as_str())
}
