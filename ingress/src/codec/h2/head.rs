//! What a request's fields must be to be a request (RFC 9113 8.2, 8.3).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{COOKIE, HOST},
    uri::{Authority, Parts, PathAndQuery, Scheme},
};

use super::hpack::{Field, Sink, Unread};

/// More fields than whoever looks at them next lets pass are not kept. Crumbs of a cookie are one.
const FIELDS_KEPT_MAX: usize = 101;
/// So far above the limit nobody reads on.
pub(super) const TOO_MUCH: usize = 4;

/// What an extended CONNECT wants (RFC 8441); among the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Protocol(HeaderValue);

impl Protocol {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// There were more fields than are read: this is what is left of the request, for whoever refuses
/// others. Among its extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oversized;

/// The fields of one block.
#[derive(Debug)]
pub(super) struct Fields {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    protocol: Option<HeaderValue>,
    headers: HeaderMap,
    /// Of them, but for crumbs of a cookie.
    kept: usize,
    length: Option<u64>,
    bytes: usize,
    bytes_max: usize,
    malformed: bool,
    /// A field that is not pseudo was there.
    regular: bool,
}

/// These fields are no request's head, or no trailers (RFC 9113 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A request's head, and how long its body is if it says so.
pub(super) type Head = (Request<()>, Option<u64>);

impl Fields {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            headers: HeaderMap::new(),
            kept: 0,
            length: None,
            bytes: 0,
            bytes_max,
            malformed: false,
            regular: false,
        }
    }

    fn is_too_large(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// The request they are; `ends` if nothing follows its head.
    pub(super) fn into_request(mut self, ends: bool) -> Result<Head, Malformed> {
        let length = self.length;
        // RFC 9113 8.1.1.
        let is_short = ends && length.is_some_and(|length| length > 0);
        if self.malformed || is_short {
            return Err(Malformed);
        }
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        if self.is_too_large() {
            request.extensions_mut().insert(Oversized);
        }
        *request.headers_mut() = std::mem::take(&mut self.headers);
        if let Some(protocol) = self.protocol.take() {
            // RFC 8441 4: of CONNECT only, and then it has all others, too.
            if self.method != Some(Method::CONNECT) {
                return Err(Malformed);
            }
            request.extensions_mut().insert(Protocol(protocol));
        } else if self.method == Some(Method::CONNECT) {
            return self.into_connect(request);
        }
        let (Some(method), Some(scheme), Some(path)) = (self.method, self.scheme, self.path) else {
            return Err(Malformed);
        };
        *request.method_mut() = method;
        let mut parts = Parts::default();
        // There is no URI of a scheme without an authority.
        parts.scheme = self.authority.is_some().then_some(scheme);
        parts.authority = self.authority;
        parts.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed)?;
        Ok((request, length))
    }

    /// RFC 9113 8.5: an authority, and nothing else.
    fn into_connect(self, mut request: Request<()>) -> Result<Head, Malformed> {
        let authority = self.authority.ok_or(Malformed)?;
        if self.scheme.is_some() || self.path.is_some() {
            return Err(Malformed);
        }
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::from(authority);
        Ok((request, self.length))
    }

    /// Fields behind a body: no pseudo fields, nor what would frame or route the request if somebody took
    /// it for a part of the head (RFC 9110 6.5.1).
    pub(super) fn into_trailers(self) -> Result<HeaderMap, Malformed> {
        let pseudo = self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some();
        let heads = self.length.is_some() || self.headers.contains_key(HOST);
        let is_malformed = self.malformed || pseudo || heads || self.is_too_large();
        if is_malformed { Err(Malformed) } else { Ok(self.headers) }
    }

    fn pseudo<T: Clone>(&mut self, value: &T, place: impl Fn(&mut Self) -> &mut Option<T>) {
        // RFC 9113 8.3: before all others, and once.
        self.malformed |= self.regular;
        let is_second = place(self).replace(value.clone()).is_some();
        self.malformed |= is_second;
    }

    fn regular(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.regular = true;
        match name.as_str() {
            // RFC 9113 8.2.2: what is a connection's in HTTP/1.
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {
                self.malformed = true;
            }
            "te" => self.malformed |= value != "trailers",
            "content-length" => self.length(value),
            _ => {}
        }
        let is_crumb = name == COOKIE;
        let has_room = is_crumb || self.kept < FIELDS_KEPT_MAX;
        if !self.malformed && !self.is_too_large() && has_room {
            self.kept += usize::from(!is_crumb);
            // Fails above some thousand.
            self.malformed |= self.headers.try_append(name, value.clone()).is_err();
        }
    }

    fn length(&mut self, value: &HeaderValue) {
        let is_digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let length = value.to_str().ok().filter(is_digits).and_then(|text| text.parse().ok());
        // The same twice is for others to judge.
        let differs = self.length.is_some() && self.length != length;
        self.malformed |= length.is_none() || differs;
        self.length = length;
    }
}

impl Sink for Fields {
    fn take(&mut self, field: &Field, bytes: usize) -> Result<(), Unread> {
        self.bytes += bytes;
        if self.bytes > self.bytes_max.saturating_mul(TOO_MUCH) {
            return Err(Unread::TooMuch);
        }
        match field {
            Field::Method(value) => self.pseudo(value, |all| &mut all.method),
            Field::Scheme(value) => self.pseudo(value, |all| &mut all.scheme),
            Field::Authority(value) => self.pseudo(value, |all| &mut all.authority),
            Field::Path(value) => self.pseudo(value, |all| &mut all.path),
            Field::Protocol(value) => self.pseudo(value, |all| &mut all.protocol),
            Field::Regular(name, value) => self.regular(name, value),
            Field::Malformed(_) => self.malformed = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::h2::hpack::Decoder;

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/a?b")];

    fn fields(all: &[(&str, &str)], bytes_max: usize) -> Result<Fields, Unread> {
        let mut block = Vec::new();
        for (name, value) in all {
            for (prefix, text) in [(&[0][..], name), (&[], value)] {
                block.extend_from_slice(prefix);
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let mut fields = Fields::new(bytes_max);
        Decoder::new().decode(&block, &mut fields).map(|()| fields)
    }

    fn request(all: &[(&str, &str)], ends: bool) -> Result<Head, Malformed> {
        fields(all, 1 << 14).unwrap().into_request(ends)
    }

    #[test]
    fn a_request_is_what_its_fields_say() {
        let more = [&GET[..], &[("x-own", "1"), ("te", "trailers"), ("x-own", "2")]].concat();
        let (request, length) = request(&more, true).unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "http://a.example/a?b");
        assert_eq!(request.version(), Version::HTTP_2);
        let own: Vec<_> = request.headers().get_all("x-own").iter().collect();
        assert_eq!(own, ["1", "2"]);
        assert_eq!(length, None);
    }

    #[test]
    fn a_body_is_announced_by_one_number() {
        for (lengths, ends, expected) in [
            (&["5"][..], false, Ok(Some(5))),
            (&["5", "5"], false, Ok(Some(5))),
            (&["0"], true, Ok(Some(0))),
            (&["5"], true, Err(Malformed)),
            (&["5", "6"], false, Err(Malformed)),
            (&["5", "x", "5"], false, Err(Malformed)),
            (&["+5"], false, Err(Malformed)),
            (&["5, 5"], false, Err(Malformed)),
            (&[""], false, Err(Malformed)),
            (&["18446744073709551616"], false, Err(Malformed)),
        ] {
            let lengths = lengths.iter().map(|length| ("content-length", *length));
            let all: Vec<_> = GET.into_iter().chain(lengths).collect();
            assert_eq!(request(&all, ends).map(|(_, length)| length), expected, "{all:?}");
        }
    }

    #[test]
    fn connect_has_an_authority_only_unless_it_is_extended() {
        let connect = |more: &[(&'static str, &'static str)]| {
            let all = [&[(":method", "CONNECT"), (":authority", "a.example:1")], more].concat();
            request(&all, false).map(|(request, _)| request)
        };
        assert_eq!(connect(&[]).unwrap().uri(), "a.example:1");
        let rest = [(":scheme", "https"), (":path", "/chat")];
        assert!(connect(&rest).is_err());
        let extended = [&[(":protocol", "websocket")][..], &rest].concat();
        let request = connect(&extended).unwrap();
        assert_eq!(request.uri(), "https://a.example:1/chat");
        let protocol = request.extensions().get::<Protocol>().unwrap();
        assert_eq!(protocol.as_bytes(), b"websocket");
        assert!(connect(&extended[..2]).is_err(), "no path");
    }

    #[test]
    fn too_large_is_said_and_far_too_large_is_not_read() {
        let bytes = |count: usize| GET.into_iter().chain(std::iter::repeat_n(("x-a", "b"), count));
        let all = |count| bytes(count).collect::<Vec<_>>();
        // The usual four have 42, 43, 51 and 41 bytes, each other 36.
        for (count, expected) in [
            (0, Ok((false, 0))),
            (3, Ok((false, 3))),
            (4, Ok((true, 3))),
            (26, Ok((true, 3))),
            (27, Err(Unread::TooMuch)),
        ] {
            let outcome = fields(&all(count), 177 + 3 * 36).map(|fields| {
                let (request, _) = fields.into_request(true).unwrap();
                // Whoever writes a line of it knows what was asked for.
                assert_eq!(request.uri(), "http://a.example/a?b", "{count}");
                let is_oversized = request.extensions().get::<Oversized>().is_some();
                (is_oversized, request.headers().len())
            });
            assert_eq!(outcome, expected, "{count}");
        }
        // One more than may be is kept, so that somebody sees that it is one too many.
        let many = fields(&all(300), 1 << 14).unwrap().into_request(true).unwrap();
        assert_eq!(many.0.headers().len(), FIELDS_KEPT_MAX);
        let crumbs = std::iter::repeat_n(("cookie", "a=b"), 200);
        let crumbs: Vec<_> = bytes(FIELDS_KEPT_MAX).chain(crumbs).collect();
        let many = fields(&crumbs, 1 << 14).unwrap().into_request(true).unwrap();
        assert_eq!(many.0.headers().len(), FIELDS_KEPT_MAX + 200);
    }

    #[test]
    fn trailers_have_no_pseudo_fields_and_nothing_of_a_head() {
        let trailers = |all: &[(&str, &str)]| fields(all, 1 << 14).unwrap().into_trailers();
        assert_eq!(trailers(&[("x-sum", "1")]).unwrap()["x-sum"], "1");
        let many = vec![("x-sum", "1"); (1 << 14) / 38 + 1];
        assert_eq!(trailers(&many).map(drop), Err(Malformed), "too many");
        let of_heads =
            [("content-length", "0"), ("host", "a.example"), ("transfer-encoding", "chunked")];
        for field in GET.into_iter().chain(of_heads) {
            assert_eq!(trailers(&[field]).map(drop), Err(Malformed), "{field:?}");
        }
    }
}
