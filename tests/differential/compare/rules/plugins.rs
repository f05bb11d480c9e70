//! Rules about what plugins do.

use std::collections::BTreeSet;

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::{Case, cluster};
use crate::compare::plain::{Line, Plain};

/// Code of the option that asks for the server's identifier (RFC 5001).
const NSID: u16 = 3;

pub(super) fn nsid_do(case: &Case<'_>) -> bool {
    let asks = |edns: &crate::questions::Edns| edns.options.iter().any(|(code, _)| *code == NSID);
    let says_do = |plain: &Plain| plain.edns.as_ref().is_some_and(|edns| edns.dnssec_ok);
    case.setup.has("nsid")
        && case.question.edns.as_ref().is_some_and(asks)
        && says_do(case.theirs)
        && !says_do(case.ours)
}

pub(super) fn nobody_answers(case: &Case<'_>) -> bool {
    case.theirs.code == ResponseCode::ServFail
        && case.ours.code == ResponseCode::Refused
        && case.ours.is_bare()
        && !case.setup.has("forward")
}

/// CoreDNS says why in an OPT record, whoever asks; ours is for those who sent one.
pub(super) fn acl_error(case: &Case<'_>) -> bool {
    let says_why = case.theirs.edns.as_ref().is_some_and(|edns| !edns.options.is_empty());
    let is_bare = case.ours.edns.as_ref().is_none_or(|edns| edns.options.is_empty());
    case.setup.has("acl")
        && says_why
        && is_bare
        && case.ours.edns.is_some() == case.question.edns.is_some()
        && case.theirs.is_bare()
        && case.ours.is_bare()
}

/// RFC 3225 §3: the DO bit is copied.
pub(super) fn badvers_do(case: &Case<'_>) -> bool {
    let (Some(asked), Some(theirs), Some(ours)) =
        (&case.question.edns, &case.theirs.edns, &case.ours.edns)
    else {
        return false;
    };
    asked.version > 0
        && matches!(case.theirs.code, ResponseCode::BADVERS | ResponseCode::BADSIG)
        && !theirs.dnssec_ok
        && ours.dnssec_ok == asked.dnssec_ok
}

pub(super) fn any(case: &Case<'_>) -> bool {
    let is_hinfo = |line: &Line| line.rtype == "HINFO";
    let name = case.name();
    let is_ours = ["cluster.local.", "clusterset.local."]
        .iter()
        .any(|domain| name.strip_suffix(domain).is_some_and(|f| f.is_empty() || f.ends_with('.')));
    // What the zone passes on is the upstream's to deny.
    let is_passed_on =
        case.theirs.authorities.iter().any(|line| line.data.starts_with("ns.example."));
    let is_small = !is_ours || is_passed_on || case.setup.has("any") || cluster::is_alias(case);
    case.is_type(RecordType::ANY)
        && is_small
        && !case.ours.answers.is_empty()
        && case.ours.answers.iter().all(is_hinfo)
}

/// Each record once, without its time to live, in lower case: owner, type and data.
fn distinct(lines: &[Line]) -> BTreeSet<[String; 3]> {
    let lower = |line: &Line| {
        let Line { owner, rtype, data, .. } = line;
        [owner.to_ascii_lowercase(), rtype.clone(), data.to_ascii_lowercase()]
    };
    lines.iter().map(lower).collect()
}

/// Likewise, without the weights of servers.
fn weightless(lines: &[Line]) -> BTreeSet<[String; 3]> {
    lines.iter().map(Line::key).collect()
}

/// Whether a Service's balancer has a name, and the Service addresses.
fn is_beside_addresses(case: &Case<'_>, namespace: &str, service: &str) -> bool {
    let Some(service) = case.known.service(namespace, service) else { return false };
    let ingress = &service["status"]["loadBalancer"]["ingress"];
    !ingress[0]["hostname"].is_null() && !service["spec"]["externalIPs"].is_null()
}

/// Whether CoreDNS tells addresses of pods.
fn tells_endpoints(case: &Case<'_>) -> bool {
    let mut records = case.theirs.answers.iter().chain(&case.theirs.additionals);
    records.any(|line| line.data.starts_with("10.1.0.") || line.data.starts_with("fd00:1::"))
}

pub(super) fn external_names(case: &Case<'_>) -> bool {
    let name = case.name();
    let Some(front) = name.strip_suffix("example.org.").filter(|_| case.setup.has("k8s_external"))
    else {
        return false;
    };
    let labels: Vec<_> = front.split_terminator('.').collect();
    let answers = [&case.theirs.answers, &case.ours.answers];
    let [theirs, ours] = answers.map(|lines| distinct(lines));
    let is_same = theirs == ours && case.theirs.code == case.ours.code;
    match labels[..] {
        [] => is_same,
        ["ns1", "dns"] => case.ours.code == ResponseCode::NoError,
        // Any namespace, anything in front of a Service.
        [_] | [_, _, _] if case.ours.code == ResponseCode::NXDomain => {
            let is_there = labels.len() == 1 && cluster::has_namespace(labels[0]);
            case.theirs.code == ResponseCode::NoError && !is_there && !tells_endpoints(case)
        }
        ["_tcp" | "_udp" | "_sctp", _, _] if case.is_empty_here() => true,
        [.., service, namespace] if is_beside_addresses(case, namespace, service) => {
            let [theirs, ours] = answers.map(|lines| weightless(lines));
            case.theirs.code == case.ours.code && ours.is_subset(&theirs)
        }
        _ if case.ours.has_alias() || case.theirs.has_alias() => {
            // For its own type, and where it leads to nothing.
            let is_own = case.is_type(RecordType::CNAME) && theirs.is_empty();
            is_same || is_own || case.ours.is_chain() && case.theirs.is_chain()
        }
        _ => is_same,
    }
}

/// Whatever the type, it is that of the line.
pub(super) fn external_ttl(case: &Case<'_>) -> bool {
    const TTL_SECONDS: u32 = 9;
    case.setup.has("k8s_external")
        && case.name().ends_with("example.org.")
        && case.differences.pairs().all(|(_, ours)| ours.ttl == Some(TTL_SECONDS))
}

/// A walk along a search path that has found nothing asks on in lower case, from the search domain on.
pub(super) fn is_renamed_by_a_walk(case: &Case<'_>) -> bool {
    let asked = |plain: &Plain| {
        plain.question.iter().any(|question| question.starts_with(&case.question.name))
    };
    case.setup.has("autopath") && case.is_denied_there() && !asked(case.theirs) && asked(case.ours)
}

/// What names have in common with the one that was asked for, ours have as it is in the question.
pub(super) fn owner_case(case: &Case<'_>) -> bool {
    let renames = ["cache", "hosts", "autopath"].iter().any(|plugin| case.setup.has(plugin));
    let are_as_asked = |text: &str| are_as_asked(case, text);
    let is_right = |(theirs, ours): &(Line, Line)| {
        (theirs.owner == ours.owner || are_as_asked(&ours.owner))
            && (theirs.rtype != "SOA" || theirs.data == ours.data || are_as_asked(&ours.data))
    };
    renames && case.differences.pairs().all(is_right)
}

/// Names that records lead to often end as what was asked for.
pub(super) fn kept_case(case: &Case<'_>) -> bool {
    const OF_NAMES: [&str; 5] = ["CNAME", "MX", "NS", "PTR", "SRV"];
    let mut pairs = case.differences.answers.pairs.iter();
    let is_right = |(theirs, ours): &(Line, Line)| {
        theirs.data == ours.data
            || OF_NAMES.contains(&ours.rtype.as_str()) && are_as_asked(case, &ours.data)
    };
    case.setup.has("cache") && pairs.all(is_right)
}

/// Whether names are written as in the question, or as in what is searched for by it.
fn are_as_asked(case: &Case<'_>, names: &str) -> bool {
    const DOMAIN: &str = "demo.svc.cluster.local.";
    let asked = case.question.name.as_str();
    let meant = asked
        .len()
        .checked_sub(DOMAIN.len())
        .filter(|_| case.setup.has("autopath") && case.name().ends_with(DOMAIN));
    let meant = meant.map_or(asked, |end| &asked[..end]);
    names.split(' ').all(|name| ends_as(name, asked) || ends_as(name, meant))
}

/// Whether the last labels in which names are the same have the same letter case.
fn ends_as(name: &str, asked: &str) -> bool {
    let mut labels = name.rsplit('.').zip(asked.rsplit('.'));
    let first_other = labels.find(|(label, asked)| label != asked);
    first_other.is_none_or(|(label, asked)| !label.eq_ignore_ascii_case(asked))
}

/// What is not kept is given no longer to live than what is.
pub(super) fn zone_cached(case: &Case<'_>) -> bool {
    case.setup.has("cache")
        && case.name().ends_with("cluster.local.")
        && case.differences.pairs().all(|(theirs, ours)| theirs.ttl <= ours.ttl)
}

/// A name along the path at which upstreams fail, or which they refuse, ends the search there.
pub(super) fn autopath_failures(case: &Case<'_>) -> bool {
    let is_failure = |name: &str| ["fail.example.", "refused.example."].contains(&name);
    let meant = case.name();
    let codes = [ResponseCode::ServFail, ResponseCode::Refused];
    case.setup.has("autopath")
        && meant.strip_suffix("demo.svc.cluster.local.").is_some_and(is_failure)
        && codes.contains(&case.theirs.code)
        && case.theirs.is_bare()
        && case.ours.code == ResponseCode::NXDomain
        && case.ours.answers.is_empty()
}

pub(super) fn autopath_domain(case: &Case<'_>) -> bool {
    case.setup.has("autopath")
        && case.name() == "demo.svc.cluster.local."
        && case.theirs.code == ResponseCode::ServFail
        && case.is_empty_here()
}

/// What it finds for ANY need not be there: names outside are answered without being looked for (RFC 8482).
pub(super) fn autopath_any(case: &Case<'_>) -> bool {
    case.setup.has("autopath")
        && case.is_type(RecordType::ANY)
        && case.name().ends_with(".demo.svc.cluster.local.")
        && case.theirs.code == ResponseCode::NoError
        && case.ours.code == ResponseCode::NXDomain
        && case.ours.answers.is_empty()
}

/// RFC 6891 §6.1.3: what cannot be read as it is meant is not looked at further.
pub(super) fn badvers_class(case: &Case<'_>) -> bool {
    case.question.class != 1
        && case.question.edns.as_ref().is_some_and(|edns| edns.version > 0)
        && case.theirs.code == ResponseCode::Refused
        && matches!(case.ours.code, ResponseCode::BADVERS | ResponseCode::BADSIG)
        && case.theirs.is_bare()
        && case.ours.is_bare()
}

pub(super) fn dns64_flags(case: &Case<'_>) -> bool {
    case.setup.has("dns64") && case.is_type(RecordType::AAAA) && !case.theirs.authoritative
}

pub(super) fn minimal(case: &Case<'_>) -> bool {
    case.setup.has("minimal") && case.ours.has_alias() && case.ours.is_chain()
}

/// CoreDNS puts an alias in front of what it finds (autopath/cname.go), be it there already; where aliases are all
/// that it finds we say what denies the end of them.
pub(super) fn autopath_alias(case: &Case<'_>) -> bool {
    let (answers, authorities) = (&case.differences.answers, &case.differences.authorities);
    let is_said = |line: &Line| {
        line.rtype == "CNAME" && case.ours.answers.iter().any(|own| own.key() == line.key())
    };
    let is_denial = case.ours.authorities.iter().any(|line| line.rtype == "SOA");
    let is_same_end = case.theirs.code == case.ours.code
        && authorities.missing.is_empty()
        && authorities.more.is_empty();
    let is_denied_end = case.theirs.code == ResponseCode::NoError
        && [ResponseCode::NoError, ResponseCode::NXDomain].contains(&case.ours.code)
        && case.theirs.is_chain()
        && case.ours.is_chain()
        && is_denial;
    case.setup.has("autopath")
        && case.theirs.has_alias()
        && case.ours.has_alias()
        && answers.more.is_empty()
        && answers.missing.iter().all(is_said)
        && (is_same_end || is_denied_end)
}

/// The alias that CoreDNS adds lives as long as what it leads to, and the one that is there is said, too.
pub(super) fn autopath_alias_ttl(case: &Case<'_>) -> bool {
    let is_there = |ours: &Line| {
        let mut theirs = case.theirs.answers.iter();
        theirs
            .any(|line| (&line.rtype, &line.data, line.ttl) == (&ours.rtype, &ours.data, ours.ttl))
    };
    let mut pairs = case.differences.answers.pairs.iter();
    autopath_alias(case)
        && pairs.all(|(theirs, ours)| {
            theirs.ttl == ours.ttl || (ours.rtype == "CNAME" && is_there(ours))
        })
}
