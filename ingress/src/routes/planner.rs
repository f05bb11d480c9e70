//! Snapshot after snapshot to routes and certificates, at the cost of what changed.

mod hosts;
mod streams;
mod upstreams;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use fairlead_state::{
    Changes, Dirty, Key, Kind, Name, ObjectRef, SaidClass, Snapshot,
    model::{Ingress, IngressRule},
};

use self::{hosts::Tried, streams::StreamPlan, upstreams::Tracked};
use super::{
    Routes,
    class::ClassRules,
    compile::{self, Compiled},
    external::{ExternalNames, Looked, Wanted},
    finding::{Finding, Severity, tell},
    options::Options,
    ruling::Rulings,
    streams::Streams,
    upstream::{Problem, UpstreamKey},
};
use crate::{
    config::IngressConfig,
    explain::{CertificateChoice, Foreign},
    host::HostPattern,
    series::Register,
    tls::{CertificatePlanner, Certificates, Fallback},
};

/// Owns everything derived from snapshots. One writer; readers get clones of its results.
#[derive(Debug)]
pub struct Planner {
    base: IngressConfig,
    options: Options,
    rules: ClassRules,
    class_findings: Vec<Finding>,
    /// Of Ingresses with two names of a class, one of which is ours.
    overruled: BTreeMap<Key, Finding>,
    revision: u64,
    /// See [`Planner::told`].
    told: u64,
    ingresses: BTreeMap<Key, Compiled>,
    /// Who contributes to a host, and whose it is.
    hosts: Rulings,
    host_findings: BTreeMap<HostPattern, Vec<Finding>>,
    upstreams: BTreeMap<UpstreamKey, Tracked>,
    /// What of them is under trial, by host.
    tried: BTreeMap<HostPattern, BTreeSet<Tried>>,
    external: ExternalNames,
    /// Somebody does.
    looks_names_up: bool,
    /// Who is spoken to in TLS with what of a Secret.
    upstream_secrets: BTreeMap<Key, BTreeSet<UpstreamKey>>,
    /// Ingresses that read a Secret or ConfigMap: passwords, authorities, fields.
    readers: BTreeMap<ObjectRef, BTreeSet<Key>>,
    routes: Routes,
    register: Arc<Register>,
    streams: StreamPlan,
    certificates: CertificatePlanner,
}

/// What a snapshot changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Hosts, paths or their backends.
    pub routes: bool,
    /// Certificates, the default one included.
    pub certificates: bool,
    /// Settings of the role.
    pub settings: bool,
    /// TCP and UDP services.
    pub streams: bool,
}

/// What has to be looked at again.
#[derive(Debug, Default)]
struct Work {
    ingresses: BTreeSet<Key>,
    services: BTreeSet<Key>,
    secrets: BTreeSet<Key>,
    classes: bool,
    options: bool,
    streams: bool,
}

/// What changed Ingresses lead to.
#[derive(Debug, Default)]
struct Touched {
    hosts: BTreeSet<HostPattern>,
    /// Upstreams referred to for the first time.
    linked: BTreeSet<UpstreamKey>,
    /// Upstreams a reference to which was taken away.
    unlinked: BTreeSet<UpstreamKey>,
}

impl Touched {
    /// What an Ingress says something of.
    fn extend_hosts(&mut self, of: &Compiled) {
        let derived = of.derived.iter().map(|derived| &derived.host);
        let claimed = of.tls.iter().map(|claim| &claim.host);
        self.hosts.extend(of.hosts.keys().chain(derived).chain(claimed).cloned());
    }
}

impl Planner {
    /// A planner that has seen nothing.
    pub fn new(config: &IngressConfig, fallback: Fallback) -> Self {
        Self {
            rules: ClassRules::new(config),
            base: config.clone(),
            options: Options::new(config),
            class_findings: Vec::new(),
            overruled: BTreeMap::new(),
            revision: 0,
            told: 0,
            ingresses: BTreeMap::new(),
            hosts: Rulings::default(),
            host_findings: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            tried: BTreeMap::new(),
            external: ExternalNames::new(&config.external_names),
            looks_names_up: true,
            upstream_secrets: BTreeMap::new(),
            readers: BTreeMap::new(),
            routes: Routes::default(),
            register: Arc::new(Register::new(config.thread_count())),
            streams: StreamPlan::default(),
            certificates: CertificatePlanner::new(config.default_certificate.clone(), fallback),
        }
    }

    /// A planner of what would be: names outside are not looked up for it, and it does not say of them
    /// that they wait.
    pub(crate) fn foretelling(config: &IngressConfig, fallback: Fallback) -> Self {
        Self { looks_names_up: false, ..Self::new(config, fallback) }
    }

    /// The routes of the last snapshot.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Where requests are counted.
    pub(crate) fn register(&self) -> &Arc<Register> {
        &self.register
    }

    /// TCP and UDP services of the last snapshot.
    pub(crate) fn streams(&self) -> &Arc<Streams> {
        &self.streams.in_force
    }

    /// The settings of the last snapshot.
    pub(crate) fn config(&self) -> &Arc<IngressConfig> {
        &self.options.config
    }

    /// Allowed names outside the cluster that Services lead to, if they are others than at `version`,
    /// which is brought up to date.
    pub(crate) fn other_external_names(&self, version: &mut u64) -> Option<BTreeMap<Name, Wanted>> {
        let newest = self.external.version();
        let is_other = std::mem::replace(version, newest) != newest;
        let wanted = || self.external.wanted().map(|(name, wanted)| (name.clone(), wanted));
        is_other.then(|| wanted().collect())
    }

    /// None of them is still to be looked up for the first time.
    pub(crate) fn are_names_known(&self) -> bool {
        self.external.are_known()
    }

    /// Those of them that were not looked up yet.
    pub(crate) fn unknown_names(&self) -> Vec<Name> {
        self.external.unknown().cloned().collect()
    }

    /// Takes what was found of one of them; it is in force when this returns. Returns whether the name
    /// leads somewhere.
    pub(crate) fn learn(&mut self, snapshot: &Snapshot, name: &Name, looked: Looked) -> bool {
        for key in self.external.learn(name, looked, Instant::now()) {
            self.refresh_upstream(snapshot, &key);
        }
        self.external.leads_somewhere(name)
    }

    /// The certificates of the last snapshot.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.certificates()
    }

    /// The Ingresses of the role's classes.
    pub fn served(&self) -> impl Iterator<Item = &Key> {
        self.ingresses.keys()
    }

    /// Grows whenever [`Planner::served`] or [`Planner::findings`] may have become another. Endpoints
    /// that come and go do not make it grow: whoever repeats those two need not look at all Ingresses
    /// each time.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Whether an Ingress that could not be read says that it is one of the role's.
    pub fn is_said_ours(&self, snapshot: &Snapshot, said: &SaidClass) -> bool {
        self.rules.is_said_ours(snapshot, said)
    }

    /// Revision of the last snapshot.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Brings everything to `snapshot`. Endpoints are in force when this returns.
    pub fn apply(&mut self, snapshot: &Snapshot) -> Planned {
        let mut work = self.work(snapshot);
        if work.options && self.read_options(snapshot) {
            work.ingresses.extend(self.all(snapshot).ingresses);
            self.told += 1;
        }
        if work.classes {
            let findings = self.rules.findings(snapshot);
            tell(&self.class_findings, &findings);
            self.class_findings = findings;
            self.told += 1;
        }
        let mut touched = Touched::default();
        for key in &work.ingresses {
            self.replace_ingress(snapshot, key, &mut touched);
        }
        if work.streams {
            self.read_streams(snapshot, &mut touched);
            self.told += 1;
        }
        self.follow_trials(&mut touched);
        for service in &work.services {
            self.refresh_service(snapshot, service);
        }
        for key in &touched.linked {
            self.refresh_upstream(snapshot, key);
        }
        for secret in &work.secrets {
            self.refresh_secret(snapshot, secret);
        }
        let standing_for = touched.hosts.iter().flat_map(|host| self.standing_for(host));
        let standing_for: Vec<HostPattern> = standing_for.collect();
        touched.hosts.extend(standing_for);
        for host in &touched.hosts {
            self.certificates.touch(host);
        }
        let settled = self.certificates.settle(snapshot, &work.secrets, &self.hosts);
        self.told += u64::from(settled.is_changed);
        touched.hosts.extend(settled.secured);
        for host in &touched.hosts {
            self.rebuild_host(host);
        }
        for key in &touched.unlinked {
            self.drop_unused(key);
        }
        self.revision = snapshot.revision();
        Planned {
            routes: !touched.hosts.is_empty(),
            certificates: settled.is_changed,
            settings: work.options,
            streams: work.streams,
        }
    }

    fn work(&self, snapshot: &Snapshot) -> Work {
        let changes = match snapshot.changes_since(self.revision) {
            Changes::Some(changes) => changes,
            Changes::All => return self.all(snapshot),
        };
        let mut work = Work::default();
        for dirty in changes {
            match dirty {
                Dirty::Service(key) => _ = work.services.insert(key),
                Dirty::Ingress(key) => _ = work.ingresses.insert(key),
                Dirty::Secret(key) => {
                    work.ingresses.extend(self.readers_of(Kind::Secret, &key));
                    work.secrets.insert(key);
                }
                // Classes are few and change rarely; any Ingress may be affected.
                Dirty::IngressClass(_) => {
                    work.ingresses.extend(self.all(snapshot).ingresses);
                    work.classes = true;
                }
                Dirty::ConfigMap(key) => {
                    work.ingresses.extend(self.readers_of(Kind::ConfigMap, &key));
                    work.streams |= self.is_of_streams(&key);
                    work.options |= self.base.config_map.as_ref() == Some(&key);
                }
                Dirty::Node(_)
                | Dirty::Namespace(_)
                | Dirty::Pod(_)
                | Dirty::ServiceCidr(_)
                | Dirty::ServiceImport(_) => {}
            }
        }
        work
    }

    fn all(&self, snapshot: &Snapshot) -> Work {
        let known = self.ingresses.keys().chain(self.overruled.keys());
        let known = known.chain(snapshot.ingresses().keys());
        Work {
            ingresses: known.cloned().collect(),
            classes: true,
            options: true,
            streams: true,
            services: self.upstreams.keys().map(|key| key.service.clone()).collect(),
            secrets: self
                .certificates
                .secrets()
                .chain(self.upstream_secrets.keys())
                .cloned()
                .collect(),
        }
    }

    fn readers_of(&self, kind: Kind, key: &Key) -> impl Iterator<Item = Key> {
        let object = ObjectRef { kind, key: key.clone() };
        self.readers.get(&object).into_iter().flatten().cloned()
    }

    /// Returns whether Ingresses are to be looked at again.
    fn read_options(&mut self, snapshot: &Snapshot) -> bool {
        let Some(key) = &self.base.config_map else { return false };
        let map = snapshot.config_maps().get(key);
        self.options = self.options.next(&self.base, key, map.map(|map| &**map));
        true
    }

    fn replace_ingress(&mut self, snapshot: &Snapshot, key: &Key, touched: &mut Touched) {
        let old = self.ingresses.remove(key);
        if let Some(old) = &old {
            self.told += 1;
            self.unlink(old, touched);
        }
        if let Some(new) = self.compile(snapshot, key, old.as_ref()) {
            self.told += 1;
            tell(old.as_ref().map_or(&[], |old| &old.findings), &new.findings);
            self.link(&new, touched);
            self.ingresses.insert(key.clone(), new);
        }
        self.follow_class(snapshot, key);
    }

    fn compile(&self, snapshot: &Snapshot, key: &Key, old: Option<&Compiled>) -> Option<Compiled> {
        let ingress = snapshot.ingresses().get(key)?;
        let is_ours = self.rules.ownership(snapshot, ingress).is_ours();
        is_ours.then(|| compile::compile(ingress, &self.options, old, snapshot))
    }

    /// What is not served has nothing compiled that could say why.
    fn follow_class(&mut self, snapshot: &Snapshot, key: &Key) {
        let ingress = snapshot.ingresses().get(key);
        let new = ingress.and_then(|ingress| self.rules.overruled(snapshot, ingress));
        let old = match new.clone() {
            Some(new) => self.overruled.insert(key.clone(), new),
            None => self.overruled.remove(key),
        };
        self.told += u64::from(new != old);
        tell(old.as_slice(), new.as_slice());
    }

    fn unlink(&mut self, old: &Compiled, touched: &mut Touched) {
        self.hosts.remove(old);
        touched.extend_hosts(old);
        for object in read_by(old) {
            let Some(readers) = self.readers.get_mut(&object) else { continue };
            readers.remove(&old.age.key);
            if readers.is_empty() {
                self.readers.remove(&object);
            }
        }
        for upstream in old.upstreams() {
            self.leave_upstream(upstream, &user(&old.age.key), touched);
        }
        for claim in &old.tls {
            self.certificates.unclaim(&old.age, claim);
        }
    }

    fn link(&mut self, new: &Compiled, touched: &mut Touched) {
        self.hosts.insert(new);
        touched.extend_hosts(new);
        for object in read_by(new) {
            self.readers.entry(object).or_default().insert(new.age.key.clone());
        }
        for key in new.upstreams() {
            self.use_upstream(key, &user(&new.age.key), touched);
        }
        for claim in &new.tls {
            self.certificates.claim(&new.age, claim);
        }
    }

    /// Annotations that act on an Ingress, `name=value`, or by name alone.
    pub fn annotations(&self, ingress: &Key) -> Vec<String> {
        let compiled = self.ingresses.get(ingress);
        compiled.map(|compiled| compiled.annotations.in_force.clone()).unwrap_or_default()
    }

    /// Ingresses of other classes, and of none, with the reason.
    pub fn foreign(&self, snapshot: &Snapshot) -> Vec<Foreign> {
        let foreign = snapshot.ingresses().values();
        let foreign = foreign.filter(|ingress| !self.ingresses.contains_key(&ingress.key));
        let row = |ingress: &Arc<Ingress>| {
            let host = |rule: &IngressRule| rule.host.as_deref().unwrap_or("*").to_owned();
            Foreign {
                ingress: ingress.key.clone(),
                hosts: ingress.rules.iter().map(host).collect(),
                reason: self.rules.why_not(snapshot, ingress),
            }
        };
        foreign.map(row).collect()
    }

    /// Which certificate a name is shown.
    pub fn certificate(&self, name: &str) -> CertificateChoice {
        self.certificates.explain(name, &self.hosts)
    }

    /// Everything refused, differing or waiting, sorted by object.
    pub fn findings(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = Vec::new();
        all.extend(self.ingresses.values().flat_map(|compiled| compiled.findings.iter().cloned()));
        all.extend(self.host_findings.values().flatten().cloned());
        for (key, tracked) in &self.upstreams {
            for problem in tracked.problems() {
                if matches!(problem, Problem::NotLookedUp(_)) && !self.looks_names_up {
                    continue;
                }
                let reason: Arc<str> = problem.describe(key).into();
                let users = tracked.users.iter();
                let waits = |user: &ObjectRef| {
                    Finding::new(user.clone(), Severity::Waiting, reason.clone())
                };
                all.extend(users.map(waits));
            }
        }
        all.extend(self.class_findings.iter().cloned());
        all.extend(self.overruled.values().cloned());
        all.extend(self.certificates.findings());
        all.extend(self.options.findings.iter().cloned());
        all.extend(self.streams.findings());
        all.sort();
        all.dedup();
        all
    }
}

/// An Ingress that uses a Service.
fn user(ingress: &Key) -> ObjectRef {
    ObjectRef { kind: Kind::Ingress, key: ingress.clone() }
}

/// Objects beside the Ingress that say what it means.
fn read_by(compiled: &Compiled) -> impl Iterator<Item = ObjectRef> {
    let of = |kind| move |key: &Key| ObjectRef { kind, key: key.clone() };
    let secrets =
        compiled.annotations.secrets().chain(compiled.tls_asked.keys()).map(of(Kind::Secret));
    secrets.chain(compiled.annotations.config_maps().map(of(Kind::ConfigMap)))
}
