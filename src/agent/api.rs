//! The admin socket's questions and answers: `GET /v1/status`, `services`, `routes`, `names`,
//! `trace`, `traffic`, as JSON. Read-only, and without secrets: keys of certificates are not even
//! at hand here.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fairlead_dns::{Crowded, DropReason, explain::Explainer as Names};
use fairlead_proxy::{
    Kernel,
    explain::{LiveMaps, PlannedMaps},
    maps::ServiceCounts,
    namespaces,
};
use fairlead_state::{Kind, Snapshot};
use hyper::{StatusCode, Uri};
use serde::Serialize;

use super::{dns, http, live, pages::Pages, proxy::UNSEEN_NAMESPACES, role::State};
use crate::{
    counted::counted,
    report::{
        names, routes, services,
        status::{Health, KindRow, ProxyRow, RoleRow, SnapshotRow, Status},
        trace,
        traffic::Traffic,
    },
    version, view,
    view::{Counters, Maps, Origin, Proxy, View},
    web::Facts,
};

impl Facts for Pages {
    fn health(&self) -> Health {
        health(self)
    }

    fn status(&self) -> Status {
        status(self)
    }

    fn traffic(&self) -> Traffic {
        traffic(self)
    }

    fn look<T>(&self, report: impl FnOnce(&View<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        look(self, report)
    }
}

/// Answers a question; `None`: there is no such page.
pub(crate) fn answer(pages: &Pages, uri: &Uri) -> Option<http::Page> {
    let page = uri.path().strip_prefix("/v1/")?;
    let query: BTreeMap<String, String> = uri
        .query()
        .map(|query| form_urlencoded::parse(query.as_bytes()).into_owned().collect())
        .unwrap_or_default();
    let query = |name: &str| query.get(name).map(String::as_str);
    let made = match page {
        "status" => json(&status(pages)),
        "traffic" => json(&traffic(pages)),
        "services" => with_view(pages, |view| services::build(view, query("name"))),
        "routes" => with_view(pages, |view| routes::build(view, query("host"))),
        "names" => with_view(pages, |view| {
            let Some(name) = query("name") else { return names::all(view) };
            let namespace = query("namespace").unwrap_or("default");
            let record = query("type").unwrap_or("A");
            let lookup = names::lookup(view, name, record, namespace, Ipv4Addr::LOCALHOST.into())?;
            Ok(names::of(view, lookup))
        }),
        "trace" => with_view(pages, |view| {
            let target = query("target").context("the question has no target")?.parse()?;
            let from = trace::Asker { client: query("from"), namespace: query("namespace") };
            trace::build(view, &target, from)
        }),
        _ => return None,
    };
    // A question that cannot be answered is the asker's matter: its one line goes back to them.
    Some(made.map_or_else(
        |error| (StatusCode::UNPROCESSABLE_ENTITY, format!("{}\n", crate::exit::one_line(&error))),
        |text| (StatusCode::OK, text),
    ))
}

fn json<T: Serialize>(report: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string(report)?)
}

fn with_view<T: Serialize>(
    pages: &Pages,
    report: impl FnOnce(&View<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<String> {
    json(&look(pages, report)?)
}

/// Makes a report of this moment.
///
/// # Errors
/// Nothing is known of the cluster yet, or the report's own.
pub(super) fn look<T>(
    pages: &Pages,
    report: impl FnOnce(&View<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let shared = &pages.shared;
    let snapshot = shared.snapshots.borrow().clone();
    let snapshot = snapshot.context(
        "nothing is known of the cluster yet: `fairlead status` says what is waited for",
    )?;
    let args = shared.args();
    let live = shared.live.proxy.load_full();
    let running = shared.live.dns.load_full();
    let ingress = shared.live.ingress.load_full();
    let origin = Origin::Agent { proxy: live.is_some(), dns: running.is_some() };
    let (objects, settings) = (snapshot.clone(), args.clone());
    let names = view::later(move || match &running {
        Some(running) => Ok(running.explainer()),
        None => Ok(Names::new(&dns::config(&settings.dns, None), Some(&objects))?),
    });
    let objects = &snapshot;
    let view = View {
        snapshot: snapshot.clone(),
        node_name: shared.node_name.to_string(),
        proxy: view::later(|| match &live {
            Some(proxy) => live_maps(proxy),
            None => {
                let rules = super::proxy::rules(&args);
                let cidrs = &args.proxy.service_cidr;
                let (maps, status) = PlannedMaps::plan(objects, &shared.node_name, rules, cidrs);
                Ok(Proxy { maps: Maps::Planned(maps), status, counters: None })
            }
        }),
        names,
        routes: ingress.as_ref().map(|ingress| ingress.explainer.clone()),
        http: ingress.as_ref().map(|ingress| ingress.http.clone()).unwrap_or_default(),
        https: ingress.as_ref().map(|ingress| ingress.https.clone()).unwrap_or_default(),
        origin,
    };
    report(&view)
}

fn live_maps(proxy: &live::Proxy) -> anyhow::Result<Proxy<'_>> {
    let status = proxy.status.borrow().clone();
    let last = status.counters_last.unwrap_or(u32::MAX);
    let counters = Counters {
        read: view::later(move || Ok(proxy.kernel.services(last)?)),
        bytes_end: proxy.kernel.sizes().bytes,
    };
    Ok(Proxy { maps: Maps::Live(LiveMaps::of(&proxy.kernel)?), status, counters: Some(counters) })
}

fn health(pages: &Pages) -> Health {
    let shared = &pages.shared;
    let stale = shared.health.borrow().stale_for(Instant::now());
    let is_ready = pages.roles.iter().all(|(_, state)| matches!(*state.borrow(), State::Ready));
    let is_ending = shared.ending.is_cancelled();
    let snapshot = shared.snapshots.borrow().as_ref().map(|snapshot| SnapshotRow {
        revision: snapshot.revision(),
        changed_seconds_ago: snapshot.received_at().map(|at| at.elapsed().as_secs_f64()),
        stale_seconds: stale.as_ref().map(Duration::as_secs_f64),
    });
    Health {
        node: shared.node_name.to_string(),
        is_healthy: is_ready && !is_ending && snapshot.is_some() && stale.is_none(),
        is_ending,
        snapshot,
    }
}

fn status(pages: &Pages) -> Status {
    let shared = &pages.shared;
    let Health { node, is_healthy, is_ending, snapshot: row } = health(pages);
    let snapshot = shared.snapshots.borrow().clone();
    let source = shared.health.borrow().clone();
    let proxy = shared.live.proxy.load_full();
    let roles = pages
        .roles
        .iter()
        .map(|(name, state)| role(name, &state.borrow(), serves(shared, name)))
        .collect();
    let kinds = source.kinds.iter().map(|(kind, health)| KindRow {
        kind: kind.as_str().to_owned(),
        objects: snapshot.as_ref().map_or(0, |snapshot| view::count(snapshot, *kind)),
        is_synced: health.synced,
        error: health.last_error.as_deref().map(str::to_owned),
    });
    Status {
        version: version::VERSION.to_owned(),
        node,
        is_healthy,
        is_ending,
        snapshot: row,
        kinds: kinds.collect(),
        warnings: warnings(pages, snapshot.as_deref(), proxy.as_deref()),
        proxy: proxy.map(|proxy| proxy_row(&proxy, &shared.args().proxy.bpffs)),
        roles,
    }
}

fn traffic(pages: &Pages) -> Traffic {
    let live = &pages.shared.live;
    let mut traffic = Traffic::default();
    if let Some(proxy) = live.proxy.load_full() {
        let last = proxy.status.borrow().counters_last.unwrap_or(u32::MAX);
        if let (Ok(services), Ok(drops)) = (proxy.kernel.services(last), proxy.kernel.drops()) {
            traffic.connections = Some(services.values().map(|service| service.selected).sum());
            traffic.rejected = Some(services.values().map(ServiceCounts::rejected).sum());
            let drops = drops.iter();
            drops.for_each(|(reason, count)| traffic.add("proxy", reason.as_str(), *count));
        }
    }
    if let Some(running) = live.dns.load_full() {
        let counts = running.counts();
        let replies = super::dns::CODES.iter().zip(counts.replies).filter(|(_, count)| *count > 0);
        traffic.replies = Some(replies.map(|(code, count)| ((*code).to_owned(), count)).collect());
        traffic.forwarded = Some(counts.forwarded);
        let dropped = DropReason::ALL.iter().zip(counts.dropped);
        dropped.for_each(|(reason, count)| traffic.add("dns", reason.as_str(), count));
        let crowded = Crowded::ALL.iter().zip(counts.crowded);
        crowded.for_each(|(reason, count)| traffic.add("dns", reason.as_str(), count));
    }
    if let Some(ingress) = live.ingress.load_full() {
        let counters = (ingress.meter.0)();
        let refused = counters.refused.iter();
        refused.for_each(|(reason, count)| traffic.add("ingress", reason.as_str(), *count));
        let uncopied = counters.uncopied.iter();
        uncopied.for_each(|(reason, count)| traffic.add("ingress", reason.as_str(), *count));
        traffic.http_connections_open = Some(counters.connections_open);
        traffic.responses = Some(counters.responses);
    }
    traffic
}

fn role(name: &str, state: &State, serves: String) -> RoleRow {
    let (state, why) = match state {
        State::Starting => ("starting", None),
        State::Ready => ("ready", None),
        State::CannotStart(why) => ("cannot start", Some(why.reason.clone())),
        State::Failed(why) => ("failed", Some(why.clone())),
        State::Stopped => ("stopped", None),
    };
    RoleRow { name: name.to_owned(), state: state.to_owned(), why, serves }
}

/// What a role serves, in words.
fn serves(shared: &super::Shared, role: &str) -> String {
    let live = &shared.live;
    let listed = |addresses: &[std::net::SocketAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    match role {
        "proxy" => live.proxy.load().as_ref().map(|proxy| {
            let status = proxy.status.borrow();
            format!("{} at revision {}", counted(status.services, "Service"), status.revision)
        }),
        "dns" => live.dns.load().as_ref().map(|running| {
            let services = counted(running.service_count(), "Service");
            format!("names of {services} at {}", listed(running.addresses()))
        }),
        "ingress" => live.ingress.load().as_ref().map(|ingress| {
            let (hosts, routes, certificates) = ingress.explainer.counts();
            let at = [listed(&ingress.http), listed(&ingress.https)].join(", ");
            let hosts = counted(hosts, "host");
            let routes = counted(routes, "route");
            let certificates = counted(certificates, "certificate");
            format!("{hosts}, {routes}, {certificates} at {at}")
        }),
        _ => None,
    }
    .unwrap_or_default()
}

fn warnings(
    pages: &Pages,
    snapshot: Option<&Snapshot>,
    proxy: Option<&live::Proxy>,
) -> Vec<String> {
    let shared = &pages.shared;
    let mut all = Vec::new();
    let health = shared.health.borrow();
    all.extend(health.problems.iter().map(|(place, reason)| format!("{place}: {reason}")));
    drop(health);
    if let Some(snapshot) = snapshot {
        all.extend(snapshot.refused().values().map(ToString::to_string));
        if snapshot.services().is_empty() && snapshot.endpoint_slices().is_empty() {
            all.push(format!("there is no {} at all: is this the right cluster?", Kind::Service));
        }
    }
    if shared.live.dns.load().as_ref().is_some_and(|running| running.stands_in()) {
        all.push(
            "DNS answers with names of its last run: the API server has not been reached since the start"
                .to_owned(),
        );
    }
    if let Some(proxy) = proxy {
        if !namespaces::are_all_seen() {
            all.push(UNSEEN_NAMESPACES.to_owned());
        }
        let status = proxy.status.borrow();
        all.extend(status.full.iter().map(ToString::to_string));
        all.extend(status.last_error.clone());
        all.extend(status.warnings.first.iter().map(ToString::to_string));
        let more = status.warnings.total.saturating_sub(status.warnings.first.len());
        if more > 0 {
            let more = counted(more, "more Service");
            all.push(format!("and {more} not served as asked"));
        }
    }
    if let Some(ingress) = &*shared.live.ingress.load() {
        let findings = ingress.explainer.findings();
        all.extend(findings.iter().map(ToString::to_string));
        if let Some(snapshot) = snapshot {
            let foreign = ingress.explainer.foreign(snapshot);
            all.extend(foreign.iter().map(|foreign| {
                format!("Ingress {} not ours: {}", foreign.ingress, foreign.reason)
            }));
        }
    }
    // One thing may be known in two ways.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|line| seen.insert(line.clone()));
    all
}

fn proxy_row(proxy: &live::Proxy, bpffs: &Path) -> ProxyRow {
    let status = proxy.status.borrow().clone();
    let drops = proxy.kernel.drops().unwrap_or_default();
    let met = drops.into_iter().filter(|(_, count)| *count > 0);
    ProxyRow {
        revision: status.revision,
        is_current: status.is_current,
        services: status.services,
        behind: status.behind,
        frontends: status.frontends,
        frontends_max: status.capacities.frontends,
        backends: status.backends,
        backends_max: status.capacities.backends,
        last_pass_ms: status.last_pass.as_secs_f64() * 1000.0,
        last_error: status.last_error,
        programs: programs(bpffs),
        unserved: met.map(|(reason, count)| (reason.as_str().to_owned(), count)).collect(),
    }
}

/// Programs by name, with the number of devices or cgroups each is attached to.
fn programs(bpffs: &Path) -> Option<BTreeMap<String, usize>> {
    let mut all = BTreeMap::new();
    for attachment in Kernel::attachments(bpffs).ok()?.into_iter().filter(|a| !a.is_orphan) {
        let name = attachment.name.trim_end_matches(|c: char| c.is_ascii_digit());
        // `connect4` is a name, `uplink_ingress_2` one with a device's index.
        let name = name.strip_suffix('_').unwrap_or(&attachment.name);
        *all.entry(name.to_owned()).or_default() += 1;
    }
    Some(all)
}
