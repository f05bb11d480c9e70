//! What is to be done with a request: everything that needs no waiting, in the order of nginx's
//! phases (the host's redirects, the location's rewriting, the redirect to HTTPS).

use std::{borrow::Cow, fmt::Write, rc::Rc, sync::Arc};

use http::{HeaderValue, Method, Response, StatusCode, request::Parts};

use super::{
    answer,
    body::ResponseBody,
    client::Client,
    front::{Front, Scheme},
    gates, identity, media,
    said::Said,
    scope::Scope,
};
use crate::{
    admission::{self, Admitted, Websocket},
    config::Matching,
    counters::Refused,
    expression::TooCostly,
    host, path,
    record::Record,
    routes::{
        Captured, Cors, Extra, Found, Host, InForce, Returned, Rewritten, Route, Sought, Template,
        Traced, Variable,
    },
    series::method_name,
    traces::{Context, Span},
};

/// Where an admitted request goes, free of borrows from its head.
#[derive(Debug)]
pub(super) struct Plan<'r> {
    /// What is told of it.
    pub(super) record: &'r Rc<Record>,
    pub(super) route: &'r Arc<Route>,
    /// Host as received.
    pub(super) host: HeaderValue,
    /// Host as endpoints see it, if not so.
    pub(super) vhost: Option<HeaderValue>,
    /// What the endpoint is asked for, where it differs from what was received.
    pub(super) target: Option<Target>,
    /// `X-Forwarded-Prefix`.
    pub(super) prefix: Option<HeaderValue>,
    /// What the endpoint is told of the client's certificate.
    pub(super) identity: identity::Fields,
    pub(super) websocket: Option<Websocket>,
    /// What the route's expression captured of the path.
    pub(super) captured: Option<Captured>,
    /// What the route's snippet does for it.
    pub(super) snippet: InForce<'r>,
    /// `None`: it is not traced.
    pub(super) trace: Option<Context>,
}

/// What an endpoint is asked for.
#[derive(Debug)]
pub(super) struct Target {
    /// Path in normal form, perhaps with a query.
    pub(super) text: String,
    /// The request's own query follows.
    pub(super) keeps_args: bool,
}

/// Why there is no plan.
#[derive(Debug)]
pub(super) enum Unplanned {
    Refused(Refused),
    /// 404.
    Unserved(StatusCode),
    /// To somewhere else.
    Moved(StatusCode, HeaderValue),
    /// By a path that is kept shut, or by a route.
    Answered(Box<Response<ResponseBody>>),
    /// By a route, with all that it says on its answers.
    Whole(Box<Response<ResponseBody>>),
}

/// Admission and routing. Whatever becomes of a request, its record knows the rule it met.
pub(super) fn plan<'r>(
    client: &Client,
    head: &Parts,
    record: &'r Rc<Record>,
) -> Result<Plan<'r>, Unplanned> {
    const NOT_FOUND: Unplanned = Unplanned::Unserved(StatusCode::NOT_FOUND);
    let (worker, config) = (&client.worker, &record.config);
    let admitted = admission::admit(head, &config.limits).map_err(Unplanned::Refused)?;
    // Nothing else is to be found under another spelling.
    if config.matching == Matching::Strict && !path::is_plain(head.uri.path()) {
        return Err(Unplanned::Refused(Refused::Path));
    }
    if config.blocked.blocks(|| gates::address(client, &head.headers), &head.headers) {
        return Err(Unplanned::Refused(Refused::Blocked));
    }
    let mut routes = worker.routes.borrow_mut();
    let routes = routes.load();
    let host = routes.host(&admitted.host).ok_or(NOT_FOUND)?;
    record.hosted(host.hsts);
    let identity = match &host.client_certificates {
        Some(certificates) if client.tls => identity::check(client, routes, host, certificates)?,
        _ => identity::Fields::new(),
    };
    if host.moved.is_some() || host.app_root.is_some() {
        leave_host(client, record, host, &admitted, head)?;
    }
    let scope = |route| Scope {
        client,
        head,
        front: &record.front,
        host: &admitted.host,
        http_host: admitted.host_text,
        path: &admitted.path.normal,
        route,
        captured: None,
        identity: &identity,
        request_id: record.own_id,
    };
    if let Some(route) = host.wants_slash(admitted.path.matched()) {
        return Err(add_slash(&scope(record.routed(route))));
    }
    let Found { host, route } = match host.seek(admitted.path.matched()) {
        Sought::Found(found) => found,
        Sought::Nobody => return Err(NOT_FOUND),
        Sought::Costly => return Err(Unplanned::Refused(Refused::Expressions)),
    };
    let route = record.routed(route);
    record.hosted(host.hsts);
    let captured = route.captured(&admitted.path);
    let captured = captured.map_err(|TooCostly| Unplanned::Refused(Refused::Expressions))?;
    let scope = Scope { captured: captured.as_ref(), ..scope(route) };
    let trace = route.policy.traced.as_deref().map(|traced| trace(traced, &scope, record));
    // ingress-nginx: a denied location is `return 503` and nothing else.
    if route.denied().is_some() {
        let answer = gates::refuse(client, Refused::Misconfigured);
        return Err(Unplanned::Answered(Box::new(answer)));
    }
    let (snippet, vhost) = match &route.policy.extra {
        None => (InForce::default(), None),
        Some(extra) => (leave_route(&scope, extra, record)?, vhost(&scope, extra)?),
    };
    let (rewritten, prefix) = match &route.rewrite {
        None => (None, None),
        Some(_) => rewrite(&scope).map_err(|why| why.of_route(&scope, &snippet, record))?,
    };
    let found = Found { host, route };
    if found.redirects(record.front.scheme.is_https(), &admitted.path.normal)
        && let Some(https) = worker.shared.https
    {
        let location = https_location(&scope, https.outside);
        let moved = Unplanned::moved(config.https_redirect_status, location);
        return Err(moved.of_route(&scope, &snippet, record));
    }
    // Who need not use HTTPS need not show a certificate either: so nobody goes on without it.
    if host.client_certificates.is_some() && !client.tls {
        return Err(Unplanned::Refused(Refused::Certificate));
    }
    let target = match (rewritten, admitted.path.normal) {
        (Some(rewritten), _) => Some(rewritten),
        (None, Cow::Borrowed(_)) => None,
        (None, Cow::Owned(text)) => Some(Target { text, keeps_args: true }),
    };
    let host = match admitted.host_field {
        Some(host) => host.clone(),
        None => HeaderValue::from_str(admitted.host_text)
            .map_err(|_| Unplanned::Refused(Refused::HostInvalid))?,
    };
    let websocket = admitted.websocket;
    Ok(Plan {
        record,
        route,
        host,
        vhost,
        target,
        prefix,
        identity,
        websocket,
        captured,
        snippet,
        trace,
    })
}

fn trace(traced: &Traced, scope: &Scope<'_>, record: &Record) -> Context {
    let Scope { client, head, front, host, route, .. } = *scope;
    let context = Context::begin(&head.headers, traced.trusts, traced.sampling);
    if context.is_sampled {
        let name = match &traced.name {
            Some(name) => scope.render(name),
            None => format!("{} {}", method_name(&head.method).unwrap_or("HTTP"), route.path),
        };
        let address = gates::address(client, &head.headers);
        let scheme = front.scheme.as_str();
        record.traced(Span::new(context, &name, head, host, scheme, address));
    }
    context
}

/// ingress-nginx: server blocks of their own for `www.`, and app-root's `if` before any location.
fn leave_host(
    client: &Client,
    record: &Record,
    host: &Host,
    admitted: &Admitted<'_>,
    head: &Parts,
) -> Result<(), Unplanned> {
    let front = &record.front;
    let scheme = front.scheme.as_str();
    if let Some(name) = &host.moved {
        let mut location = format!("{scheme}://{name}");
        let port = port(client, front);
        push_port(&mut location, port, port != front.scheme.port());
        push_uri(&mut location, &admitted.path.normal, head.uri.query(), false);
        // nginx.tmpl: `$all.Cfg.HTTPRedirectCode`.
        return Err(Unplanned::moved(record.config.https_redirect_status, location));
    }
    match host.app_root.as_deref().filter(|_| admitted.path.matched() == "/") {
        Some(root) => {
            let location = format!("{scheme}://{}{root}", admitted.host_text);
            Err(Unplanned::moved(StatusCode::FOUND, location))
        }
        None => Ok(()),
    }
}

/// nginx: a location that ends with a slash, asked for without it.
fn add_slash(scope: &Scope<'_>) -> Unplanned {
    let mut location = format!("{}/", scope.path);
    if let Some(query) = scope.head.uri.query() {
        // Writing to a String cannot fail.
        let _ = write!(location, "?{query}");
    }
    Unplanned::moved(StatusCode::MOVED_PERMANENTLY, absolute(scope, location))
}

fn leave_route<'r>(
    scope: &Scope<'_>,
    extra: &'r Extra,
    record: &Record,
) -> Result<InForce<'r>, Unplanned> {
    let look = |variable: &Variable, out: &mut String| scope.write(variable, out);
    let in_force = match extra.snippet.as_ref().map(|snippet| snippet.in_force(&look)) {
        None => InForce::default(),
        Some(Ok(in_force)) => in_force,
        Some(Err(TooCostly)) => return Err(Unplanned::Refused(Refused::Expressions)),
    };
    let answer = if is_preflight(scope, extra) {
        Unplanned::Answered(Box::new(answer::preflight()))
    } else if let Some(returned) = in_force.returned(&look) {
        Unplanned::Answered(Box::new(returned_answer(scope, returned)))
    } else if let Some(elsewhere) = &extra.elsewhere {
        let location = scope.render_whole(&elsewhere.location);
        let location = location.ok_or(Unplanned::Refused(Refused::UriTooLong))?;
        Unplanned::moved(elsewhere.status, absolute(scope, location))
    } else {
        return Ok(in_force);
    };
    Err(answer.of_route(scope, &in_force, record))
}

/// Of a site that may ask; others' are the endpoint's.
fn is_preflight(scope: &Scope<'_>, extra: &Extra) -> bool {
    let may_ask = |cors: &Cors| cors.allows(&scope.head.headers).is_some();
    scope.head.method == Method::OPTIONS && extra.cors.as_ref().is_some_and(may_ask)
}

/// What variables make of it may be no host.
fn vhost(scope: &Scope<'_>, extra: &Extra) -> Result<Option<HeaderValue>, Unplanned> {
    let Some(vhost) = &extra.vhost else { return Ok(None) };
    scope.host_of(vhost).map(Some).ok_or(Unplanned::Refused(Refused::HostInvalid))
}

/// nginx: absolute_redirect.
fn absolute(scope: &Scope<'_>, mut location: String) -> String {
    let redirects = &scope.route.policy.redirects;
    if location.starts_with('/') && !redirects.relative {
        let mut absolute = format!("{}://{}", scope.front.scheme.as_str(), scope.host);
        let (port, usual) = (port(scope.client, scope.front), scope.front.scheme.port());
        // nginx leaves the scheme's own out even where ports are named.
        push_port(&mut absolute, port, redirects.names_port && port != usual);
        location.insert_str(0, &absolute);
    }
    location
}

/// nginx: to a redirect's status the text is where to, to others what is said.
fn returned_answer(scope: &Scope<'_>, returned: Returned) -> Response<ResponseBody> {
    if returned.is_unanswered() {
        return answer::none(returned.status);
    }
    let is_redirect = returned.is_redirect();
    let Returned { status, text } = returned;
    match text {
        Some(text) if is_redirect => {
            if !Template::is_whole(&text) {
                return answer::status(StatusCode::URI_TOO_LONG);
            }
            match HeaderValue::try_from(absolute(scope, text)) {
                Ok(location) => answer::redirect(status, location),
                Err(_) => answer::status(StatusCode::BAD_REQUEST),
            }
        }
        Some(text) => answer::own_text(status, text, Some(media::type_of(scope.path))),
        // nginx has pages for errors alone.
        None if status.as_u16() < 400 => {
            answer::own_text(status, String::new(), Some(media::type_of(scope.path)))
        }
        None => answer::own_text(status, format!("{status}\n"), None),
    }
}

/// The new path and what `X-Forwarded-Prefix` says.
fn rewrite(scope: &Scope<'_>) -> Result<(Option<Target>, Option<HeaderValue>), Unplanned> {
    let Some(rewrite) = &scope.route.rewrite else { return Ok((None, None)) };
    match rewrite.apply(scope.path, |variable, out| scope.write(variable, out)) {
        None => Ok((None, None)),
        Some(Rewritten::Refused) => Err(Unplanned::Refused(Refused::Path)),
        Some(Rewritten::TooLong) => Err(Unplanned::Refused(Refused::UriTooLong)),
        Some(Rewritten::TooCostly) => Err(Unplanned::Refused(Refused::Expressions)),
        Some(Rewritten::Elsewhere { mut url, args_by }) => {
            if let (Some(by), Some(query)) = (args_by, scope.head.uri.query()) {
                // Writing to a String cannot fail.
                let _ = write!(url, "{by}{query}");
            }
            Err(Unplanned::moved(StatusCode::FOUND, url))
        }
        Some(Rewritten::Path { path: mut text, query, keeps_args, prefix }) => {
            if let Some(query) = query {
                text.push('?');
                text.push_str(&query);
            }
            let prefix = prefix.and_then(|prefix| HeaderValue::try_from(prefix).ok());
            Ok((Some(Target { text, keeps_args }), prefix))
        }
    }
}

fn https_location(scope: &Scope<'_>, port: u16) -> String {
    let redirects = &scope.route.policy.redirects;
    let told = scope.front.host.as_ref().and_then(|told| host::normalise(told.to_str().ok()?));
    let mut location = format!("https://{}", told.as_deref().unwrap_or(scope.host));
    push_port(&mut location, port, redirects.names_port || port != Scheme::Https.port());
    push_uri(&mut location, scope.path, scope.head.uri.query(), redirects.keeps_slash);
    location
}

fn push_port(location: &mut String, port: u16, is_named: bool) {
    if is_named {
        // Writing to a String cannot fail.
        let _ = write!(location, ":{port}");
    }
}

/// ingress-nginx takes the last slash away unless it is told to keep it.
fn push_uri(location: &mut String, path: &str, query: Option<&str>, keeps_slash: bool) {
    match query {
        Some(query) => _ = write!(location, "{path}?{query}"),
        None if keeps_slash || path == "/" => location.push_str(path),
        None => location.push_str(path.strip_suffix('/').unwrap_or(path)),
    }
}

/// The one the client used, as far as is known: of somebody in front who ends TLS, or begins it, the
/// connection does not tell.
fn port(client: &Client, front: &Front) -> u16 {
    let usual = front.scheme.port();
    front.port.unwrap_or_else(|| match (front.scheme, client.tls) {
        (Scheme::Https, true) => client.outside_port.unwrap_or(usual),
        (Scheme::Http, false) => client.port,
        _ => usual,
    })
}

impl Unplanned {
    /// `Location` is one field, whatever was put into it.
    fn moved(status: StatusCode, location: String) -> Self {
        match HeaderValue::try_from(location) {
            Ok(location) => Self::Moved(status, location),
            Err(_) => Self::Refused(Refused::Path),
        }
    }

    /// What a route answers itself says what all of its answers do.
    fn of_route(self, scope: &Scope<'_>, snippet: &InForce<'_>, record: &Record) -> Self {
        let Some(extra) = &scope.route.policy.extra else { return self };
        let mut answer = match self {
            Self::Moved(status, location) => answer::redirect(status, location),
            Self::Answered(answer) => *answer,
            other => return other,
        };
        Said::of(scope, extra, snippet).apply(record, &mut answer);
        Self::Whole(Box::new(answer))
    }

    pub(super) fn answer(self, record: &Record) -> Response<ResponseBody> {
        let mut answer = match self {
            Self::Refused(reason) => {
                record.client.worker.counters.refused(reason);
                answer::status(reason.status())
            }
            Self::Unserved(status) => answer::status(status),
            Self::Moved(status, location) => answer::redirect(status, location),
            Self::Answered(answer) => *answer,
            Self::Whole(answer) => return *answer,
        };
        record.secure(answer.headers_mut());
        answer
    }
}
