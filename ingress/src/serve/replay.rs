//! A copy of a request that may be sent twice.

use std::{io::Write, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use hyper::body::Body;

use super::{
    body::{Recall, RequestBody},
    buffer::whole::Kept,
};

/// Room of a longer request is not kept.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// The copy. It is made for each request and used for hardly any, so it is bytes in one piece, in
/// room that the next request uses again: a copied map takes and gives back a reference for each
/// name and value.
#[derive(Debug, Default)]
pub(super) struct Replay {
    is_kept: bool,
    method: Method,
    /// The target; names and values, one after the other.
    text: Vec<u8>,
    target_end: usize,
    fields: Vec<Field>,
    body: Again,
}

/// How a body is had once more.
#[derive(Debug, Default)]
enum Again {
    /// It has none.
    #[default]
    Empty,
    Whole(Rc<Kept>),
    /// Unless too much of it is sent by then.
    Going(Recall),
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
    /// Keeps a request, and says whether it may be sent twice: only one whose body, if it has any, was
    /// read whole or is kept as it goes, and only an idempotent one unless `any_method` (nginx: proxy_next_upstream with
    /// non_idempotent).
    pub(super) fn keep(&mut self, request: &Request<RequestBody>, any_method: bool) -> bool {
        let may_repeat = any_method || request.method().is_idempotent();
        self.body = Again::Empty;
        let body = match request.body() {
            _ if !may_repeat => None,
            RequestBody::Read(read) => read.kept().cloned().map(Again::Whole),
            RequestBody::Going(body) => Some(Again::Going(body.recall())),
            body => body.is_end_stream().then_some(Again::Empty),
        };
        self.is_kept = body.is_some();
        if !self.is_kept {
            return false;
        }
        self.body = body.unwrap_or_default();
        self.text.clear();
        self.fields.clear();
        self.method.clone_from(request.method());
        push_target(request.uri(), &mut self.text);
        self.target_end = self.text.len();
        for (name, value) in request.headers() {
            self.text.extend_from_slice(name.as_str().as_bytes());
            let name_end = self.text.len();
            self.text.extend_from_slice(value.as_bytes());
            let (value_end, sensitive) = (self.text.len(), value.is_sensitive());
            self.fields.push(Field { name_end, value_end, sensitive });
        }
        true
    }

    /// The request once more, if it may be; what was valid before is so again.
    pub(super) fn again(&mut self) -> Option<Box<Request<RequestBody>>> {
        if !std::mem::take(&mut self.is_kept) {
            return None;
        }
        let body = match std::mem::take(&mut self.body) {
            Again::Empty => RequestBody::Empty,
            Again::Whole(kept) => kept.into(),
            Again::Going(body) => body.body()?,
        };
        let mut request = Request::new(body);
        *request.uri_mut() = Uri::try_from(self.text.get(..self.target_end)?).ok()?;
        *request.headers_mut() = self.headers()?;
        *request.method_mut() = std::mem::take(&mut self.method);
        Some(Box::new(request))
    }

    /// There will be no request for a while.
    pub(super) fn rest(&mut self) {
        self.is_kept = false;
        self.body = Again::Empty;
        if self.text.capacity() > KEPT_BYTES_MAX {
            *self = Self::default();
        }
    }

    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        let mut start = self.target_end;
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

/// Nearly always path and query alone.
fn push_target(uri: &Uri, text: &mut Vec<u8>) {
    match uri.path_and_query() {
        Some(target) if uri.authority().is_none() => {
            text.extend_from_slice(target.as_str().as_bytes());
        }
        // Writing to a Vec cannot fail.
        _ => _ = write!(text, "{uri}"),
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
    fn the_copy_is_the_request_whatever_was_kept_before() {
        let cases: [&[(&str, &[u8])]; 5] = [
            &[("via", b"1"), ("x-own", b"2"), ("via", b"3")],
            &[],
            &[("host", b"a.example")],
            &[("x-empty", b""), ("x-latin", b"\xe9"), ("host", b"a")],
            &[("via", b"1"), ("x-own", b"2"), ("via", b"3")],
        ];
        let mut replay = Replay::default();
        for uri in ["/a?b=c", "/", "http://b.example/x?y"] {
            for fields in cases {
                let mut sent = request(Method::PUT, fields);
                *sent.uri_mut() = Uri::from_static(uri);
                if let Some(value) = sent.headers_mut().get_mut("x-own") {
                    value.set_sensitive(true);
                }
                assert!(replay.keep(&sent, false));
                let again = replay.again().unwrap();
                assert_eq!(again.method(), sent.method());
                assert_eq!(again.uri(), sent.uri());
                assert_eq!(again.headers(), sent.headers());
                for (name, value) in sent.headers() {
                    assert_eq!(again.headers()[name].is_sensitive(), value.is_sensitive());
                }
                assert!(replay.again().is_none(), "once");
            }
        }
    }

    #[test]
    fn what_may_have_been_acted_on_is_not_kept() {
        let mut replay = Replay::default();
        assert!(replay.again().is_none());
        for method in [Method::POST, Method::PATCH] {
            assert!(replay.keep(&request(method.clone(), &[]), true));
            assert!(!replay.keep(&request(method, &[]), false));
            assert!(replay.again().is_none(), "what was kept before is another request");
        }
    }

    #[test]
    fn room_of_a_long_request_is_given_back() {
        static LONG: [u8; KEPT_BYTES_MAX + 1] = [b'a'; KEPT_BYTES_MAX + 1];
        let mut replay = Replay::default();
        for (value, is_given_back) in [(&b"short"[..], false), (&LONG, true)] {
            assert!(replay.keep(&request(Method::GET, &[("x-own", value)]), false));
            replay.rest();
            assert_eq!(replay.text.capacity() == 0, is_given_back);
            assert!(replay.again().is_none());
        }
    }
}
