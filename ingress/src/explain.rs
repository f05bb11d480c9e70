//! What would become of a request, and of an Ingress: the planner's and the matcher's own decisions,
//! asked for without a connection.

mod strict;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use fairlead_state::{
    Key, SaidClass, Snapshot,
    model::{PathType, ServiceBackendPort},
};

pub use self::strict::{Difference, differences};
use crate::{
    config::{IngressConfig, Matching},
    error::IngressError,
    host, path,
    routes::{Finding, Found, Host, Planner, RouteRow, Sought},
    series::RouteCounters,
    tls::Fallback,
};

/// Explains by the routes and certificates in force.
#[derive(Clone, Debug)]
pub struct Explainer {
    planner: Arc<Mutex<Planner>>,
}

/// A request, as far as routing asks.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// By HTTPS.
    pub tls: bool,
    /// Its Host field, also the name in its handshake.
    pub host: &'a str,
    /// Its path, without query.
    pub path: &'a str,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 400, and why.
    Refused(String),
    /// 404: no Ingress has the host.
    NoHost,
    /// 404: the host has no such path. Those it has.
    NoPath(Vec<String>),
    /// 308 to HTTPS.
    Redirected,
    /// Sent somewhere else by an annotation: the status, and where to as it is written there.
    Elsewhere(u16, String),
    /// 503: nobody is let in, as what guards the path cannot be read; what is wrong with it.
    Denied(String),
    /// 503, and why.
    Unavailable(String),
    /// It is forwarded.
    Forwarded,
}

/// Which certificate is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateChoice {
    /// The Secret it is from; `None`: the self-signed one.
    pub secret: Option<Key>,
    /// The host of the TLS section that decides; `None`: none fits, so the default one is shown.
    pub claimed_by: Option<String>,
    /// Why the wanted one is not shown.
    pub problem: Option<String>,
}

/// The rule that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Host as in the rule.
    pub host: String,
    /// A TLS section covers it.
    pub tls: bool,
    /// The Ingress.
    pub ingress: Key,
    /// Path as written; empty for a default backend.
    pub path: String,
    /// How it is compared.
    pub path_type: PathType,
    /// Where requests go; `None`: to a kind that is not served.
    pub service: Option<(Key, String)>,
    /// `HTTP`, `HTTPS`, `GRPC`, `GRPCS`.
    pub protocol: &'static str,
    /// Endpoints requests are spread over.
    pub endpoints: Vec<SocketAddr>,
    /// Annotations that act, `name=value`.
    pub annotations: Vec<String>,
    /// Larger bodies are answered 413; `u64::MAX`: no limit.
    pub body_bytes_max: u64,
}

/// Everything about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What becomes of it.
    pub outcome: Outcome,
    /// By HTTPS: what is shown.
    pub certificate: Option<CertificateChoice>,
    /// What decided.
    pub rule: Option<Rule>,
}

/// An Ingress that is not served, although it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The Ingress.
    pub ingress: Key,
    /// Its hosts; `*` for all.
    pub hosts: Vec<String>,
    /// Why not, and the cure.
    pub reason: String,
}

impl Explainer {
    /// What a role with these settings would do with `snapshot`.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(config: &IngressConfig, snapshot: &Snapshot) -> Result<Self, IngressError> {
        let mut planner = Planner::foretelling(config, Fallback::generate()?);
        planner.apply(snapshot);
        Ok(Self::of(Arc::new(Mutex::new(planner))))
    }

    pub(crate) fn of(planner: Arc<Mutex<Planner>>) -> Self {
        Self { planner }
    }

    fn with<T>(&self, ask: impl FnOnce(&Planner) -> T) -> T {
        ask(&self.planner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Revision of the snapshot in force; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.with(Planner::revision)
    }

    /// As [`Planner::told`].
    pub fn told(&self) -> u64 {
        self.with(Planner::told)
    }

    /// Whether an Ingress that could not be read says that it is one of the role's.
    pub fn is_said_ours(&self, snapshot: &Snapshot, said: &SaidClass) -> bool {
        self.with(|planner| planner.is_said_ours(snapshot, said))
    }

    /// Number of hosts, of routes and of names with a certificate of their own.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.with(|planner| {
            let routes = planner.routes();
            (routes.host_count(), routes.route_count(), planner.certificates().len())
        })
    }

    /// All routes, sorted by host and path.
    pub fn rows(&self) -> Vec<RouteRow> {
        self.with(|planner| planner.routes().clone()).rows()
    }

    /// What each route served; those without a request are left out.
    pub fn served_by_route(&self) -> Vec<RouteCounters> {
        self.with(|planner| planner.register().clone()).read()
    }

    /// What is refused, differs or waits, sorted by object.
    pub fn findings(&self) -> Vec<Finding> {
        self.with(Planner::findings)
    }

    /// Ingresses of the role's classes.
    pub fn served(&self) -> BTreeSet<Key> {
        self.with(|planner| planner.served().cloned().collect())
    }

    /// Annotations that act on an Ingress, `name=value`; addresses, snippets and the like by name alone.
    pub fn annotations(&self, ingress: &Key) -> Vec<String> {
        self.with(|planner| planner.annotations(ingress))
    }

    /// Ingresses of other classes, and of none.
    pub fn foreign(&self, snapshot: &Snapshot) -> Vec<Foreign> {
        self.with(|planner| planner.foreign(snapshot))
    }

    /// Which certificate a name is shown.
    pub fn certificate(&self, name: &str) -> CertificateChoice {
        self.with(|planner| planner.certificate(name))
    }

    /// What becomes of a request.
    pub fn explain(&self, request: Request<'_>) -> Explanation {
        let refused = |reason: String| Explanation {
            outcome: Outcome::Refused(reason),
            certificate: None,
            rule: None,
        };
        let Some(host) = host::normalise(request.host) else {
            return refused(format!("{:?} is no host", request.host));
        };
        let path = match path::read(request.path) {
            Ok(path) => path,
            Err(reason) => return refused(format!("path {:?} {reason}", request.path)),
        };
        self.with(|planner| {
            let certificate = request.tls.then(|| planner.certificate(&host));
            let routes = planner.routes();
            let is_strict = planner.config().matching == Matching::Strict;
            if is_strict && !path::is_plain(request.path) {
                return refused(format!("path {:?} has segments to resolve", request.path));
            }
            if let Some(outcome) = routes.host(&host).and_then(|host| moved(host, path.matched())) {
                return Explanation { outcome, certificate, rule: None };
            }
            let found = match routes.host(&host).map(|host| host.seek(path.matched())) {
                Some(Sought::Found(found)) => Ok(found),
                Some(Sought::Nobody) | None => {
                    Err(routes.paths(&host).map_or(Outcome::NoHost, Outcome::NoPath))
                }
                Some(Sought::Costly) => Err(Outcome::Unavailable(
                    "its host's regular expressions take more steps than a request is given"
                        .to_owned(),
                )),
            };
            let found = match found {
                Ok(found) => found,
                Err(outcome) => return Explanation { outcome, certificate, rule: None },
            };
            let rule = rule(&found, planner.annotations(&found.route.ingress));
            let outcome = outcome(&found, &request, &path.normal);
            Explanation { outcome, certificate, rule: Some(rule) }
        })
    }
}

/// What the host itself leads to, before any path.
fn moved(host: &Host, path: &str) -> Option<Outcome> {
    if let Some(name) = &host.moved {
        return Some(Outcome::Elsewhere(308, name.to_string()));
    }
    if host.wants_slash(path).is_some() {
        return Some(Outcome::Elsewhere(301, format!("{path}/")));
    }
    let root = host.app_root.as_ref().filter(|_| path == "/")?;
    Some(Outcome::Elsewhere(302, root.to_string()))
}

fn outcome(found: &Found<'_>, request: &Request<'_>, path: &str) -> Outcome {
    if let Some(reason) = found.route.denied() {
        return Outcome::Denied(reason.to_owned());
    }
    let extra = found.route.policy.extra.as_deref();
    if let Some(elsewhere) = extra.and_then(|extra| extra.elsewhere.as_ref()) {
        let location = elsewhere.location.to_string();
        return Outcome::Elsewhere(elsewhere.status.as_u16(), location);
    }
    if found.redirects(request.tls, path) {
        return Outcome::Redirected;
    }
    let Some(upstream) = &found.route.upstream else {
        return Outcome::Unavailable("its backend is of a kind that is not served".to_owned());
    };
    let endpoints = upstream.endpoints();
    if let Some(problem) = &endpoints.problem {
        return Outcome::Unavailable(problem.describe(upstream.key()));
    }
    if endpoints.list.is_empty() {
        return Outcome::Unavailable(format!("{} has no ready endpoints", upstream.key()));
    }
    Outcome::Forwarded
}

fn rule(found: &Found<'_>, annotations: Vec<String>) -> Rule {
    let route = found.route;
    let endpoints = route.upstream.as_ref().map(|upstream| upstream.endpoints());
    let protocol = endpoints.as_ref().and_then(|endpoints| endpoints.list.first());
    let protocol = protocol.map_or(crate::routes::Protocol::Http1, |first| first.protocol());
    Rule {
        host: found.host.pattern.to_string(),
        tls: found.host.tls,
        ingress: route.ingress.clone(),
        path: route.path.to_string(),
        path_type: route.path_type,
        service: route.upstream.as_ref().map(|upstream| {
            let port = match &upstream.key().port {
                Some(ServiceBackendPort::Number(number)) => number.to_string(),
                Some(ServiceBackendPort::Name(name)) => name.to_string(),
                None => "first".to_owned(),
            };
            (upstream.key().service.clone(), port)
        }),
        protocol: protocol.as_str(),
        endpoints: route.upstream.as_ref().map(|upstream| upstream.addresses()).unwrap_or_default(),
        annotations,
        body_bytes_max: route.policy.body_bytes_max,
    }
}
