//! Rules about names of the cluster.

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::Case;
use crate::{
    cluster::{CLUSTERS, Known, NAMESPACES},
    compare::plain::{Line, Plain},
};

const REVERSE_ZONES: [&str; 2] = ["in-addr.arpa.", "ip6.arpa."];
const DOMAINS: [&str; 2] = ["cluster.local.", "clusterset.local."];

/// A name in a domain of the cluster.
struct Inside {
    /// Labels in front of the domain.
    labels: Vec<String>,
    /// Of the cluster set.
    is_set: bool,
}

impl Inside {
    fn of(case: &Case<'_>) -> Option<Self> {
        let name = case.name();
        let (number, front) = DOMAINS.iter().enumerate().find_map(|(number, domain)| {
            let front = name.strip_suffix(domain)?;
            (front.is_empty() || front.ends_with('.')).then_some((number, front))
        })?;
        let labels = front.split_terminator('.').map(str::to_owned).collect();
        Some(Self { labels, is_set: number == 1 })
    }

    fn labels(&self) -> Vec<&str> {
        self.labels.iter().map(String::as_str).collect()
    }

    /// Labels in front of a Service that there is, and its key.
    fn service<'n>(&'n self, known: &Known) -> Option<(Vec<&'n str>, (&'n str, &'n str))> {
        let labels = self.labels();
        let [front @ .., service, namespace, "svc"] = &labels[..] else { return None };
        let is_there = match self.is_set {
            true => known.has_import(namespace, service),
            false => known.has_service(namespace, service),
        };
        is_there.then(|| (front.to_vec(), (*namespace, *service)))
    }
}

/// Namespaces there are.
pub(super) fn has_namespace(name: &str) -> bool {
    NAMESPACES.contains(&name) || ["kube-system", "probe"].contains(&name)
}

pub(super) fn soa_of_nothing(case: &Case<'_>) -> bool {
    let is_denial = [ResponseCode::NoError, ResponseCode::NXDomain].contains(&case.ours.code);
    // There it ends a walk along a search path, too.
    let is_found = case.setup.has("autopath");
    case.is_type(RecordType::SOA)
        && case.is_empty_there()
        && is_denial
        && (case.ours.answers.is_empty() || is_found)
}

pub(super) fn ent_exists(case: &Case<'_>) -> bool {
    if !case.is_denied_there() || !case.is_empty_here() {
        return false;
    }
    if is_reverse_zone(case) {
        return case.is_type(RecordType::TXT);
    }
    let Some(inside) = Inside::of(case) else { return false };
    if let Some((front, _)) = inside.service(case.known) {
        if inside.is_set && matches!(front[..], [cluster] if CLUSTERS.contains(&cluster)) {
            return true;
        }
        return matches!(
            front[..],
            ["_tcp" | "_udp" | "_sctp"] | ["_zone"] | ["pin" | "prefer", "_zone"]
        );
    }
    match inside.labels()[..] {
        [] | ["svc" | "pod"] => case.is_type(RecordType::TXT),
        ["dns-version"] | ["dns"] | ["ns", "dns"] => true,
        [namespace, "svc" | "pod"] => has_namespace(namespace),
        _ => false,
    }
}

fn is_reverse_zone(case: &Case<'_>) -> bool {
    REVERSE_ZONES.contains(&&*case.name())
}

pub(super) fn name_server(case: &Case<'_>) -> bool {
    let inside = Inside::of(case);
    let is_server = match inside.as_ref().map(Inside::labels).as_deref() {
        Some([]) => case.is_type(RecordType::NS),
        Some(["ns", "dns"]) => true,
        _ => is_reverse_zone(case) && case.is_type(RecordType::NS),
    };
    let is_kube_dns = |line: &Line| {
        let servers = ["kube-dns.kube-system.svc.", "ns.dns."];
        line.rtype == "NS" && servers.iter().any(|server| line.data.starts_with(server))
    };
    let is_right = match case.question.rtype {
        RecordType::NS => {
            !case.ours.answers.is_empty() && case.ours.answers.iter().all(is_kube_dns)
        }
        // There is no such Service here.
        _ => case.ours.answers.is_empty(),
    };
    let has_glue = !case.ours.additionals.is_empty();
    is_server
        && is_right
        && !has_glue
        && case.ours.code == ResponseCode::NoError
        && case.ours.authoritative
}

pub(super) fn reverse_other_types(case: &Case<'_>) -> bool {
    let is_pointer = case.is_type(RecordType::PTR);
    let is_reverse = case.name().ends_with(".arpa.") && !is_pointer;
    let is_host = case.name().ends_with(".hosts.example.") && is_pointer;
    (is_reverse || is_host)
        && case.is_denied_there()
        && case.is_empty_here()
        && case.ours.authoritative
}

pub(super) fn orphan_endpoints(case: &Case<'_>) -> bool {
    let answers = &case.differences.answers;
    let is_orphan = |line: &Line| {
        let labels: Vec<_> = line.target().split('.').collect();
        matches!(labels[..], [_, service, namespace, "svc", ..] if !case.known.has_service(namespace, service))
    };
    case.name().ends_with(".arpa.")
        && !answers.missing.is_empty()
        && answers.missing.iter().all(is_orphan)
        && answers.more.is_empty()
}

pub(super) fn target_case(case: &Case<'_>) -> bool {
    let is_lower = |text: &str| text == text.to_ascii_lowercase();
    case.differences.pairs().all(|(theirs, ours)| {
        let is_target = !ours.owner.eq_ignore_ascii_case(&case.question.name);
        (theirs.data_without_weight() == ours.data_without_weight() || is_lower(&ours.data))
            && (theirs.owner == ours.owner || !is_target || is_lower(&ours.owner))
    })
}

/// Replies that name the same servers.
fn same_servers(case: &Case<'_>) -> bool {
    let answers = &case.differences.answers;
    case.is_type(RecordType::SRV) && answers.missing.is_empty() && answers.more.is_empty()
}

/// All of a reply have one weight, and together no more than there is to share. It is less than there where slices of one
/// name have different ports: each of its addresses counts with each of them.
pub(super) fn srv_weight(case: &Case<'_>) -> bool {
    // A walk along a search path puts an alias in front of them.
    let servers = case.ours.answers.iter().filter(|line| line.rtype == "SRV");
    let ours: Vec<_> = servers.collect();
    let own = ours.first().and_then(|line| line.weight());
    let most = u32::try_from(100 / ours.len().max(1)).unwrap_or(0).max(1);
    same_servers(case)
        && own.is_some_and(|own| (1..=most).contains(&own))
        && ours.iter().all(|line| line.weight() == own)
}

pub(super) fn additional_room(case: &Case<'_>) -> bool {
    let bytes = reply_bytes(&case.question.name, case.theirs);
    same_servers(case) && case.question.lacks_room(bytes, case.setup.reply_bytes_max())
}

pub(super) fn additional_all(case: &Case<'_>) -> bool {
    same_servers(case) && case.differences.additionals.more.iter().all(|line| is_target(case, line))
}

fn is_target(case: &Case<'_>, line: &Line) -> bool {
    let mut answers = case.ours.answers.iter();
    answers.any(|answer| answer.target().eq_ignore_ascii_case(&line.owner))
}

/// The most bytes a reply to a question for servers can have: no name in it is a pointer.
fn reply_bytes(asked: &str, reply: &Plain) -> usize {
    /// Header, question type and class, OPT record.
    const FIXED_BYTES: usize = 12 + 4 + 11;
    /// Type, class, time to live, length; then an address, or priority, weight and port.
    const RECORD_BYTES: usize = 10 + 16;
    let name = |word: &str| word.len() + 1;
    let record = |line: &Line| {
        let target = if line.rtype == "SRV" { name(line.target()) } else { 0 };
        name(&line.owner) + RECORD_BYTES + target
    };
    let records = reply.answers.iter().chain(&reply.additionals).map(record);
    FIXED_BYTES + name(asked) + records.sum::<usize>()
}

/// Of a headless Service without ready endpoints.
pub(super) fn zonal(case: &Case<'_>) -> bool {
    let Some(inside) = Inside::of(case) else { return false };
    let Some((front, _)) = inside.service(case.known) else { return false };
    matches!(front[..], [.., _, "_zone"])
        && case.is_empty_there()
        && case.ours.code == ResponseCode::NXDomain
}

pub(super) fn pod_srv(case: &Case<'_>) -> bool {
    let Some(inside) = Inside::of(case) else { return false };
    matches!(inside.labels()[..], [_, _, "pod"])
        && case.is_type(RecordType::SRV)
        && case.is_empty_here()
        && !case.theirs.answers.is_empty()
}

/// One or two labels in front of a pod's name change nothing there.
pub(super) fn pod_below(case: &Case<'_>) -> bool {
    let Some(inside) = Inside::of(case) else { return false };
    let [front @ .., _, _, "pod"] = &inside.labels()[..] else { return false };
    (1..=2).contains(&front.len()) && is_no_name(case)
}

/// What is no name of the zone is passed on, if anything is, and for ANY that is all.
fn is_no_name(case: &Case<'_>) -> bool {
    let is_passed_on = case.setup.passes_all_on()
        && case.is_type(RecordType::ANY)
        && case.ours.answers.iter().all(|line| line.rtype == "HINFO");
    case.ours.code == ResponseCode::NXDomain || is_passed_on
}

pub(super) fn empty_port(case: &Case<'_>) -> bool {
    let Some(inside) = Inside::of(case) else { return false };
    let Some((front, _)) = inside.service(case.known) else { return false };
    let [port, protocol] = &front[..] else { return false };
    // Labels without the underscore are none of a port's.
    let is_port = port.len() > 1 && port.starts_with('_') && protocol.starts_with('_');
    !is_port && is_no_name(case)
}

/// Whether a name is that of an alias.
pub(super) fn is_alias(case: &Case<'_>) -> bool {
    let Some(inside) = Inside::of(case) else { return false };
    let service = inside.service(case.known);
    service.is_some_and(|(front, (namespace, service))| {
        front.is_empty() && case.known.is_alias(namespace, service)
    })
}

pub(super) fn alias_any_type(case: &Case<'_>) -> bool {
    let plain = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
    // One that leads to itself leads nowhere.
    let is_endless = case.ours.code == ResponseCode::ServFail && case.ours.answers.is_empty();
    is_alias(case)
        && !plain.contains(&case.question.rtype)
        && case.is_empty_there()
        && (case.ours.has_alias() || is_endless)
}

pub(super) fn alias_nodata(case: &Case<'_>) -> bool {
    let is_same_code = case.theirs.code == case.ours.code;
    let is_denied = is_same_code && case.theirs.is_chain() && is_whole_chain(case);
    is_alias(case) && (is_denied || is_filtered(case))
}

/// acl leaves nothing of what the alias leads to.
fn is_filtered(case: &Case<'_>) -> bool {
    let Plain { code, authorities, .. } = case.ours;
    case.setup.has("filter")
        && *code == ResponseCode::NoError
        && authorities.is_empty()
        && case.ours.is_chain()
}

/// No alias that is known there is missing here, and the last one leads to a denial.
fn is_whole_chain(case: &Case<'_>) -> bool {
    let is_denied = case.ours.authorities.iter().any(|line| line.rtype == "SOA");
    case.ours.is_chain() && is_denied && case.differences.answers.missing.is_empty()
}

pub(super) fn alias_code(case: &Case<'_>) -> bool {
    is_alias(case)
        && case.theirs.is_chain()
        && case.theirs.code == ResponseCode::NoError
        && match case.ours.code {
            ResponseCode::ServFail => case.ours.is_bare(),
            ResponseCode::NXDomain => is_whole_chain(case),
            // acl's word on what the alias leads to.
            ResponseCode::Refused => {
                case.ours.is_chain() && case.differences.answers.missing.is_empty()
            }
            _ => false,
        }
}
