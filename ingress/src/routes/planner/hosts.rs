//! One host, put together of what all Ingresses say about it.

mod passthrough;
mod settings;
mod trials;

use std::sync::Arc;

use fairlead_state::{Key, Name, model::PathType};

pub(super) use self::trials::Tried;
use self::{
    passthrough::Passing,
    settings::{Expressions, Settings},
    trials::{Trials, waits},
};
use super::{
    super::{
        Host, Route, Trial,
        annotations::Policy,
        budget::{Budget, REQUEST_STEPS_MAX},
        compile::{Backend, CheckedPath, Compiled, How},
        finding::{Finding, Severity, tell},
        paths,
        ruling::Ruling,
        upstream::UpstreamKey,
    },
    Planner,
};
use crate::{config::Matching, host::HostPattern, series::SeriesLabels};

impl Planner {
    pub(super) fn rebuild_host(&mut self, pattern: &HostPattern) {
        self.hosts.sweep(pattern);
        let mut findings = Vec::new();
        let mut built = self.build_host(pattern, pattern, &mut findings);
        if built.is_some() {
            self.name_taken(pattern, &mut findings);
        } else {
            built = self.build_derived(pattern, &mut findings);
        }
        self.routes.set(pattern, built.map(Arc::new));
        tell(self.host_findings.get(pattern).map_or(&[], Vec::as_slice), &findings);
        if findings.is_empty() {
            self.host_findings.remove(pattern);
        } else {
            self.host_findings.insert(pattern.clone(), findings);
        }
    }

    /// Hosts that stand for this one.
    pub(super) fn standing_for(&self, of: &HostPattern) -> Vec<HostPattern> {
        let ages = self.hosts.get(of).into_iter().flat_map(Ruling::iter);
        let derived = ages.filter_map(|age| self.ingresses.get(&age.key)).flat_map(|i| &i.derived);
        derived.filter(|derived| derived.of == *of).map(|derived| derived.host.clone()).collect()
    }

    /// Who has rules for a name is not stood for.
    fn name_taken(&self, pattern: &HostPattern, findings: &mut Vec<Finding>) {
        for (age, derived) in self.hosts.derived(pattern) {
            if derived.how == How::Alias {
                let reason = format!("alias {pattern} has rules of its own, which are served");
                findings.push(Finding::ingress(&age.key, Severity::Refused, reason));
            }
        }
    }

    /// Nor does anybody let another namespace's host have a second name.
    fn build_derived(&self, pattern: &HostPattern, findings: &mut Vec<Finding>) -> Option<Host> {
        let mut built = None;
        for (age, derived) in self.hosts.derived(pattern) {
            let Some(owner) = self.hosts.owner(&derived.of) else { continue };
            if age.key.namespace != owner.namespace {
                let annotation = match derived.how {
                    How::Alias => "server-alias",
                    How::Www => "from-to-www-redirect",
                };
                findings.push(Finding::beside(&age.key, owner, |who| {
                    format!(
                        "annotation {annotation}: host {} belongs to {who}, whose namespace alone says \
                         which other names it has",
                        derived.of
                    )
                }));
                continue;
            }
            built = built.or_else(|| match derived.how {
                How::Alias => self.build_host(pattern, &derived.of, &mut Vec::new()),
                How::Www => Some(Host {
                    pattern: pattern.clone(),
                    tls: self.ingresses.get(&age.key).is_some_and(|by| by.claims(pattern)),
                    hsts: false,
                    paths: paths::Paths::default(),
                    default: None,
                    app_root: None,
                    moved: Some(derived.of.to_string().into()),
                    passthrough: None,
                    client_certificates: None,
                }),
            });
        }
        built
    }

    /// The host `pattern`, by the rules for `of`.
    fn build_host(
        &self,
        pattern: &HostPattern,
        of: &HostPattern,
        findings: &mut Vec<Finding>,
    ) -> Option<Host> {
        let ruling = self.hosts.get(of).filter(|ruling| !ruling.is_empty())?;
        let mut default: Option<Arc<Route>> = None;
        let (canaries, others): (Vec<&Compiled>, Vec<&Compiled>) = ruling
            .iter()
            .filter_map(|age| self.ingresses.get(&age.key))
            .partition(|compiled| compiled.annotations.canary.enabled);
        let Some(owner) = ruling.owner() else {
            findings.extend(canaries.iter().map(|canary| waits(canary, pattern)));
            return None;
        };
        let mut paths = paths::Builder::owned_by(&owner.namespace);
        let mut settings = Settings::of(pattern, owner, &others, findings);
        settings.secure(canaries.iter().chain(&others).copied());
        if self.certificates.is_secured_from_above(pattern, &owner.namespace) {
            settings.secure_from_above();
        }
        let all_expressions = settings.are_expressions(&others, of);
        let mut budget = Budget::of_host();
        let mut trials = Trials::of(&canaries, of);
        trials.tell_second(pattern, findings);
        for compiled in others.iter().copied() {
            let Some(rules) = compiled.hosts.get(of) else { continue };
            let policy = settings.policy(compiled);
            let is_served = |path: &&CheckedPath| all_expressions || path.refused_else.is_none();
            let unserved = rules.paths.iter().filter(|path| !is_served(path));
            findings.extend(unserved.filter_map(|path| {
                let reason = path.refused_else.clone()?;
                Some(Finding::ingress(&compiled.age.key, Severity::Refused, reason))
            }));
            let mut taken = |older: &Route, what: String| {
                findings.push(Finding::beside(&compiled.age.key, &older.ingress, |older| {
                    format!("{what} of host {pattern} belongs to the older {older}")
                }));
            };
            let mut beyond: Option<(&str, usize)> = None;
            for path in rules.paths.iter().filter(is_served) {
                if let Some(older) = paths.holder(&path.key, path.path_type) {
                    taken(older, format!("path {}", path.path));
                    continue;
                }
                if !budget.take(&path.pattern) {
                    beyond.get_or_insert((&*path.path, 0)).1 += 1;
                    continue;
                }
                if path.pattern.is_some() {
                    settings.has_expression(compiled);
                }
                let trial = trials.take(compiled, &path.key, path.path_type);
                let route = Route {
                    key: path.key.clone(),
                    rewrite: path.rewrite.clone(),
                    pattern: path.pattern.clone(),
                    tls: settings.is_secured(compiled),
                    ..self.route(
                        (compiled, &policy),
                        pattern,
                        (&path.path, path.path_type),
                        &path.backend,
                        trial,
                    )
                };
                paths.add(Arc::new(route));
            }
            if let Some(backend) = &rules.default {
                match &default {
                    Some(older) => taken(older, "default backend".to_owned()),
                    None => {
                        let any = PathType::ImplementationSpecific;
                        let trial = trials.take(compiled, "", any);
                        let by = (compiled, &policy);
                        let route = self.route(by, pattern, ("", any), backend, trial);
                        let tls = settings.is_secured(compiled);
                        default = Some(Arc::new(Route { tls, ..route }));
                    }
                }
            }
            if let Some((path, count)) = beyond {
                let reason = format!("host {pattern}: {}", budget.refusal(path, count));
                findings.push(Finding::ingress(&compiled.age.key, Severity::Refused, reason));
            }
        }
        if !ruling.is_whole() && *of != HostPattern::Any {
            default = self.root_redirect(owner, pattern, &settings);
        }
        let led_away = default.as_ref().map(|route| &route.ingress);
        findings.extend(others.iter().filter_map(|other| unled(other, of, led_away, owner)));
        trials.tell_left(pattern, &paths, default.as_ref(), findings);
        let root = paths.root(default.as_ref());
        let asking = others.iter().filter(|compiled| compiled.annotations.passes_tls).copied();
        let asking: Vec<&Compiled> = asking.collect();
        let passthrough = Passing { pattern, owner, root }.to(&asking, findings);
        let paths = match (self.options.config.matching, settings.expressions) {
            (Matching::Strict, _) => paths.build_strict(),
            (Matching::Compat, Expressions::OfHost) => patterns(paths, &mut budget, findings),
            (Matching::Compat, Expressions::OfGuests) => {
                settings.tell_guests(findings);
                paths.build_shared()
            }
            (Matching::Compat, Expressions::None) => paths.build_compat(),
        };
        findings.extend(paths.costly().map(|route| costly(route, pattern)));
        Some(Host {
            pattern: pattern.clone(),
            tls: settings.is_secured_by_any(),
            hsts: settings.is_secured_by_owner(),
            paths,
            default,
            app_root: settings.app_root.map(Into::into),
            moved: None,
            passthrough,
            client_certificates: settings.client_certificates,
        })
    }

    /// ingress-nginx: createServers gives a host whose `/` nobody has a root location with the annotations of
    /// who made it. The default server's has none.
    fn root_redirect(
        &self,
        owner: &Key,
        host: &HostPattern,
        settings: &Settings<'_>,
    ) -> Option<Arc<Route>> {
        let compiled = self.ingresses.get(owner).filter(|owner| leads_away(owner))?;
        let policy = settings.policy(compiled);
        let any = PathType::ImplementationSpecific;
        let route = self.route((compiled, &policy), host, ("", any), &None, None);
        Some(Arc::new(Route { tls: settings.is_secured(compiled), ..route }))
    }

    fn route(
        &self,
        (compiled, policy): (&Compiled, &Arc<Policy>),
        host: &HostPattern,
        (path, path_type): (&str, PathType),
        backend: &Backend,
        trial: Option<(&Compiled, &Backend)>,
    ) -> Route {
        let tracked = |key: &UpstreamKey| Some(self.upstreams.get(key)?.upstream.clone());
        let upstream_of = |backend: &Backend| tracked(backend.as_ref()?);
        let canary = trial.and_then(|(canary, tried)| {
            Some(Trial {
                rule: canary.annotations.canary.clone(),
                upstream: tracked(&tried.as_ref()?.tried_at(backend.as_ref()?))?,
                balance: canary.policy.extra.as_ref().and_then(|extra| extra.balance.clone()),
                is_legacy: canary.annotations.is_legacy_canary(),
            })
        });
        let path = Name::from(path);
        let upstream = upstream_of(backend);
        let ingress = compiled.age.key.clone();
        let series = self.register.series(SeriesLabels {
            host: host.to_string().into(),
            path: path.clone(),
            namespace: ingress.namespace.clone(),
            ingress: ingress.name.clone(),
            service: upstream
                .as_ref()
                .map_or_else(|| "".into(), |upstream| upstream.key().service.name.clone()),
            canary: canary.as_ref().map_or("", |canary| canary.upstream.name()).into(),
        });
        Route {
            ingress,
            key: path.clone(),
            path,
            path_type,
            upstream,
            policy: if canary.is_some() { with_extra(policy) } else { policy.clone() },
            rewrite: None,
            pattern: None,
            captures: policy.captures || trial.is_some_and(|(canary, _)| canary.policy.captures),
            fallback: upstream_of(&compiled.fallback),
            canary,
            tls: false,
            series,
        }
    }
}

/// Its requests are all sent elsewhere.
fn leads_away(compiled: &Compiled) -> bool {
    compiled.policy.extra.as_ref().is_some_and(|extra| extra.elsewhere.is_some())
}

/// Whoever leads a host away has no path of it, and somebody else has its `/`.
fn unled(
    compiled: &Compiled,
    host: &HostPattern,
    led_away: Option<&Key>,
    owner: &Key,
) -> Option<Finding> {
    let rules = compiled.hosts.get(host).filter(|_| *host != HostPattern::Any)?;
    let own = &compiled.age.key;
    let has_none = rules.paths.is_empty() && rules.default.is_none();
    (has_none && leads_away(compiled) && led_away != Some(own)).then(|| {
        Finding::beside(own, owner, |who| {
            format!(
                "host {host} belongs to {who}, and no path of it is this one's: it redirects nobody"
            )
        })
    })
}

fn patterns(
    paths: paths::Builder,
    budget: &mut Budget,
    findings: &mut Vec<Finding>,
) -> paths::Paths {
    let (paths, literal) = paths.build_patterns(budget);
    findings.extend(literal.iter().map(|route| {
        let why = if budget.is_over() { " that there is room for" } else { "" };
        let reason = format!(
            "path {} is no regular expression{why}, as all paths of its host are by use-regex or \
             rewrite-target: it is compared as it stands",
            route.path
        );
        Finding::ingress(&route.ingress, Severity::Differs, reason)
    }));
    paths
}

fn costly(route: &Route, pattern: &HostPattern) -> Finding {
    let reason = format!(
        "path {} of host {pattern}: to compare it, and what its namespace's longer expressions come before it, \
         takes more steps than a request is given ({REQUEST_STEPS_MAX}) for paths of 256 letters, which are \
         answered 503 if nobody else has them: begin expressions by more text of their own, or repeat less",
        route.path
    );
    Finding::ingress(&route.ingress, Severity::Differs, reason)
}

/// The request path looks for extras before it looks for canaries.
fn with_extra(policy: &Arc<Policy>) -> Arc<Policy> {
    if policy.extra.is_some() {
        return policy.clone();
    }
    Arc::new(Policy { extra: Some(Box::default()), ..(**policy).clone() })
}
