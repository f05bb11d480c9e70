//! One Ingress, checked by itself: its hosts, paths, TLS claims, and what is refused of it.

mod claims;
mod spelled;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use fairlead_state::{
    Key, Name, Snapshot,
    model::{Ingress, IngressBackend, IngressPath, PathType, Secret},
};

use super::{
    ClientCertificates, Door,
    annotations::{self, Annotations, Policy, Reach, Rewrite},
    budget::Budget,
    finding::{Finding, Severity},
    options::Options,
    upstream::{Protocol, UpstreamKey},
};
use crate::{
    config::Matching,
    expression::Expression,
    host::{self, HostPattern},
    path,
    tls::{self, TlsWish},
};

/// As with ingress-nginx, which does not say so.
const NOTHING_CAPTURED: &str = "$1 to $9 stand for nothing in its annotations: no path of it has a group \
                                ((.*)), which use-regex makes one of a regular expression";

/// The order in which Ingresses claim hosts and paths: oldest first, the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    created_seconds: i64,
    pub(crate) key: Key,
}

/// An Ingress that is ours, checked.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) age: Age,
    pub(super) hosts: BTreeMap<HostPattern, HostRules>,
    /// Sorted by host.
    pub(super) tls: Vec<TlsClaim>,
    /// Secrets whose certificates have a say in that, and the names in them.
    pub(super) tls_asked: BTreeMap<Key, Vec<HostPattern>>,
    /// Hosts that stand for others.
    pub(super) derived: Vec<Derived>,
    /// Who answers instead of endpoints that cannot.
    pub(super) fallback: Backend,
    /// What is asked of clients of its hosts.
    pub(super) client_certificates: Option<ClientCertificates>,
    pub(super) annotations: Annotations,
    pub(super) policy: Arc<Policy>,
    pub(super) findings: Vec<Finding>,
}

/// What one Ingress says about one host.
#[derive(Debug, Default)]
pub(super) struct HostRules {
    pub(super) paths: Vec<CheckedPath>,
    pub(super) default: Option<Backend>,
}

#[derive(Debug)]
pub(super) struct CheckedPath {
    pub(super) path: Name,
    /// What requests' paths are compared with.
    pub(super) key: Name,
    pub(super) path_type: PathType,
    pub(super) backend: Backend,
    pub(super) rewrite: Option<Rewrite>,
    /// The path is a regular expression.
    pub(super) pattern: Option<Expression>,
    /// Why it is refused where the paths of its host are no expressions. A canary's goes by its text.
    pub(super) refused_else: Option<Arc<str>>,
}

/// A host without rules of its own that stands for another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Derived {
    pub(super) host: HostPattern,
    pub(super) of: HostPattern,
    pub(super) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// It is served alike (annotation `server-alias`).
    Alias,
    /// It is sent there (annotation `from-to-www-redirect`).
    Www,
}

/// `None`: of a kind that is not served.
pub(super) type Backend = Option<UpstreamKey>;

/// A host of a TLS section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsClaim {
    pub(crate) host: HostPattern,
    /// `None`: the default certificate.
    pub(crate) secret: Option<Key>,
    pub(crate) standing: Standing,
}

/// Why an Ingress has a say about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It has rules for it.
    Own,
    /// It has rules for it, and sections that are for other hosts.
    Unnamed,
    /// An alias or a redirect of its rules stands for it, until somebody has rules for it.
    Derived,
    /// Its wildcard, or its rules for all hosts, serve it, until somebody has nearer ones.
    General,
}

impl Standing {
    /// Whether it has rules for the host.
    pub(crate) fn is_own(self) -> bool {
        self <= Self::Unnamed
    }
}

impl Age {
    fn of(ingress: &Ingress) -> Self {
        Self { created_seconds: ingress.created_seconds, key: ingress.key.clone() }
    }
}

impl HostRules {
    /// Whether a path is a regular expression.
    pub(super) fn has_expression(&self) -> bool {
        self.paths.iter().any(|path| path.pattern.is_some())
    }
}

impl Compiled {
    /// Whether a TLS section of it is for the host.
    pub(super) fn claims(&self, host: &HostPattern) -> bool {
        let has =
            |host: &HostPattern| self.tls.binary_search_by(|claim| claim.host.cmp(host)).is_ok();
        has(host) || host.wildcard().is_some_and(|wildcard| has(&wildcard))
    }

    /// Every upstream it refers to.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &UpstreamKey> {
        let backends = self.hosts.values().flat_map(|rules| {
            let paths = rules.paths.iter().filter_map(|path| path.backend.as_ref());
            paths.chain(rules.default.iter().flatten())
        });
        backends.chain(&self.fallback)
    }
}

/// Checks an Ingress. What is bad of it is left out with a reason; the rest is served.
///
/// `old`: the same Ingress before.
pub(super) fn compile(
    ingress: &Ingress,
    options: &Options,
    old: Option<&Compiled>,
    snapshot: &Snapshot,
) -> Compiled {
    let matching = options.config.matching;
    let mut checker = Checker {
        matching,
        ingress,
        protocol: None,
        tls: None,
        by_address: false,
        budget: Budget::of_ingress(),
        beyond: None,
        findings: Vec::new(),
    };
    let annotations = annotations::parse(ingress, &options.defaults, |severity, reason| {
        checker.findings.push(Finding::ingress(&ingress.key, severity, reason));
    });
    checker.by_address = annotations.by_address;
    // ingress-nginx: buildProxyPass goes by the location, which a canary has none of (`UpstreamKey::tried_at`).
    if !annotations.canary.enabled {
        checker.protocol = annotations.protocol;
        let is_tls = annotations.protocol.is_some_and(Protocol::is_tls);
        checker.tls = is_tls.then(|| annotations.tls.clone());
    }
    let leads_away = annotations.redirects.elsewhere().is_some();
    let mut hosts: BTreeMap<HostPattern, HostRules> = BTreeMap::new();
    for rule in &*ingress.rules {
        let host = match rule.host.as_deref() {
            None | Some("") => HostPattern::Any,
            Some(text) => match HostPattern::parse(text) {
                Ok(host) => host,
                Err(reason) => {
                    checker.find(Severity::Refused, reason);
                    continue;
                }
            },
        };
        let is_led_away = leads_away && host != HostPattern::Any;
        if rule.paths.is_empty() && ingress.default_backend.is_none() && !is_led_away {
            let reason =
                format!("host {host} has neither a path nor a default backend: it is answered 404");
            checker.find(Severity::Differs, reason);
        }
        let rules = hosts.entry(host).or_default();
        let paths = rule.paths.iter().filter_map(|path| checker.path(path, &annotations));
        rules.paths.extend(paths);
    }
    if let Some((path, count)) = checker.beyond.take() {
        let reason = checker.budget.refusal(&path, count);
        checker.find(Severity::Refused, reason);
    }
    if let Some(default) = &ingress.default_backend {
        let backend = checker.backend(default);
        if ingress.rules.is_empty() {
            hosts.insert(HostPattern::Any, HostRules::default());
        }
        for rules in hosts.values_mut() {
            rules.default = Some(backend.clone());
        }
    }
    let fallback = annotations.errors.backend.as_ref().map(|name| UpstreamKey {
        service: Key::new(ingress.key.namespace.clone(), name.clone()),
        port: None,
        protocol: None,
        tls: None,
        udp: false,
        by_address: false,
    });
    let known = old.and_then(|old| old.policy.extra.as_deref());
    let secret = annotations.passwords().and_then(|key| snapshot.secrets().get(key));
    let maps = snapshot.config_maps();
    let (named, error) = annotations.named_fields(|key| maps.get(key).map(|map| &**map));
    if let Some(error) = error {
        checker.find(Severity::Refused, error);
    }
    let secret = secret.map(|secret| &**secret);
    let (policy, error) = annotations.policy(&options.config, known, secret, named, &ingress.key);
    if let Some(error) = error {
        checker.find(Severity::Refused, format!("{error}; its paths answer 503 until then"));
    }
    let mut paths = hosts.values().flat_map(|rules| &rules.paths);
    let is_canary = annotations.canary.enabled;
    if policy.captures && !is_canary && !paths.any(|path| path.path.contains('(')) {
        checker.find(Severity::Differs, NOTHING_CAPTURED);
    }
    if let Some(Door::Basic(gate)) = policy.extra.as_ref().and_then(|extra| extra.gate.as_ref()) {
        for problem in gate.problems() {
            checker.find(Severity::Refused, problem);
        }
    }
    if let Some(extra) = &policy.extra {
        let asked = extra.authority.as_ref().and_then(|authority| authority.problem());
        let copied = extra.mirror.as_ref().and_then(|mirror| mirror.problem());
        for problem in asked.into_iter().chain(copied) {
            checker.find(Severity::Refused, problem);
        }
    }
    let authorities = annotations.client_tls.secret().and_then(|key| snapshot.secrets().get(key));
    let asked = annotations.client_tls.asked(authorities.map(|secret| &**secret));
    let client_certificates = match asked {
        Ok(auth) => auth.map(|auth| ClientCertificates::Of(Arc::new(auth))),
        Err(error) => {
            let reason = format!("{error}; by HTTPS its hosts let nobody in until then");
            checker.find(Severity::Refused, reason);
            Some(ClientCertificates::Broken)
        }
    };
    let derived = derived(ingress, &hosts, &annotations);
    let unnamed = match annotations.canary.enabled {
        true => claims::Unnamed::Others,
        false => claims::Unnamed::Own,
    };
    let sections = claims::of(ingress, &hosts, &derived, unnamed, |key| {
        snapshot.secrets().get(key).and_then(|secret| names(secret, old)).unwrap_or_default()
    });
    for reason in sections.refused {
        checker.find(Severity::Refused, reason);
    }
    if let Some(reason) = sections.idle {
        checker.find(Severity::Differs, reason);
    }
    Compiled {
        client_certificates,
        age: Age::of(ingress),
        tls: sections.claims,
        tls_asked: sections.asked,
        derived,
        fallback,
        policy: Arc::new(policy),
        annotations,
        hosts,
        findings: checker.findings,
    }
}

/// Hosts that the certificate of a Secret is for. Of one that broke: those it was for, as it goes on to be
/// served.
fn names(secret: &Secret, old: Option<&Compiled>) -> Option<Vec<HostPattern>> {
    tls::names(secret).or_else(|| old?.tls_asked.get(&secret.key).cloned())
}

fn derived(
    ingress: &Ingress,
    hosts: &BTreeMap<HostPattern, HostRules>,
    annotations: &Annotations,
) -> Vec<Derived> {
    let mut derived = Vec::new();
    let texts = ingress.rules.iter().filter_map(|rule| rule.host.as_deref());
    let first = texts.filter_map(|text| HostPattern::parse(text).ok()).next();
    if let Some(first) = &first {
        let others = annotations.aliases.iter().filter(|alias| !hosts.contains_key(alias));
        derived.extend(others.map(|alias| Derived {
            host: alias.clone(),
            of: first.clone(),
            how: How::Alias,
        }));
    }
    if annotations.redirects.www {
        let others = hosts.keys().filter_map(|of| Some((host::www(of)?, of)));
        derived.extend(others.map(|(host, of)| Derived { host, of: of.clone(), how: How::Www }));
    }
    derived
}

/// What is compared with requests' paths.
fn literal(written: &str, spelled: &str) -> Result<Name, String> {
    match path::read(spelled) {
        Ok(read) if *read.normal == *spelled => Ok(read.matched().into()),
        // A rule in another spelling would never match: requests are brought to this one.
        Ok(read) => Err(format!("path {written:?} is not in normal form; write {:?}", read.normal)),
        Err(reason) => Err(format!("path {written:?} {reason}")),
    }
}

struct Checker<'a> {
    matching: Matching,
    ingress: &'a Ingress,
    protocol: Option<Protocol>,
    tls: Option<TlsWish>,
    by_address: bool,
    budget: Budget,
    /// The first path whose expressions do not fit in it, and how many there are.
    beyond: Option<(Name, usize)>,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    fn find(&mut self, severity: Severity, reason: impl Into<Arc<str>>) {
        self.findings.push(Finding::ingress(&self.ingress.key, severity, reason));
    }

    fn path(&mut self, path: &IngressPath, annotations: &Annotations) -> Option<CheckedPath> {
        let written = if path.path.is_empty() { "/" } else { &*path.path };
        let is_regex = annotations.rewriting.is_regex(written, path.path_type, self.matching);
        let is_rewritten = annotations.rewriting.is_wished();
        if (is_regex || is_rewritten) && self.budget.is_over() {
            self.is_beyond(written);
            return None;
        }
        // What is rewritten is what is forwarded, which is encoded.
        let text: Name = match is_regex {
            true => self.expression(written, is_rewritten),
            false => spelled::literal(written),
        }
        .into();
        // In nginx the text is an expression to rewriting in any case.
        let is_literal = !is_regex && self.matching == Matching::Strict;
        let rewrite = match annotations.rewriting.of(&text, is_literal) {
            Ok(rewrite) => rewrite,
            Err(reason) => {
                self.find(Severity::Refused, reason);
                return None;
            }
        };
        let pattern = if is_regex { Some(self.pattern(written)?) } else { None };
        let all = rewrite.iter().map(Rewrite::expression).chain(&pattern);
        if !self.budget.take(all) {
            self.is_beyond(written);
            return None;
        }
        let (key, refused_else) = match is_regex {
            true => (written.into(), None),
            false => match literal(written, &text) {
                Ok(key) => (key, None),
                Err(reason) if self.may_be_expression(written) => {
                    (written.into(), Some(reason.into()))
                }
                Err(reason) => {
                    self.find(Severity::Refused, reason);
                    return None;
                }
            },
        };
        let backend = self.backend(&path.backend);
        let path_type = path.path_type;
        Some(CheckedPath { path: text, key, path_type, backend, rewrite, pattern, refused_else })
    }

    fn expression<'t>(&mut self, text: &'t str, is_rewritten: bool) -> Cow<'t, str> {
        let (spelled, is_in_class) = spelled::expression(text);
        if is_in_class && (is_rewritten || !text.is_ascii()) {
            let reason = format!(
                "path {text:?} has in brackets a space or a character above ASCII: the latter is several \
                 bytes, and where paths are rewritten both are encoded (%20, %C3%BC), so that requests \
                 with it are not met or not rewritten; write (ü|ä) for [üä]"
            );
            self.find(Severity::Differs, reason);
        }
        spelled
    }

    fn is_beyond(&mut self, written: &str) {
        self.beyond.get_or_insert_with(|| (written.into(), 0)).1 += 1;
    }

    fn pattern(&mut self, text: &str) -> Option<Expression> {
        let pattern = if text.starts_with('/') {
            annotations::pattern(text, Reach::of(self.matching))
        } else {
            Err(format!("path {text:?} does not begin with /"))
        };
        pattern.map_err(|reason| self.find(Severity::Refused, reason)).ok()
    }

    /// Whether it is one where another Ingress makes expressions of all paths of a host.
    fn may_be_expression(&mut self, written: &str) -> bool {
        self.matching == Matching::Compat
            && written.starts_with('/')
            && !self.budget.is_over()
            && annotations::pattern(written, Reach::Beginning)
                .is_ok_and(|pattern| self.budget.take([&pattern]))
    }

    fn backend(&mut self, backend: &IngressBackend) -> Backend {
        match backend {
            IngressBackend::Service { name, port } => Some(UpstreamKey {
                service: Key::new(self.ingress.key.namespace.clone(), name.clone()),
                port: Some(port.clone()),
                protocol: self.protocol,
                tls: self.tls.clone(),
                udp: false,
                by_address: self.by_address,
            }),
            IngressBackend::Resource(resource) => {
                let reason = format!(
                    "backend resource {resource} is of a kind that is not served; its paths \
                     answer 503"
                );
                self.find(Severity::Refused, reason);
                None
            }
        }
    }
}
