//! Which Service port answers a host and a path: immutable, shared by all data threads.

mod annotations;
mod budget;
pub(crate) mod choice;
mod class;
mod compile;
mod endpoints;
mod external;
mod finding;
mod health;
mod latency;
mod options;
mod paths;
mod planner;
mod ruling;
mod streams;
mod told;
mod upstream;

use std::{fmt, sync::Arc};

use fairlead_state::{Key, Name, model::PathType};
use foldhash::quality::RandomState;
use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};

pub use self::{
    annotations::{ANNOTATIONS, Annotation, Support},
    finding::{Finding, Severity},
    options::{ConfigOption, OPTIONS},
    paths::Paths,
    planner::{Planned, Planner},
    upstream::{Endpoint, Endpoints, Problem, Protocol, Speech, Upstream, UpstreamKey},
};
pub(crate) use self::{
    annotations::{
        Access, Asking, Balance, Canary, Captured, Copies, Cors, Door, Errors, Extra, InForce,
        Pace, Patience, Policy, Retries, Returned, Rewrite, Rewritten, SameSite, Sticky, Template,
        Throttle, Told, Traced, Url, Variable, Verdict, regex, regex_with_case, variable_name,
    },
    budget::REQUEST_STEPS_MAX,
    choice::Pick,
    compile::{Age, Standing, TlsClaim},
    external::{Inside, Interfaces, Looked, Own, Wanted, kept, outside, reachable},
    paths::Sought,
    ruling::Rulings,
    streams::{Stream, StreamPort, Streams},
    upstream::InFlight,
};
use crate::{
    expression::{Expression, TooCostly},
    host::{HostPattern, wildcard_suffix},
    path,
    series::RouteSeries,
    tls::ClientAuth,
};

/// Certificate authorities ask by plain HTTP (ingress-nginx: no-tls-redirect-locations).
const NO_REDIRECT_PREFIX: &str = "/.well-known/acme-challenge/";

/// Hosts by name. Objects of the cluster alone fill it, clients only look: they cannot make it slow, and
/// who writes objects does not know the seed.
type Hosts = GenericHashMap<Name, Arc<Host>, RandomState, DefaultSharedPtr>;

/// All hosts at one revision. Clones share structure.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    exact: Hosts,
    /// By suffix: `foo.com` for `*.foo.com`.
    wildcard: Hosts,
    any: Option<Arc<Host>>,
    /// Hosts whose clients are asked for a certificate.
    asking: usize,
    /// Hosts whose TLS is passed on.
    passing: usize,
}

/// What is served under one host.
#[derive(Debug)]
pub struct Host {
    /// The host as rules state it.
    pub pattern: HostPattern,
    /// A TLS section covers it.
    pub tls: bool,
    /// One of its own namespace does: by HTTPS clients are told to stay with it.
    pub(crate) hsts: bool,
    /// Its paths.
    pub paths: Paths,
    /// Answers what no path matches.
    pub default: Option<Arc<Route>>,
    /// Where `/` leads (annotation `app-root`).
    pub app_root: Option<Name>,
    /// It has no rules: everything is found under this name (annotation `from-to-www-redirect`).
    pub moved: Option<Name>,
    /// Its TLS is passed on to there, unopened (annotation `ssl-passthrough`).
    pub passthrough: Option<Arc<Upstream>>,
    /// What is asked of clients by HTTPS (annotation `auth-tls-secret`).
    pub(crate) client_certificates: Option<ClientCertificates>,
}

/// Whose certificates a host takes.
#[derive(Clone, Debug)]
pub(crate) enum ClientCertificates {
    /// Those of some authorities.
    Of(Arc<ClientAuth>),
    /// Nobody's: the authorities cannot be read.
    Broken,
}

/// One path of one Ingress.
#[derive(Debug)]
pub struct Route {
    /// The Ingress it comes from.
    pub ingress: Key,
    /// Path as written; empty for a default backend.
    pub path: Name,
    /// What requests' paths are compared with: the path, decoded as theirs are.
    pub(crate) key: Name,
    /// How the path is compared.
    pub path_type: PathType,
    /// Where requests go; `None` when the backend is of a kind that is not served (503).
    pub upstream: Option<Arc<Upstream>>,
    /// What the Ingress's annotations ask of requests.
    pub(crate) policy: Arc<Policy>,
    /// Which path the upstream is asked for.
    pub(crate) rewrite: Option<Rewrite>,
    /// The path is a regular expression.
    pub(crate) pattern: Option<Expression>,
    /// Texts for its requests have what that captures.
    pub(crate) captures: bool,
    /// Who answers when the upstream has no endpoint, and instead of errors.
    pub(crate) fallback: Option<Arc<Upstream>>,
    /// Some requests go to another Service (annotation `canary`).
    pub(crate) canary: Option<Trial>,
    /// A TLS section of its own namespace, or of the host's, covers the host.
    pub(crate) tls: bool,
    /// Where its requests are counted.
    pub(crate) series: Arc<RouteSeries>,
}

/// A Service under trial.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// Which requests go there.
    pub(crate) rule: Canary,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) balance: Option<Balance>,
    /// They are drawn anew each time, unless the other Service's cookie keeps them there.
    pub(crate) is_legacy: bool,
}

/// What a request's host and path lead to.
#[derive(Debug)]
pub struct Found<'a> {
    /// The host whose rules decided.
    pub host: &'a Host,
    /// The route.
    pub route: &'a Arc<Route>,
}

/// One line of `fairlead routes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    /// Host as in the rules; `*` for all.
    pub host: String,
    /// A TLS section covers the host.
    pub tls: bool,
    /// Path as written; empty for a default backend.
    pub path: String,
    /// How the path is compared.
    pub path_type: PathType,
    /// The Ingress it comes from.
    pub ingress: Key,
    /// Service and port; `None` when the backend is of a kind that is not served.
    pub service: Option<UpstreamKey>,
    /// Endpoints requests are spread over.
    pub endpoints: Vec<std::net::SocketAddr>,
    /// Plain HTTP is redirected to HTTPS.
    pub redirects_to_https: bool,
}

impl Found<'_> {
    /// Whether a request, whose client used HTTPS or not, is sent to HTTPS.
    pub fn redirects(&self, is_https: bool, path: &str) -> bool {
        !is_https && self.route.redirects() && !path.starts_with(NO_REDIRECT_PREFIX)
    }
}

impl Routes {
    /// The route for a normalised host and a path as it is matched ([`crate::path::Read`]).
    ///
    /// The most specific host decides alone: a path it does not serve is not looked for under a
    /// wildcard or under rules without host, where another tenant's Ingress would take it
    /// (ingress-nginx does the same).
    pub fn find(&self, host: &str, path: &str) -> Option<Found<'_>> {
        self.host(host)?.find(path)
    }

    /// The paths of the host that decides for a name; `None`: no host does.
    pub fn paths(&self, name: &str) -> Option<Vec<String>> {
        let host = self.host(name)?;
        Some(host.paths.iter().map(|route| route.path.to_string()).collect())
    }

    /// Whether clients of any host are asked for a certificate.
    pub(crate) fn asks_clients(&self) -> bool {
        self.asking > 0
    }

    /// Whether the TLS of any host is passed on.
    pub(crate) fn passes_tls(&self) -> bool {
        self.passing > 0
    }

    /// The host that decides for a normalised name.
    pub(crate) fn host(&self, name: &str) -> Option<&Host> {
        let exact = || self.exact.get(name);
        let wildcard = || self.wildcard.get(wildcard_suffix(name)?);
        exact().or_else(wildcard).or(self.any.as_ref()).map(|host| &**host)
    }

    /// Every route, sorted by host and path.
    pub fn rows(&self) -> Vec<RouteRow> {
        let hosts = self.exact.values().chain(self.wildcard.values()).chain(self.any.as_ref());
        let mut rows: Vec<RouteRow> = hosts.flat_map(|host| host.rows()).collect();
        rows.sort_by(|a, b| (&a.host, &a.path, a.path_type).cmp(&(&b.host, &b.path, b.path_type)));
        rows
    }

    /// Number of hosts, wildcards and the catch-all included.
    pub fn host_count(&self) -> usize {
        self.exact.len() + self.wildcard.len() + usize::from(self.any.is_some())
    }

    /// Number of routes, default backends included. Costs a walk over all hosts.
    pub fn route_count(&self) -> usize {
        let hosts = self.exact.values().chain(self.wildcard.values()).chain(self.any.as_ref());
        hosts.map(|host| host.paths.len() + usize::from(host.default.is_some())).sum()
    }

    fn set(&mut self, pattern: &HostPattern, host: Option<Arc<Host>>) {
        let asks = |host: &Arc<Host>| host.client_certificates.is_some();
        let passes = |host: &Arc<Host>| host.passthrough.is_some();
        let asks_now = host.as_ref().is_some_and(asks);
        let passes_now = host.as_ref().is_some_and(passes);
        let old = self.put(pattern, host);
        let asked_before = old.as_ref().is_some_and(asks);
        self.asking = self.asking + usize::from(asks_now) - usize::from(asked_before);
        let passed_before = old.as_ref().is_some_and(passes);
        self.passing = self.passing + usize::from(passes_now) - usize::from(passed_before);
    }

    /// Returns what was there.
    fn put(&mut self, pattern: &HostPattern, host: Option<Arc<Host>>) -> Option<Arc<Host>> {
        let (map, name) = match pattern {
            HostPattern::Any => return std::mem::replace(&mut self.any, host),
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(suffix) => (&mut self.wildcard, suffix),
        };
        match host {
            Some(host) => map.insert(name.clone(), host),
            None => map.remove(name),
        }
    }
}

impl Host {
    /// The route for a path as it is matched.
    pub(crate) fn find(&self, path: &str) -> Option<Found<'_>> {
        match self.seek(path) {
            Sought::Found(found) => Some(found),
            Sought::Nobody | Sought::Costly => None,
        }
    }

    /// The same, where it matters why there is none.
    pub(crate) fn seek(&self, path: &str) -> Sought<Found<'_>> {
        let found = |route| Sought::Found(Found { host: self, route });
        match self.paths.seek(path) {
            Sought::Found(route) => found(route),
            Sought::Nobody => self.default.as_ref().map_or(Sought::Nobody, found),
            Sought::Costly => Sought::Costly,
        }
    }

    /// The route a request is sent to by a slash at its end. nginx adds none where it asks no
    /// endpoint, as it does not behind a denied location.
    pub(crate) fn wants_slash(&self, path: &str) -> Option<&Arc<Route>> {
        self.paths.wants_slash(path).filter(|route| route.denied().is_none())
    }

    fn rows(&self) -> impl Iterator<Item = RouteRow> {
        self.paths.iter().chain(self.default.as_ref()).map(|route| RouteRow {
            host: self.pattern.to_string(),
            tls: self.tls,
            path: route.path.to_string(),
            path_type: route.path_type,
            ingress: route.ingress.clone(),
            service: route.upstream.as_ref().map(|upstream| upstream.key().clone()),
            endpoints: route.upstream.as_ref().map(|u| u.addresses()).unwrap_or_default(),
            redirects_to_https: route.redirects(),
        })
    }
}

impl Route {
    /// Whether plain HTTP requests are sent to HTTPS.
    pub fn redirects(&self) -> bool {
        let redirects = &self.policy.redirects;
        self.denied().is_none() && (redirects.force_ssl || (self.tls && redirects.ssl))
    }

    /// What its expression captures of a path, if anything asks for that.
    pub(crate) fn captured(&self, path: &path::Read<'_>) -> Result<Option<Captured>, TooCostly> {
        let Some(pattern) = self.pattern.as_ref().filter(|_| self.captures) else {
            return Ok(None);
        };
        let captures = pattern.captures_in(path.matched().as_bytes(), REQUEST_STEPS_MAX)?;
        Ok(captures.map(|captures| Captured::of(&captures, |group| path.spelled(group))))
    }

    /// Why nobody is let in, if so: what guards it cannot be read.
    pub(crate) fn denied(&self) -> Option<&str> {
        self.policy.extra.as_ref()?.denied.as_deref()
    }
}

impl fmt::Display for RouteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = match &self.service {
            Some(service) => service.to_string(),
            None => "no backend".to_owned(),
        };
        write!(f, "{}{} -> {service} ({})", self.host, self.path, self.ingress)
    }
}
