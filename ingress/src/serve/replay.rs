//! A copy of a request that may be sent twice.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use hyper::body::Body;

use super::body::RequestBody;

/// A field's name and value with room to spare.
const FIELD_BYTES: usize = 48;

/// The copy. It is made for each request and used for hardly any, so the fields are bytes in one
/// piece: a copied map takes and gives back a reference for each name and value.
#[derive(Debug)]
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    /// Names and values, one after the other.
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Where a field ends in the text.
#[derive(Clone, Copy, Debug)]
struct Field {
    name_end: usize,
    value_end: usize,
    /// Never to be indexed by HPACK (RFC 7541 7.1.3).
    sensitive: bool,
}

impl Replay {
    /// Only requests without a body, and only idempotent ones unless `any_method`
    /// (nginx: proxy_next_upstream with non_idempotent).
    pub(super) fn of(request: &Request<RequestBody>, any_method: bool) -> Option<Self> {
        let may_repeat = any_method || request.method().is_idempotent();
        if !may_repeat || !request.body().is_end_stream() {
            return None;
        }
        let headers = request.headers();
        let mut text = Vec::with_capacity(headers.len() * FIELD_BYTES);
        let mut fields = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            text.extend_from_slice(name.as_str().as_bytes());
            let name_end = text.len();
            text.extend_from_slice(value.as_bytes());
            fields.push(Field { name_end, value_end: text.len(), sensitive: value.is_sensitive() });
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Some(Self { method, uri, text, fields })
    }

    /// The request once more; `None` never happens, for the fields were valid before.
    pub(super) fn into_request(self) -> Option<Request<RequestBody>> {
        let headers = self.headers()?;
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = headers;
        Some(request)
    }

    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        let mut start = 0;
        for field in &self.fields {
            let name = self.text.get(start..field.name_end)?;
            let value = self.text.get(field.name_end..field.value_end)?;
            let mut value = HeaderValue::from_bytes(value).ok()?;
            value.set_sensitive(field.sensitive);
            headers.append(HeaderName::from_bytes(name).ok()?, value);
            start = field.value_end;
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, fields: &[(&'static str, &'static [u8])]) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static("/a?b=c");
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(HeaderName::from_static(name), value);
        }
        request
    }

    #[test]
    fn the_copy_is_the_request() {
        let cases: [&[(&str, &[u8])]; 4] = [
            &[],
            &[("host", b"a.example")],
            &[("x-empty", b""), ("x-latin", b"\xe9"), ("host", b"a")],
            &[("via", b"1"), ("x-own", b"2"), ("via", b"3")],
        ];
        for fields in cases {
            let mut sent = request(Method::PUT, fields);
            if let Some(value) = sent.headers_mut().get_mut("x-own") {
                value.set_sensitive(true);
            }
            let again = Replay::of(&sent, false).unwrap().into_request().unwrap();
            assert_eq!(again.method(), sent.method());
            assert_eq!(again.uri(), sent.uri());
            assert_eq!(again.headers(), sent.headers());
            for (name, value) in sent.headers() {
                assert_eq!(again.headers()[name].is_sensitive(), value.is_sensitive());
            }
        }
    }

    #[test]
    fn what_may_have_been_acted_on_is_not_copied() {
        for method in [Method::POST, Method::PATCH] {
            assert!(Replay::of(&request(method.clone(), &[]), false).is_none());
            assert!(Replay::of(&request(method, &[]), true).is_some());
        }
    }
}
