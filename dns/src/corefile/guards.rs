//! `acl [ZONES...] { ACTION [type QTYPE...] [net SOURCE...] }`.

use ipnetwork::IpNetwork;

use super::{CorefileError, blocks::Directive, values};

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
    let mut section = "";
    for word in line.expect(0, usize::MAX)? {
        match (word.text.as_str(), section) {
            ("type", _) => section = "type",
            ("net", _) => section = "net",
            ("*", _) => {}
            (_, "type") => rule.types.push(values::record_type(word)?),
            (_, "net") => rule.sources.push(word.network()?),
            _ => return Err(word.error("acl: write `ACTION [type QTYPE...] [net SOURCE...]`")),
        }
    }
    Ok(rule)
}
