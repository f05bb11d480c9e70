//! One request: admitted, routed, sent on, answered.

use std::{borrow::Cow, convert::Infallible, fmt::Write, rc::Rc, sync::Arc};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, HOST, STRICT_TRANSPORT_SECURITY},
    request::Parts,
    uri::{PathAndQuery, Uri},
};
use hyper::body::{Body, Incoming};

use super::{
    answer,
    body::{RequestBody, ResponseBody},
    client::Client,
    fields::{self, Edit},
    forward,
    websocket::Asked,
};
use crate::{
    admission::{self, Admitted, Websocket},
    counters::Refused,
    routes::{Found, Upstream},
};
const HTTPS_PORT: u16 = 443;

/// Where an admitted request goes, free of borrows from its head.
#[derive(Debug)]
struct Plan {
    upstream: Arc<Upstream>,
    host: HeaderValue,
    /// The path in normal form, where it differs from the one received.
    path: Option<String>,
    websocket: Option<Websocket>,
    /// The host is one of HTTPS.
    secured: bool,
    body_bytes_max: u64,
}

/// Why there is no plan.
#[derive(Debug)]
enum Unplanned {
    Refused(Refused),
    /// 404, 413 or 503.
    Unserved(StatusCode),
    /// To the same place by HTTPS.
    Redirected(HeaderValue),
}

/// Answers one request.
pub(super) async fn handle(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let busy = client.begin();
    let mut response = respond(&client, request).await;
    client.worker.counters.response(response.status());
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let is_last = client.worker.is_draining() || client.finding().is_some();
    if is_last && !client.is_h2() && !upgraded {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().hold(busy);
    Ok(response)
}

async fn respond(client: &Rc<Client>, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    let planned = match client.finding() {
        None => plan(client, &head).and_then(|plan| plan.fits(&body)),
        Some(reason) => Err(Unplanned::Refused(reason)),
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err(unplanned) => {
            if !body.is_end_stream() {
                client.leave_unread();
            }
            return unplanned.answer(client);
        }
    };
    let config = &client.worker.shared.config;
    let edit = Edit {
        origin: &client.origin,
        host: &plan.host,
        policy: config.forwarded_headers,
        underscores: config.underscores_in_headers,
        websocket: plan.websocket.is_some(),
        request_id: rand::random(),
    };
    fields::to_upstream(&mut head.headers, &edit);
    let Some(uri) = origin_form(head.uri, plan.path) else {
        return Unplanned::Refused(Refused::Path).answer(client);
    };
    let mut request = Request::new(RequestBody::new(body, client, plan.body_bytes_max));
    *request.method_mut() = match plan.websocket {
        Some(_) => Method::GET,
        None => head.method,
    };
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    let asked = plan.websocket.map(|websocket| match websocket {
        Websocket::Upgrade => Asked::by_upgrade(on_upgrade),
        Websocket::Connect => Asked::by_connect(on_upgrade, request.headers_mut()),
    });
    let mut response = forward::forward(client, &plan.upstream, request, asked).await;
    if let Some(hsts) = config.hsts.as_ref().filter(|_| plan.secured) {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.value().clone());
    }
    response
}

/// Admission and routing: everything that needs no waiting.
fn plan(client: &Client, head: &Parts) -> Result<Plan, Unplanned> {
    let worker = &client.worker;
    let admitted =
        admission::admit(head, &worker.shared.config.limits).map_err(Unplanned::Refused)?;
    let mut routes = worker.routes.borrow_mut();
    let Some(found) = routes.load().find(&admitted.host, &admitted.path) else {
        return Err(Unplanned::Unserved(StatusCode::NOT_FOUND));
    };
    let redirects = found.redirects(client.tls, &admitted.path);
    let Found { host, route } = found;
    let secured = client.tls && host.tls;
    if redirects && let Some(port) = worker.shared.https_port {
        let location = https_location(&admitted, head.uri.query(), port);
        return Err(location.map_or(Unplanned::Refused(Refused::Path), Unplanned::Redirected));
    }
    let Some(upstream) = &route.upstream else {
        return Err(Unplanned::Unserved(StatusCode::SERVICE_UNAVAILABLE));
    };
    let body_bytes_max = route.body_bytes_max;
    let path = match admitted.path {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path),
    };
    let host = match head.headers.get(HOST) {
        Some(host) => host.clone(),
        None => HeaderValue::from_str(admitted.host_text)
            .map_err(|_| Unplanned::Refused(Refused::HostInvalid))?,
    };
    let (upstream, websocket) = (upstream.clone(), admitted.websocket);
    Ok(Plan { upstream, host, path, websocket, secured, body_bytes_max })
}

impl Plan {
    /// What is announced as too large is not begun with.
    fn fits(self, body: &Incoming) -> Result<Self, Unplanned> {
        if body.size_hint().lower() > self.body_bytes_max {
            return Err(Unplanned::Unserved(StatusCode::PAYLOAD_TOO_LARGE));
        }
        Ok(self)
    }
}

impl Unplanned {
    fn answer(self, client: &Client) -> Response<ResponseBody> {
        match self {
            Self::Refused(reason) => {
                client.worker.counters.refused(reason);
                answer::status(reason.status())
            }
            Self::Unserved(status) => answer::status(status),
            Self::Redirected(location) => answer::redirect(location),
        }
    }
}

fn https_location(admitted: &Admitted<'_>, query: Option<&str>, port: u16) -> Option<HeaderValue> {
    let mut location = format!("https://{}", admitted.host);
    if port != HTTPS_PORT {
        write!(location, ":{port}").ok()?;
    }
    location.push_str(&admitted.path);
    if let Some(query) = query {
        write!(location, "?{query}").ok()?;
    }
    HeaderValue::try_from(location).ok()
}

/// An upstream is asked in origin form whatever form the client used (RFC 9112 3.2.1).
fn origin_form(uri: Uri, path: Option<String>) -> Option<Uri> {
    let Some(mut target) = path else {
        if uri.authority().is_none() {
            return Some(uri);
        }
        return uri.into_parts().path_and_query.map(Uri::from);
    };
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    PathAndQuery::try_from(target).ok().map(Uri::from)
}
