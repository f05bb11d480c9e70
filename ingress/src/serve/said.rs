//! What a route says on each of its answers, whoever gives it: in nginx.tmpl the fields are the location's,
//! and its own redirects and preflights bear them as endpoints' answers do.

use http::{HeaderName, HeaderValue, Response};

use super::{body::ResponseBody, scope::Scope};
use crate::{
    record::Record,
    routes::{Extra, InForce, Told, Variable},
};

/// The fields, as they were made when the request was there.
pub(super) struct Said<'a> {
    extra: &'a Extra,
    /// The other site whose page asks, and may.
    origin: Option<HeaderValue>,
    /// A snippet's.
    told: Told,
    /// A ConfigMap's (custom-headers).
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl<'a> Said<'a> {
    pub(super) fn of(scope: &Scope<'_>, extra: &'a Extra, snippet: &InForce<'_>) -> Self {
        let look = |variable: &Variable, out: &mut String| scope.write(variable, out);
        Self {
            extra,
            origin: extra.cors.as_ref().and_then(|cors| cors.allows(&scope.head.headers)),
            told: snippet.told(&look),
            fields: extra.told.iter().filter_map(|field| scope.field(field)).collect(),
        }
    }

    pub(super) fn apply(self, record: &Record, response: &mut Response<ResponseBody>) {
        let status = response.status();
        let headers = response.headers_mut();
        if let (Some(cors), Some(origin)) = (&self.extra.cors, &self.origin) {
            cors.set_fields(headers, origin);
        }
        // ingress-nginx's Lua sets it before headers-more has the last word.
        record.secure(headers);
        self.told.apply(status, headers);
        // nginx.tmpl: CustomHeaders stand behind the snippets, and the last of more_set_headers holds.
        for (name, value) in self.fields {
            headers.insert(name, value);
        }
    }
}
