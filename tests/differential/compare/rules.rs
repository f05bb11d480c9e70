//! The rules of docs/dns-differences.md that allow an answer to differ.

mod cluster;
mod plugins;

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::Plain;
use crate::{cluster::Known, questions::Question, setups::Setup};

/// A difference to be judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'c> {
    pub(super) setup: &'c Setup,
    pub(super) known: &'c Known,
    pub(super) question: &'c Question,
    pub(super) theirs: &'c Plain,
    pub(super) ours: &'c Plain,
}

type Rule = (&'static str, fn(&Case<'_>) -> bool);

/// In this order: the first that holds is told.
const RULES: [Rule; 30] = [
    ("notify", |case| case.question.opcode == NOTIFY && is_refusal(case, ResponseCode::NotImp)),
    ("badvers-do", plugins::badvers_do),
    ("other-classes", |case| case.question.class != 1 && is_refusal(case, ResponseCode::Refused)),
    ("nobody-answers", plugins::nobody_answers),
    ("acl-error", plugins::acl_error),
    ("external-names", plugins::external_names),
    ("soa-of-nothing", cluster::soa_of_nothing),
    ("any", plugins::any),
    ("ent-exists", cluster::ent_exists),
    ("name-server", cluster::name_server),
    ("reverse-other-types", cluster::reverse_other_types),
    ("orphan-endpoints", cluster::orphan_endpoints),
    ("target-case", cluster::target_case),
    ("srv-weight", cluster::srv_weight),
    ("additional-room", cluster::additional_room),
    ("additional-all", cluster::additional_all),
    ("zonal", cluster::zonal),
    ("pod-srv", cluster::pod_srv),
    ("empty-port", cluster::empty_port),
    ("alias-any-type", cluster::alias_any_type),
    ("alias-nodata", cluster::alias_nodata),
    ("alias-code", cluster::alias_code),
    ("owner-case", plugins::owner_case),
    ("dns64-flags", plugins::dns64_flags),
    ("minimal", plugins::minimal),
    ("zone-cached", plugins::zone_cached),
    ("autopath-alias", plugins::autopath_alias),
    ("autopath-domain", plugins::autopath_domain),
    ("autopath-any", plugins::autopath_any),
    ("badvers-class", plugins::badvers_class),
];
const NOTIFY: u8 = 4;

pub(super) fn rule(case: Case<'_>) -> Option<&'static str> {
    let is_foreign = case.question.opcode != 0 && case.question.opcode != NOTIFY;
    if is_foreign && is_refusal(&case, ResponseCode::NotImp) && case.theirs.code == case.ours.code {
        return case.theirs.question.is_empty().then_some("opcode-reply");
    }
    if case.theirs.question != case.ours.question {
        return plugins::is_renamed_by_a_walk(&case).then_some("owner-case");
    }
    // This one may be in the way of any other.
    let theirs = plugins::without_nsid_do(&case);
    let case = match &theirs {
        Some(theirs) if theirs == case.ours => return Some("nsid-do"),
        Some(theirs) => Case { theirs, ..case },
        None => case,
    };
    RULES.iter().find(|(_, holds)| holds(&case)).map(|(rule, _)| *rule)
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

    /// Whether both are the same but for their sections.
    fn is_same_kind(&self) -> bool {
        self.theirs.head() == self.ours.head()
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
