//! Rules about what plugins do.

use std::collections::BTreeSet;

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::{Case, cluster};
use crate::compare::Plain;

/// Code of the option that asks for the server's identifier (RFC 5001).
const NSID: u16 = 3;

/// CoreDNS's reply with the DO bit of ours, if it is one with an identifier.
pub(super) fn without_nsid_do(case: &Case<'_>) -> Option<Plain> {
    let asks = |edns: &crate::questions::Edns| edns.options.iter().any(|(code, _)| *code == NSID);
    if !case.setup.has("nsid") || !case.question.edns.as_ref().is_some_and(asks) {
        return None;
    }
    let (theirs, ours) = (case.theirs.edns.as_ref()?, case.ours.edns.as_ref()?);
    let mut plain = case.theirs.clone();
    plain.edns = Some(super::super::Opt { dnssec_ok: ours.dnssec_ok, ..theirs.clone() });
    (theirs.dnssec_ok && !ours.dnssec_ok).then_some(plain)
}

pub(super) fn nobody_answers(case: &Case<'_>) -> bool {
    case.theirs.code == ResponseCode::ServFail
        && case.ours.code == ResponseCode::Refused
        && case.ours.is_bare()
        && !case.setup.has("forward")
}

/// The same code without records, and nothing in our OPT record.
pub(super) fn acl_error(case: &Case<'_>) -> bool {
    let says_why = case.theirs.edns.as_ref().is_some_and(|edns| !edns.options.is_empty());
    case.setup.has("acl")
        && says_why
        && case.theirs.code == case.ours.code
        && case.theirs.answers.is_empty()
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
        && case.theirs.code == case.ours.code
        && case.theirs.is_bare()
        && case.ours.is_bare()
        && !theirs.dnssec_ok
        && ours.dnssec_ok == asked.dnssec_ok
}

pub(super) fn any(case: &Case<'_>) -> bool {
    let is_hinfo = |line: &String| line.to_ascii_lowercase().contains(" hinfo ");
    let name = case.name();
    let is_ours = ["cluster.local.", "clusterset.local."]
        .iter()
        .any(|domain| name.strip_suffix(domain).is_some_and(|f| f.is_empty() || f.ends_with('.')));
    // What the zone passes on is the upstream's to deny.
    let is_passed_on = case.theirs.authorities.iter().any(|line| line.contains(" SOA ns.example."));
    let is_small = !is_ours || is_passed_on || case.setup.has("any") || cluster::is_alias(case);
    case.is_type(RecordType::ANY)
        && is_small
        && !case.ours.answers.is_empty()
        && case.ours.answers.iter().all(is_hinfo)
}

/// Each record once, without its time to live, in lower case.
fn distinct(lines: &[String]) -> BTreeSet<String> {
    let without_ttl = |line: &String| {
        let words: Vec<_> = line.split(' ').collect();
        let [owner, _, rest @ ..] = &words[..] else { return line.clone() };
        format!("{owner} {}", rest.join(" ")).to_ascii_lowercase()
    };
    lines.iter().map(without_ttl).collect()
}

/// Without the weights of servers.
fn weightless(lines: &BTreeSet<String>) -> BTreeSet<String> {
    let without_weight = |line: &String| match line.split(' ').collect::<Vec<_>>()[..] {
        [owner, "srv", priority, _, port, target] => {
            format!("{owner} srv {priority} {port} {target}")
        }
        _ => line.clone(),
    };
    lines.iter().map(without_weight).collect()
}

/// Whether a Service's balancer has a name, and the Service addresses.
fn is_beside_addresses(case: &Case<'_>, namespace: &str, service: &str) -> bool {
    let Some(service) = case.known.service(namespace, service) else { return false };
    let ingress = &service["status"]["loadBalancer"]["ingress"];
    !ingress[0]["hostname"].is_null() && !service["spec"]["externalIPs"].is_null()
}

pub(super) fn external_names(case: &Case<'_>) -> bool {
    let name = case.name();
    let Some(front) = name.strip_suffix("example.org.").filter(|_| case.setup.has("k8s_external"))
    else {
        return false;
    };
    let labels: Vec<_> = front.split_terminator('.').collect();
    let [theirs, ours] = [case.theirs, case.ours].map(|plain| distinct(&plain.answers));
    let is_same = theirs == ours && case.theirs.code == case.ours.code;
    let are_aliases = |lines: &BTreeSet<String>| lines.iter().any(|line| line.contains(" cname "));
    match labels[..] {
        [] => is_same,
        ["ns1", "dns"] => case.ours.code == ResponseCode::NoError,
        // Any namespace, anything in front of a Service.
        [_] | [_, _, _] if case.ours.code == ResponseCode::NXDomain => {
            case.theirs.code == ResponseCode::NoError
        }
        ["_tcp" | "_udp" | "_sctp", _, _] if case.is_empty_here() => true,
        [.., service, namespace] if is_beside_addresses(case, namespace, service) => {
            case.theirs.code == case.ours.code && weightless(&ours).is_subset(&weightless(&theirs))
        }
        _ if are_aliases(&ours) || are_aliases(&theirs) => {
            // For its own type, and where it leads to nothing.
            let is_own = case.is_type(RecordType::CNAME) && theirs.is_empty();
            let bare = |lines: &BTreeSet<String>| lines.iter().all(|line| line.contains(" cname "));
            is_same || is_own || bare(&ours) && bare(&theirs)
        }
        _ => is_same,
    }
}

/// Whether replies are the same but for letter case, in their questions too.
fn is_same_in_lower_case(case: &Case<'_>) -> bool {
    let lower = |plain: &Plain| {
        let Plain { question, answers, authorities, additionals, .. } = plain;
        [question, answers, authorities, additionals].map(|lines| {
            let mut lines: Vec<_> = lines.iter().map(|line| line.to_ascii_lowercase()).collect();
            lines.sort();
            lines
        })
    };
    case.theirs.code == case.ours.code && lower(case.theirs) == lower(case.ours)
}

/// A walk along a search path that has found nothing.
pub(super) fn is_renamed_by_a_walk(case: &Case<'_>) -> bool {
    case.setup.has("autopath") && case.is_denied_there() && is_same_in_lower_case(case)
}

pub(super) fn owner_case(case: &Case<'_>) -> bool {
    let renames = ["cache", "hosts", "autopath"].iter().any(|plugin| case.setup.has(plugin));
    renames && case.is_same_kind() && is_same_in_lower_case(case)
}

/// What is not kept is given no longer to live than what is.
pub(super) fn zone_cached(case: &Case<'_>) -> bool {
    case.setup.has("cache")
        && case.name().ends_with("cluster.local.")
        && case.is_same_kind()
        && !case.ours.answers.is_empty()
        && distinct(&case.theirs.answers) == distinct(&case.ours.answers)
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
    let theirs = Plain { authoritative: case.ours.authoritative, ..case.theirs.clone() };
    case.setup.has("dns64") && case.is_type(RecordType::AAAA) && theirs == *case.ours
}

pub(super) fn minimal(case: &Case<'_>) -> bool {
    let is_chain = case.ours.answers.iter().all(|line| line.contains(" CNAME "));
    let ours = Plain { authorities: vec![], ..case.ours.clone() };
    case.setup.has("minimal") && is_chain && !ours.answers.is_empty() && *case.theirs == ours
}

pub(super) fn autopath_alias(case: &Case<'_>) -> bool {
    let begins = |plain: &Plain| plain.answers.iter().any(|line| line.contains(" CNAME "));
    case.setup.has("autopath")
        && begins(case.theirs)
        && begins(case.ours)
        && case.ours.answers.iter().all(|line| case.theirs.answers.contains(line))
}
