//! A Service answers instead of endpoints that cannot, or answer with an error
//! (ingress-nginx: default-backend, custom-http-errors).

use std::rc::Rc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, HOST, WWW_AUTHENTICATE},
};

use super::{
    body::{RequestBody, ResponseBody},
    client::Client,
    fields::{self, own},
    forward::{self, Errand},
    scope::Scope,
};
use crate::routes::{Errors, Route, Upstream};

static X_CODE: HeaderName = HeaderName::from_static("x-code");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What the Service is told of the request that went wrong.
#[derive(Debug)]
pub(super) struct Case {
    method: Method,
    original_uri: Option<HeaderValue>,
    fields: HeaderMap,
}

/// Who answers a status instead, and how.
#[derive(Debug)]
pub(super) struct Instead<'a> {
    errors: &'a Errors,
    upstream: &'a Upstream,
    case: Case,
}

impl Case {
    fn of(scope: &Scope<'_>, host: &HeaderValue) -> Self {
        let mut fields = HeaderMap::new();
        let headers = &scope.head.headers;
        if let Some(accept) = headers.get(ACCEPT) {
            fields.insert(HeaderName::from_static("x-format"), accept.clone());
        }
        let route = scope.route;
        let mut insert = |name: &'static str, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                fields.insert(HeaderName::from_static(name), value);
            }
        };
        insert("x-namespace", &route.ingress.namespace);
        insert("x-ingress-name", &route.ingress.name);
        if let Some(upstream) = &route.upstream {
            insert("x-service-name", &upstream.key().service.name);
            insert("x-service-port", &upstream.key().port_text());
        }
        fields.insert(
            HeaderName::from_static("x-request-id"),
            fields::request_id(headers, scope.request_id),
        );
        fields.insert(&X_FORWARDED_FOR, scope.client.origin.client.clone());
        fields.insert(HOST, host.clone());
        let original_uri = HeaderValue::try_from(scope.request_uri()).ok();
        Self { method: scope.method(), original_uri, fields }
    }

    /// What a Service is told that stands in for one without endpoints.
    pub(super) fn without_endpoints(scope: &Scope<'_>, host: &HeaderValue) -> HeaderMap {
        let mut fields = Self::of(scope, host).fields;
        fields.remove(HOST);
        fields.remove(&X_FORWARDED_FOR);
        fields.insert(&X_CODE, HeaderValue::from_static("503"));
        fields
    }
}

impl<'a> Instead<'a> {
    /// `None`: errors are answered as they are.
    pub(super) fn of(route: &'a Route, scope: &Scope<'_>, host: &HeaderValue) -> Option<Self> {
        let errors = route.policy.extra.as_ref()?.errors.as_ref()?;
        let upstream = route.fallback.as_deref()?;
        Some(Self { errors, upstream, case: Case::of(scope, host) })
    }

    /// The Service's answer in place of an error.
    pub(super) async fn answer(
        self,
        client: &Rc<Client>,
        route: &Route,
        response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        let status = response.status();
        let of_endpoint = !response.body().is_ours();
        if !self.errors.replaces(status, of_endpoint) {
            return response;
        }
        let challenges = challenges(&response);
        drop(response);
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.case.method;
        *request.uri_mut() = Uri::from_static("/");
        *request.headers_mut() = self.case.fields;
        let headers = request.headers_mut();
        headers.insert(&X_CODE, HeaderValue::from(status.as_u16()));
        if let Some(uri) = self.case.original_uri {
            headers.insert(HeaderName::from_static("x-original-uri"), uri);
        }
        let errand = Errand::to(self.upstream, &route.policy);
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

/// nginx: whatever page is shown, a client must be able to ask for a password (RFC 9110 15.5.2).
fn challenges(response: &Response<ResponseBody>) -> Vec<HeaderValue> {
    let all = response.headers().get_all(WWW_AUTHENTICATE).iter();
    all.filter(|_| response.status() == StatusCode::UNAUTHORIZED).map(own).collect()
}
