//! `fairlead names`: what DNS would answer, and why.

mod spelling;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use fairlead_dns::explain::{BadQuestion, By, Explanation};
use fairlead_state::{
    Key, Snapshot,
    model::{Service, ServiceType},
};
use serde::{Deserialize, Serialize};

use self::spelling::{missing, near, refused};
use super::part::{Extent, Wanted};
use crate::{
    table::{Cell, Screen, Table, Tone},
    view::{Origin, View},
};

/// Of `/etc/resolv.conf` in a pod: names with fewer dots are searched for first.
const NDOTS: usize = 5;

/// One question of a walk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) record: String,
    /// `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED` or `forwarded`.
    pub(crate) code: String,
    /// Who answers, in words.
    pub(crate) by: String,
    pub(crate) records: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A name's whole walk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lookup {
    pub(crate) name: String,
    /// Searched for as a pod of this namespace does.
    pub(crate) namespace: String,
    /// In the order they are asked; the last one decides.
    pub(crate) asked: Vec<Asked>,
    /// The result in one line.
    pub(crate) result: String,
    /// Why, and what to do.
    pub(crate) why: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether a client gets records, or at least a server to ask.
    pub(crate) is_found: bool,
    /// Servers are asked for it that know more than the cluster.
    pub(crate) is_forwarded: bool,
    /// The name of others that a Service of type ExternalName leads to.
    pub(crate) alias_of: Option<String>,
    /// Names of the cluster that are spelt alike, where it is none.
    pub(crate) near: Vec<String>,
}

/// One Service's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NameRow {
    pub(crate) name: String,
    pub(crate) answer: Vec<String>,
    pub(crate) what: String,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Names {
    pub(crate) lookup: Option<Lookup>,
    /// Without a name: every Service's.
    pub(crate) names: Vec<NameRow>,
    /// What to know of who answered here.
    pub(crate) note: Option<String>,
}

/// Every Service's name and its answer.
///
/// # Errors
/// The settings name something that is no domain.
pub(crate) fn all(view: &View<'_>) -> anyhow::Result<Names> {
    Ok(some(view, &Wanted::default())?.0)
}

/// The names of the wanted Services.
///
/// # Errors
/// As [`all`].
pub(crate) fn some(view: &View<'_>, wanted: &Wanted) -> anyhow::Result<(Names, Extent)> {
    let known = view.names()?;
    let domain = known.domain();
    let fits = |service: &&Arc<Service>| {
        let Key { namespace, name } = &service.key;
        wanted.fits(|word| format!("{name}.{namespace}.svc.{domain}").contains(word))
    };
    let row = |service: &Arc<Service>| {
        let Key { namespace, name } = &service.key;
        let name = format!("{name}.{namespace}.svc.{domain}");
        let asked = ["A", "AAAA"].into_iter().filter_map(|record| {
            known.explain(&name, record, IpAddr::V4(Ipv4Addr::LOCALHOST)).ok()
        });
        let asked: Vec<Explanation> = asked.collect();
        let mut answer: Vec<String> =
            asked.iter().flat_map(|asked| &asked.addresses).map(ToString::to_string).collect();
        if answer.is_empty() {
            answer = asked.iter().map(|asked| asked.code.to_owned()).collect();
            answer.dedup();
        }
        let what = match (&service.extras.external_name, service.headless) {
            (Some(target), _) => format!("alias of {target}"),
            (_, true) => "headless: its endpoints' addresses".to_owned(),
            _ => "ClusterIP".to_owned(),
        };
        NameRow { name, answer, what }
    };
    let fits = wanted.has_words().then_some(fits);
    let (services, extent) = wanted.take(view.snapshot.services().values(), fits);
    let names = services.into_iter().map(row).collect();
    Ok((Names { lookup: None, names, note: caveat(view).map(str::to_owned) }, extent))
}

/// One lookup as a report.
pub(crate) fn of(view: &View<'_>, lookup: Lookup) -> Names {
    let note = caveat(view).map(str::to_owned);
    Names { lookup: Some(lookup), names: Vec::new(), note }
}

/// The walk of one name, as a pod of `namespace` makes it.
///
/// # Errors
/// It is no name, or no type of records.
pub(crate) fn lookup(
    view: &View<'_>,
    name: &str,
    record: &str,
    namespace: &str,
    source: IpAddr,
) -> anyhow::Result<Lookup> {
    let mut asked = Vec::new();
    let mut last: Option<Explanation> = None;
    let known = view.names()?;
    let domain = known.domain();
    for candidate in search(name, namespace, &domain) {
        let found = known.explain(&candidate, record, source).map_err(|error| match error {
            BadQuestion::Name(error) => anyhow::anyhow!("{name:?} is no name: {error}"),
            BadQuestion::Type(_) => error.into(),
        })?;
        asked.push(self::asked(&found));
        let goes_on = found.code == "NXDOMAIN";
        last = Some(found);
        if !goes_on {
            break;
        }
    }
    let Some(last) = last else { anyhow::bail!("{name:?} is no name") };
    let alias_of = alias(&last);
    let is_unknown = matches!(last.code, "forwarded" | "NXDOMAIN") && alias_of.is_none();
    let refused = is_unknown.then(|| refused(&view.snapshot, name, namespace, &domain)).flatten();
    let near = match last.code {
        _ if alias_of.is_some() || refused.is_some() => Vec::new(),
        "forwarded" | "NXDOMAIN" => near(&view.snapshot, name, namespace, &domain),
        _ => Vec::new(),
    };
    // Nobody outside is likely to know a name without a dot, or one beside a Service's.
    let is_theirs = name.contains('.') && near.is_empty() && refused.is_none();
    let is_forwarded = last.code == "forwarded" && (alias_of.is_some() || is_theirs);
    let is_found = is_forwarded || !last.records.is_empty();
    let shown_name = last.name.trim_end_matches('.');
    let result = match last.code {
        "forwarded" if is_forwarded => format!("{shown_name} is asked of {}", by(&last.by)),
        "forwarded" => format!("{name} is no name of the cluster (asked of {})", by(&last.by)),
        "NOERROR" if last.records.is_empty() => {
            format!("{shown_name} exists and has no {} record", last.record)
        }
        "NOERROR" => format!("{shown_name} is {}", shown(&last)),
        code => format!("{name} is answered {code}"),
    };
    let why = refused.unwrap_or_else(|| why(view, name, namespace, &last, &near, &domain));
    Ok(Lookup {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        asked,
        result,
        why,
        addresses: last.addresses.clone(),
        is_found,
        is_forwarded,
        alias_of,
        near,
    })
}

/// Where an alias of the cluster's own leads outside.
fn alias(found: &Explanation) -> Option<String> {
    let record = found.records.last().filter(|_| found.code == "forwarded")?;
    let (_, target) = record.split_once(" CNAME ")?;
    Some(target.trim_end_matches('.').to_owned())
}

fn shown(found: &Explanation) -> String {
    if found.addresses.is_empty() {
        return found.records.join("; ");
    }
    found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn asked(found: &Explanation) -> Asked {
    Asked {
        name: found.name.clone(),
        record: found.record.clone(),
        code: found.code.to_owned(),
        by: by(&found.by),
        records: found.records.clone(),
        addresses: found.addresses.clone(),
    }
}

fn by(by: &By) -> String {
    match by {
        By::Kubernetes => "the cluster's names".to_owned(),
        By::Hosts => "hosts of the Corefile".to_owned(),
        By::Upstreams(servers) if servers.is_empty() => "no upstream: none is known".to_owned(),
        By::Upstreams(servers) => format!("upstream {}", servers.join(", ")),
        By::Acl => "acl of the Corefile".to_owned(),
        By::Plugin => "rewrite or template of the Corefile".to_owned(),
        By::Nobody => "nobody: no server block and no upstream takes the name".to_owned(),
    }
}

/// The names a resolver with a pod's `/etc/resolv.conf` asks for, in order.
fn search(name: &str, namespace: &str, domain: &str) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let suffixes =
        [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    let mut all: Vec<String> = suffixes.iter().map(|suffix| format!("{name}.{suffix}")).collect();
    let absolute = format!("{name}.");
    if name.matches('.').count() >= NDOTS {
        all.insert(0, absolute);
    } else {
        all.push(absolute);
    }
    all
}

fn why(
    view: &View<'_>,
    name: &str,
    namespace: &str,
    found: &Explanation,
    near: &[String],
    domain: &str,
) -> String {
    match (found.code, &found.by) {
        ("REFUSED", By::Acl) => {
            "the Corefile's acl refuses this client: change the rule, or ask from elsewhere".into()
        }
        (_, By::Plugin) => {
            "a rewrite or template of the Corefile decides: ask the server itself, as with dig"
                .into()
        }
        ("REFUSED", _) => {
            "no server block of the Corefile takes the name and none forwards it: add \
                           `forward . ADDRESS`, or give --upstream"
                .into()
        }
        ("SERVFAIL", _) => "names are not in sync yet: see `fairlead status`".into(),
        ("NOERROR", By::Kubernetes) => match service_of(&view.snapshot, &found.name, domain) {
            Some(service) if service.service_type == ServiceType::ExternalName => {
                format!("Service {} is of type ExternalName", service.key)
            }
            Some(service) if service.headless && found.records.is_empty() => format!(
                "Service {} is headless and has no ready endpoints: see `fairlead services {}`",
                service.key, service.key
            ),
            Some(service) if service.headless => {
                format!("Service {} is headless: its ready endpoints", service.key)
            }
            Some(service) if found.records.is_empty() => {
                format!("Service {} has no address of that family", service.key)
            }
            Some(service) => format!("ClusterIP of Service {}", service.key),
            None => "a name of the cluster".into(),
        },
        ("forwarded", _) if alias(found).is_some() => {
            let target = alias(found).unwrap_or_default();
            match service_of(&view.snapshot, &found.name, domain) {
                Some(service) => {
                    format!("Service {} is of type ExternalName: an alias of {target}", service.key)
                }
                None => format!("an alias of {target}"),
            }
        }
        ("NXDOMAIN" | "forwarded", _) => {
            let no_such = missing(&view.snapshot, name, namespace, domain);
            if !near.is_empty() {
                return format!("{no_such}; did you mean {}?", near.join(" or "));
            }
            if found.code == "forwarded" && name.contains('.') {
                return "no name of the cluster: upstream servers know, or nobody".into();
            }
            format!(
                "{no_such}: create it, or correct the name (NAME, NAME.NAMESPACE, or \
                 NAME.NAMESPACE.svc.{})",
                domain.trim_end_matches('.')
            )
        }
        _ => String::new(),
    }
}

/// The Service that a full name of the cluster is of.
fn service_of<'a>(snapshot: &'a Snapshot, name: &str, domain: &str) -> Option<&'a Arc<Service>> {
    let below = name.strip_suffix(domain)?.trim_end_matches('.').strip_suffix(".svc")?;
    let mut labels = below.rsplit('.');
    let (namespace, service) = (labels.next()?, labels.next()?);
    snapshot.services().get(&Key::new(namespace, service))
}

/// For people.
pub(crate) fn show(report: &Names, screen: Screen, wide: bool) -> String {
    let note = report.note.as_ref().map(|note| format!("{}\n", screen.paint(note, Tone::Dim)));
    let text = match &report.lookup {
        Some(lookup) => show_lookup(lookup, screen, wide),
        None if report.names.is_empty() => "no Services, no names\n".to_owned(),
        None => show_all(report, screen),
    };
    text + &note.unwrap_or_default()
}

fn show_all(report: &Names, screen: Screen) -> String {
    let mut table = Table::new(&["NAME", "ANSWER", "WHAT"]);
    for NameRow { name, answer, what } in &report.names {
        table.row([name.as_str().into(), answer.join(", ").into(), Cell::of(what, Tone::Dim)]);
    }
    table.text(screen)
}

fn show_lookup(lookup: &Lookup, screen: Screen, wide: bool) -> String {
    let mut table = Table::new(&["ASKED", "TYPE", "ANSWER", "BY"]);
    for asked in &lookup.asked {
        let answer = match asked.addresses.as_slice() {
            [] if asked.records.is_empty() => asked.code.clone(),
            [] => asked.records.join("; "),
            addresses => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let tone = match asked.code.as_str() {
            "NOERROR" if !asked.records.is_empty() => Tone::Good,
            "NOERROR" | "forwarded" => Tone::Plain,
            "NXDOMAIN" => Tone::Dim,
            _ => Tone::Bad,
        };
        table.row([
            asked.name.as_str().into(),
            asked.record.as_str().into(),
            Cell::of(answer, tone),
            asked.by.as_str().into(),
        ]);
    }
    let mut text = table.text(screen);
    if wide {
        for record in lookup.asked.iter().flat_map(|asked| &asked.records) {
            text.push_str(&format!("  {record}\n"));
        }
    }
    let tone = if lookup.is_found { Tone::Good } else { Tone::Bad };
    text.push_str(&format!("\n{}\n", screen.paint(&lookup.result, tone)));
    if !lookup.why.is_empty() {
        text.push_str(&format!("{}\n", lookup.why));
    }
    text
}

/// Who says so, where it is not the DNS server itself.
pub(crate) fn caveat(view: &View<'_>) -> Option<&'static str> {
    match view.origin {
        Origin::Agent { dns: false, .. } => Some(
            "this agent has no DNS role: names are answered as one with default settings would",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_search_path_is_walked_in_its_order() {
        let names = search("web", "shop", "cluster.local.");
        let expected =
            ["web.shop.svc.cluster.local.", "web.svc.cluster.local.", "web.cluster.local.", "web."];
        assert_eq!(names, expected);
        assert_eq!(search("a.b.c.d.e.f", "x", "c.")[0], "a.b.c.d.e.f.");
        assert_eq!(search("web.", "x", "c."), ["web."]);
    }
}
