//! What a Corefile means while serving: which server block answers a name, and what asks first in it.
//!
//! Immutable and swapped whole. Policy (`acl`) comes before everything else, wherever it is written.

mod views;
mod zones;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnetwork::IpNetwork;

pub(crate) use self::{
    views::Asking,
    zones::{Misses, ZoneName, with_dot, zone_names},
};

use crate::{
    cache::Cache,
    config::DnsConfig,
    corefile::{
        AclAction, AclRule, Condition, Corefile, DEFAULT_PORT, LogClass, LogOptions, LogPiece,
        ServerBlock,
    },
    counters::{
        CacheReport, EnabledReport, ForwardReport, HostsReport, Labels, Ledger, Ledgers, SiteCounts,
    },
    error::DnsError,
    hosts::Hosts,
    plugins::Plugins,
    slow::upstreams::{Forward, loops::Probes},
    wire::name::{LowerName, WireName},
};

/// What CoreDNS gives as the zone of questions that no server block takes.
const STRAY_ZONE: &str = "dropped";

/// All server blocks, by the sockets they share.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    groups: Vec<Group>,
    /// Questions that look for loops.
    probes: Arc<Probes>,
}

/// Server blocks on the same addresses: the longest zone that fits answers.
#[derive(Debug, Default)]
pub(crate) struct Group {
    sites: Vec<Site>,
    /// Counts questions that no server block takes.
    strays: Option<Arc<Ledger>>,
}

/// One zone of one server block.
#[derive(Debug)]
pub(crate) struct Site {
    zone: ZoneName,
    /// Counts questions and replies.
    pub(crate) ledger: Arc<Ledger>,
    /// Its block's plugins that have a say in answers.
    enabled: Arc<[String]>,
    /// `view`: all must hold, or the next block is looked at.
    conditions: Box<[Condition]>,
    acl: Box<[Rule]>,
    /// `log`: then every question goes the slow path, which writes it down.
    logs: Box<[QueryLog]>,
    /// `loop`: upstreams that lead back here are left out.
    detect_loops: bool,
    /// `errors`: failures of upstreams are said.
    pub(crate) errors: bool,
    /// `rewrite`, `template` and others that change questions or replies.
    pub(crate) plugins: Option<Arc<Plugins>>,
    pub(crate) hosts: Option<Arc<Hosts>>,
    /// Names of the cluster are answered here.
    pub(crate) kubernetes: bool,
    /// Addresses change their order from reply to reply.
    pub(crate) rotate: bool,
    /// `minimal`: positive replies have nothing beside the answer.
    pub(crate) minimal: bool,
    /// Largest UDP reply, in bytes.
    pub(crate) udp_bytes_max: usize,
    pub(crate) cache: Option<Arc<Cache>>,
    pub(crate) forwards: Arc<[Forward]>,
}

#[derive(Clone, Debug)]
struct QueryLog {
    zones: Box<[ZoneName]>,
    classes: Vec<LogClass>,
    format: Vec<LogPiece>,
}

#[derive(Clone, Debug)]
struct Rule {
    zones: Box<[ZoneName]>,
    action: AclAction,
    types: Vec<u16>,
    sources: Vec<IpNetwork>,
}

/// Where groups listen, in the order of their numbers.
pub(crate) fn listening(config: &DnsConfig, corefile: &Corefile) -> Vec<Vec<SocketAddr>> {
    keys(corefile).into_iter().map(|key| addresses(config, &key)).collect()
}

type Key = (u16, Vec<IpAddr>);

/// What tells groups apart, each once.
fn keys(corefile: &Corefile) -> Vec<Key> {
    let mut keys: Vec<Key> = vec![];
    for block in &corefile.blocks {
        for zone in &block.zones {
            let key = (zone.port, block.bind.clone());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

/// Port 53 is where the agent's own addresses are, whatever their port; others are on the same
/// addresses at their own.
fn addresses(config: &DnsConfig, (port, bind): &Key) -> Vec<SocketAddr> {
    if bind.is_empty() && *port == DEFAULT_PORT {
        return config.listen.clone();
    }
    let at_port = |ip: IpAddr| SocketAddr::new(ip, *port);
    if !bind.is_empty() {
        return bind.iter().copied().map(at_port).collect();
    }
    let mut all: Vec<_> = config.listen.iter().map(|own| at_port(own.ip())).collect();
    all.dedup();
    all
}

impl Policy {
    /// Prepares every block; `own` are the addresses listened on.
    pub(crate) fn new(
        corefile: &Corefile,
        own: &[SocketAddr],
        ledgers: &Ledgers,
    ) -> Result<Self, DnsError> {
        let keys = keys(corefile);
        let group = |key: &Key| {
            let zone = STRAY_ZONE.to_owned();
            let labels = Labels { server: server(key), zone, view: String::new() };
            Group { sites: vec![], strays: Some(ledgers.of(labels)) }
        };
        let mut groups: Vec<Group> = keys.iter().map(group).collect();
        for block in &corefile.blocks {
            let parts = Parts::new(block, own)?;
            for zone in &block.zones {
                let key = (zone.port, block.bind.clone());
                let place = keys.iter().position(|known| *known == key);
                if let Some(group) = place.and_then(|place| groups.get_mut(place)) {
                    let labels = Labels {
                        server: server(&key),
                        zone: with_dot(&zone.zone),
                        view: block.view.as_ref().map_or_else(String::new, |v| v.name.clone()),
                    };
                    let zone = ZoneName::new(&zone.zone)?;
                    group.sites.push(parts.site(zone, ledgers.of(labels), block)?);
                }
            }
        }
        // Blocks of one zone stay in their order: views are looked at from top to bottom.
        for group in &mut groups {
            group.sites.sort_by_key(|site| std::cmp::Reverse(site.zone.labels));
        }
        Ok(Self { groups, probes: Arc::default() })
    }

    /// The site that answers a question asked at a group's sockets.
    pub(crate) fn site(&self, group: usize, asking: Asking<'_>) -> Option<&Site> {
        let sites = &self.groups.get(group)?.sites;
        sites.iter().find(|site| site.zone.holds(&asking.question.name) && site.is_for(asking))
    }

    /// Looks for upstreams that lead back here, where `loop` says so; needs a runtime.
    pub(crate) fn watch_loops(&self) {
        let mut watched: Vec<&Arc<[Forward]>> = vec![];
        for site in self.sites().filter(|site| site.detect_loops) {
            if !watched.iter().any(|forwards| Arc::ptr_eq(forwards, &site.forwards)) {
                watched.push(&site.forwards);
                site.forwards.iter().for_each(|forward| forward.watch_loops(self.probes.clone()));
            }
        }
    }

    /// Whether a question is one of ours that has come back.
    pub(crate) fn is_probe(&self, name: &LowerName, qtype: u16) -> bool {
        self.probes.notice(name, qtype)
    }

    /// Counts questions at a group's sockets that no server block takes.
    pub(crate) fn strays(&self, group: usize) -> Option<&Ledger> {
        self.groups.get(group)?.strays.as_deref()
    }

    pub(crate) fn sites(&self) -> impl Iterator<Item = &Site> {
        self.groups.iter().flat_map(|group| &group.sites)
    }

    /// Every cache, each once, with what the sites that share it have counted.
    pub(crate) fn caches(&self, counted: &[SiteCounts]) -> Vec<CacheReport> {
        let mut caches: Vec<(&Arc<Cache>, CacheReport)> = vec![];
        for site in self.sites() {
            let Some(cache) = &site.cache else { continue };
            let place = caches.iter().position(|(known, _)| Arc::ptr_eq(known, cache));
            let place = place.unwrap_or_else(|| {
                caches.push((cache, cache.report(&site.ledger.labels)));
                caches.len() - 1
            });
            let counts = counted.iter().find(|counts| counts.labels == site.ledger.labels);
            if let (Some((_, report)), Some(counts)) = (caches.get_mut(place), counts) {
                let [success, denial, misses, stale, prefetches] = counts.cache;
                report.hits = [report.hits[0] + success, report.hits[1] + denial];
                report.misses += misses;
                report.served_stale += stale;
                report.prefetches += prefetches;
            }
        }
        caches.into_iter().map(|(_, report)| report).collect()
    }

    /// Every zone of every server block, with its plugins.
    pub(crate) fn enabled(&self) -> Vec<EnabledReport> {
        let report = |site: &Site| EnabledReport {
            labels: site.ledger.labels.clone(),
            plugins: site.enabled.to_vec(),
        };
        self.sites().map(report).collect()
    }

    /// Every `hosts`, each once.
    pub(crate) fn hosts(&self) -> Vec<HostsReport> {
        let mut known: Vec<&Arc<Hosts>> = vec![];
        for hosts in self.sites().filter_map(|site| site.hosts.as_ref()) {
            if !known.iter().any(|known| Arc::ptr_eq(known, hosts)) {
                known.push(hosts);
            }
        }
        known.into_iter().map(|hosts| hosts.report()).collect()
    }

    /// Every `forward`, each once.
    pub(crate) fn forwards(&self) -> Vec<ForwardReport> {
        let mut known: Vec<&Arc<[Forward]>> = vec![];
        for site in self.sites() {
            if !known.iter().any(|forwards| Arc::ptr_eq(forwards, &site.forwards)) {
                known.push(&site.forwards);
            }
        }
        known.into_iter().flat_map(|forwards| forwards.iter()).map(Forward::report).collect()
    }
}

/// The server's address as CoreDNS writes it, by the Corefile: `dns://:53`.
fn server((port, bind): &Key) -> String {
    match bind.first() {
        None => format!("dns://:{port}"),
        Some(ip) => format!("dns://{}", SocketAddr::new(*ip, *port)),
    }
}

/// What the zones of one block share.
struct Parts {
    enabled: Arc<[String]>,
    plugins: Option<Arc<Plugins>>,
    hosts: Option<Arc<Hosts>>,
    cache: Option<Arc<Cache>>,
    forwards: Arc<[Forward]>,
}

impl Parts {
    fn new(block: &ServerBlock, own: &[SocketAddr]) -> Result<Self, DnsError> {
        let forwards: Result<Vec<_>, _> =
            block.forwards.iter().map(|options| Forward::new(options, own)).collect();
        Ok(Self {
            enabled: block.plugins.as_slice().into(),
            plugins: Plugins::new(block)?.map(Into::into),
            hosts: block.hosts.as_ref().map(Hosts::new).transpose()?.map(Into::into),
            cache: block.cache.as_ref().map(Cache::new).transpose()?.map(Into::into),
            forwards: forwards?.into(),
        })
    }

    fn site(
        &self,
        zone: ZoneName,
        ledger: Arc<Ledger>,
        block: &ServerBlock,
    ) -> Result<Site, DnsError> {
        let acl: Result<_, _> = block.acl.iter().map(Rule::new).collect();
        let most = crate::wire::UDP_REPLY_BYTES_MAX;
        Ok(Site {
            zone,
            ledger,
            enabled: self.enabled.clone(),
            conditions: block.view.iter().flat_map(|view| view.conditions.clone()).collect(),
            acl: acl?,
            logs: block.logs.iter().map(QueryLog::new).collect::<Result<_, _>>()?,
            detect_loops: block.detect_loops,
            errors: block.errors,
            plugins: self.plugins.clone(),
            hosts: self.hosts.clone(),
            kubernetes: block.kubernetes.is_some(),
            rotate: block.rotate,
            minimal: block.minimal,
            udp_bytes_max: block.buffer_bytes.map_or(most, |bytes| most.min(bytes.into())),
            cache: self.cache.clone(),
            forwards: self.forwards.clone(),
        })
    }
}

impl Site {
    /// Whether the block's `view` is of such questions.
    fn is_for(&self, asking: Asking<'_>) -> bool {
        self.conditions.iter().all(|condition| views::holds(condition, asking))
    }

    /// The zone this block serves.
    pub(crate) fn zone(&self) -> &WireName {
        &self.zone.name
    }

    /// What `acl` says; the first rule that fits decides.
    pub(crate) fn verdict(&self, source: IpAddr, name: &LowerName, qtype: u16) -> AclAction {
        let source = source.to_canonical();
        let fitting = self.acl.iter().find(|rule| rule.fits(source, name, qtype));
        fitting.map_or(AclAction::Allow, |rule| rule.action)
    }

    /// Whether anyone is asked for names that are not known here.
    pub(crate) fn has_upstreams(&self) -> bool {
        self.forwards.iter().any(Forward::any)
    }

    /// Whom to ask for a name, in the order of the Corefile's lines.
    pub(crate) fn forwards(&self, name: &LowerName) -> impl Iterator<Item = &Forward> {
        self.forwards.iter().filter(|forward| forward.takes(name))
    }

    /// Whether `hosts` must be asked: it knows the name, or ends all that it does not.
    pub(crate) fn hosts_first(&self, name: &LowerName) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| hosts.claims(name))
    }
}

impl Site {
    /// Whether questions for a name may be written down.
    pub(crate) fn is_logged(&self, name: &LowerName) -> bool {
        self.logs.iter().any(|log| log.is_for(name))
    }

    /// What is written down of a reply of this class; `None`: nothing. The first line that is for the
    /// name decides, also if it does not want the class.
    pub(crate) fn log_format(&self, name: &LowerName, class: LogClass) -> Option<&[LogPiece]> {
        let log = self.logs.iter().find(|log| log.is_for(name))?;
        let wanted = log.classes.contains(&class) || log.classes.contains(&LogClass::All);
        wanted.then_some(log.format.as_slice())
    }
}

impl QueryLog {
    fn new(options: &LogOptions) -> Result<Self, DnsError> {
        let LogOptions { zones, classes, format } = options;
        let (classes, format) = (classes.clone(), format.clone());
        Ok(Self { zones: zone_names(zones)?, classes, format })
    }

    fn is_for(&self, name: &LowerName) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| zone.holds(name))
    }
}

impl Rule {
    fn new(rule: &AclRule) -> Result<Self, DnsError> {
        let AclRule { zones, action, types, sources } = rule;
        let zones = zone_names(zones)?;
        Ok(Self { zones, action: *action, types: types.clone(), sources: sources.clone() })
    }

    fn fits(&self, source: IpAddr, name: &LowerName, qtype: u16) -> bool {
        let in_zone = self.zones.is_empty() || self.zones.iter().any(|zone| zone.holds(name));
        let has_type = self.types.is_empty() || self.types.contains(&qtype);
        let from = self.sources.is_empty() || self.sources.iter().any(|net| net.contains(source));
        in_zone && has_type && from
    }
}
