//! The rules of docs/dns-differences.md that allow parts of an answer to differ.

mod cluster;
mod plugins;

use std::collections::BTreeSet;

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::{
    parts::{
        Differences,
        Kind::{AskedCase, DataCase, Missing, More, OwnerCase, Ttl, Weight},
        Part::{self, Authoritative, Code, DnssecOk, Edns, Flags, In, Options, QuestionCase},
        Section::{Additionals, Answers, Authorities},
    },
    plain::Plain,
};
use crate::{cluster::Known, questions::Question, setups::Setup};

/// A difference to be judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'c> {
    pub(super) setup: &'c Setup,
    pub(super) known: &'c Known,
    pub(super) question: &'c Question,
    pub(super) theirs: &'c Plain,
    pub(super) ours: &'c Plain,
    pub(super) differences: &'c Differences,
}

struct Rule {
    name: &'static str,
    /// Which parts it is about. Any other is another rule's affair, or nobody's.
    is_about: fn(Part) -> bool,
    holds: fn(&Case<'_>) -> bool,
}

const fn rule(
    name: &'static str,
    is_about: fn(Part) -> bool,
    holds: fn(&Case<'_>) -> bool,
) -> Rule {
    Rule { name, is_about, holds }
}

/// In this order: the first that holds is told.
const RULES: &[Rule] = &[
    rule("opcode-reply", |part| matches!(part, Part::Question | Edns | DnssecOk), is_opcode_reply),
    rule(
        "opcode-reply",
        |part| part == Flags,
        |case| is_opcode_reply(case) && has_ad_of_question(case),
    ),
    // An identifier is part of an answer.
    rule("notify", |part| is_answer(part) || part == Options, is_notify),
    rule("notify", |part| part == Flags, |case| is_notify(case) && case.theirs.flags == [false; 3]),
    rule("badvers-do", |part| part == DnssecOk, plugins::badvers_do),
    rule("other-classes", is_answer, |case| {
        case.question.class != 1 && is_refusal(case, ResponseCode::Refused)
    }),
    rule("nobody-answers", |part| matches!(part, Code | Authoritative), plugins::nobody_answers),
    rule("acl-error", |part| matches!(part, Edns | DnssecOk | Options), plugins::acl_error),
    rule(
        "external-names",
        |part| is_answer(part) && !matches!(part, In(_, Ttl)),
        plugins::external_names,
    ),
    rule("external-names", |part| matches!(part, In(_, Ttl)), plugins::external_ttl),
    rule("soa-of-nothing", is_other_denial_or_more, cluster::soa_of_nothing),
    rule("any", is_answer, plugins::any),
    rule("ent-exists", is_other_denial, cluster::ent_exists),
    rule("name-server", is_answer, cluster::name_server),
    rule("reverse-other-types", is_other_denial, cluster::reverse_other_types),
    rule(
        "orphan-endpoints",
        |part| part == In(Answers, Missing) || is_other_denial(part),
        cluster::orphan_endpoints,
    ),
    rule("target-case", is_case_of_targets, cluster::target_case),
    rule("srv-weight", |part| part == In(Answers, Weight), cluster::srv_weight),
    rule("additional-room", |part| part == In(Additionals, Missing), cluster::additional_room),
    rule("additional-all", |part| part == In(Additionals, More), cluster::additional_all),
    rule("zonal", is_other_denial, cluster::zonal),
    rule(
        "pod-srv",
        |part| matches!(part, In(Answers | Additionals, Missing) | In(Authorities, More)),
        cluster::pod_srv,
    ),
    rule("pod-below", is_answer, cluster::pod_below),
    rule("empty-port", is_answer, cluster::empty_port),
    rule(
        "alias-any-type",
        |part| matches!(part, In(Authorities, _)) || is_other_denial_or_more(part),
        cluster::alias_any_type,
    ),
    rule("alias-nodata", is_other_chain, cluster::alias_nodata),
    rule("alias-code", |part| part == Code || is_other_chain(part), cluster::alias_code),
    rule("owner-case", |part| part == QuestionCase, plugins::is_renamed_by_a_walk),
    rule(
        "owner-case",
        |part| {
            matches!(part, In(_, AskedCase) | In(Answers, OwnerCase))
                || matches!(part, In(Authorities, OwnerCase | DataCase))
        },
        plugins::owner_case,
    ),
    rule("owner-case", |part| part == In(Answers, DataCase), plugins::kept_case),
    rule("dns64-flags", |part| part == Authoritative, plugins::dns64_flags),
    rule("minimal", |part| part == In(Authorities, More), plugins::minimal),
    rule("zone-cached", |part| matches!(part, In(_, Ttl)), plugins::zone_cached),
    rule(
        "autopath-alias",
        |part| part == In(Answers, Missing) || is_other_denial(part),
        plugins::autopath_alias,
    ),
    rule("autopath-alias", |part| part == In(Answers, Ttl), plugins::autopath_alias_ttl),
    rule("autopath-failures", is_other_denial, plugins::autopath_failures),
    rule("autopath-domain", is_other_denial, plugins::autopath_domain),
    rule("autopath-any", is_answer, plugins::autopath_any),
    rule("badvers-class", |part| part == Code, plugins::badvers_class),
    rule("nsid-do", |part| part == DnssecOk, plugins::nsid_do),
];
const NOTIFY: u8 = 4;

/// What allows each of these parts, or the parts that nothing does.
pub(super) fn rules(
    case: &Case<'_>,
    parts: &BTreeSet<Part>,
) -> Result<Vec<&'static str>, BTreeSet<Part>> {
    let mut left = parts.clone();
    let mut told = vec![];
    for rule in RULES {
        if left.iter().any(|part| (rule.is_about)(*part)) && (rule.holds)(case) {
            left.retain(|part| !(rule.is_about)(*part));
            told.push(rule.name);
        }
    }
    told.dedup();
    if left.is_empty() { Ok(told) } else { Err(left) }
}

/// All that a question is answered, without what is said back of the question.
fn is_answer(part: Part) -> bool {
    matches!(part, Code | Authoritative | In(..))
}

/// Another denial: whose it is, and who says it.
fn is_other_denial(part: Part) -> bool {
    matches!(part, Code | Authoritative | In(Authorities, Missing | More))
}

fn is_other_denial_or_more(part: Part) -> bool {
    matches!(part, In(Answers | Additionals, More)) || is_other_denial(part)
}

/// Another part of a chain of aliases, and what denies its end, in the letter case of that.
fn is_other_chain(part: Part) -> bool {
    matches!(part, Authoritative | In(Answers, Missing | More) | In(Authorities, _))
}

/// Every owner of the additional section is a target.
fn is_case_of_targets(part: Part) -> bool {
    matches!(part, In(_, DataCase) | In(Answers, OwnerCase))
        || matches!(part, In(Additionals, OwnerCase | AskedCase))
}

fn is_opcode_reply(case: &Case<'_>) -> bool {
    let is_foreign = ![0, NOTIFY].contains(&case.question.opcode);
    is_foreign && is_refusal(case, ResponseCode::NotImp) && case.theirs.question.is_empty()
}

/// CoreDNS sends AD back, and nothing else is different.
fn has_ad_of_question(case: &Case<'_>) -> bool {
    let [_, asked, _] = case.question.flags;
    let [[their_ad, theirs @ ..], [our_ad, ours @ ..]] = [case.theirs.flags, case.ours.flags];
    their_ad == asked && !our_ad && theirs == ours
}

fn is_notify(case: &Case<'_>) -> bool {
    case.question.opcode == NOTIFY && is_refusal(case, ResponseCode::NotImp)
}

fn is_refusal(case: &Case<'_>, code: ResponseCode) -> bool {
    case.ours.code == code && case.ours.is_bare()
}

impl Case<'_> {
    /// What was asked for, in lower case.
    fn name(&self) -> String {
        self.question.name.to_ascii_lowercase()
    }

    fn is_type(&self, rtype: RecordType) -> bool {
        self.question.rtype == rtype
    }

    fn is_denied_there(&self) -> bool {
        self.theirs.code == ResponseCode::NXDomain && self.theirs.answers.is_empty()
    }

    fn is_empty_there(&self) -> bool {
        self.theirs.code == ResponseCode::NoError && self.theirs.answers.is_empty()
    }

    fn is_empty_here(&self) -> bool {
        self.ours.code == ResponseCode::NoError && self.ours.answers.is_empty()
    }
}
