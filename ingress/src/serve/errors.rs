//! A Service answers instead of endpoints that cannot, or answer with an error
//! (ingress-nginx: default-backend, custom-http-errors).

use std::rc::Rc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, WWW_AUTHENTICATE},
    request::Parts,
};

use super::{
    auth,
    body::{RequestBody, ResponseBody},
    client::Client,
    fields::{self, own},
    forward::{self, Errand},
    gates,
    plan::Plan,
    scope::Scope,
};
use crate::routes::{Errors, Extra, Route, Upstream};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

/// Who answers a status instead, and what.
#[derive(Debug)]
pub(super) struct Instead<'a> {
    errors: &'a Errors,
    upstream: &'a Upstream,
    /// The request as it came.
    pub(super) head: Parts,
}

/// What a Service is told of a request that it answers instead of another one, whatever the client says by
/// these names.
pub(super) fn about(
    scope: &Scope<'_>,
    status: StatusCode,
) -> [(HeaderName, Option<HeaderValue>); 6] {
    let text = |text: &str| HeaderValue::from_str(text).ok();
    let ingress = &scope.route.ingress;
    let asked = scope.route.upstream.as_ref().map(|upstream| upstream.key());
    [
        ("x-code", Some(HeaderValue::from(status.as_u16()))),
        ("x-format", fields::joined(&scope.head.headers, &ACCEPT)),
        ("x-namespace", text(&ingress.namespace)),
        ("x-ingress-name", text(&ingress.name)),
        ("x-service-name", asked.and_then(|key| text(&key.service.name))),
        ("x-service-port", asked.and_then(|key| text(&key.port_text()))),
    ]
    .map(|(name, value)| (HeaderName::from_static(name), value))
}

impl<'a> Instead<'a> {
    /// `None`: errors are answered as they are.
    pub(super) fn of(route: &'a Route, head: &Parts) -> Option<Self> {
        let errors = route.policy.extra.as_ref()?.errors.as_ref();
        let errors = errors.filter(|errors| errors.replaces_any())?;
        // ingress-nginx: a backend without endpoints is none, and whatever it would say hides the error.
        let upstream = route.fallback.as_deref().filter(|upstream| upstream.has_endpoints())?;
        Some(Self { errors, upstream, head: head.clone() })
    }

    pub(super) fn replaces(&self, response: &Response<ResponseBody>) -> bool {
        self.errors.replaces(response.status(), !response.body().is_ours())
    }

    /// The Service's answer in place of an error. `scope`: of the request as it came.
    pub(super) async fn answer(
        &self,
        client: &Rc<Client>,
        extra: &Extra,
        plan: &Plan<'_>,
        scope: &Scope<'_>,
        response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        let status = response.status();
        let of_endpoint = !response.body().is_ours();
        let challenges = challenges(&response);
        drop(response);
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = scope.method();
        *request.uri_mut() = root(scope.head.uri.query());
        *request.headers_mut() = headers(extra, plan, scope, status);
        let errand = Errand::to(self.upstream, &plan.route.policy);
        let mut answer = forward::forward(client, &errand, Box::new(request), None).await;
        // CVE-2026-24513: whatever the page says, who was kept out stays out.
        if !of_endpoint && [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
            *answer.status_mut() = status;
        }
        for challenge in challenges {
            answer.headers_mut().append(WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

/// ingress-nginx: `rewrite (.*) / break`, which keeps the query.
fn root(query: Option<&str>) -> Uri {
    let with_query = query.and_then(|query| Uri::try_from(format!("/?{query}")).ok());
    with_query.unwrap_or_else(|| Uri::from_static("/"))
}

/// The client's, as an endpoint is sent them, but for those that whoever guards the route says or reads.
fn headers(extra: &Extra, plan: &Plan<'_>, scope: &Scope<'_>, status: StatusCode) -> HeaderMap {
    let is_asked = auth::is_asked(extra, &scope.route.path);
    let guarded = auth::named(extra, is_asked);
    let mut headers = scope.fields_beside(&plan.host, None, &guarded);
    fields::overrule(&mut headers, scope.identity);
    fields::overrule(&mut headers, &about(scope, status));
    // ingress-nginx: $remote_addr alone.
    let address = gates::address(scope.client, &scope.head.headers).to_string();
    let told = [(&X_FORWARDED_FOR, address), (&X_ORIGINAL_URI, scope.request_uri())];
    for (name, text) in told {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    headers
}

/// nginx: whatever page is shown, a client must be able to ask for a password (RFC 9110 15.5.2).
fn challenges(response: &Response<ResponseBody>) -> Vec<HeaderValue> {
    let all = response.headers().get_all(WWW_AUTHENTICATE).iter();
    all.filter(|_| response.status() == StatusCode::UNAUTHORIZED).map(own).collect()
}
