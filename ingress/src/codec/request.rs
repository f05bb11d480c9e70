//! A request as it is written (RFC 9112 3, 6, 7.1).

use std::io::Write;

use http::{
    HeaderMap, HeaderName, Method, Uri,
    header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING},
    uri::PathAndQuery,
};
use hyper::body::Body;

use super::may_trail;
use crate::admission::names;

/// The end of a chunked body, if there are no trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a request's body is sent.
#[derive(Debug, Default)]
pub(crate) enum Coding {
    /// There is none.
    #[default]
    Empty,
    /// So many bytes, as they are.
    Length(u64),
    /// In chunks.
    Chunked,
}

impl Coding {
    /// The body decides, whatever the fields say of it.
    pub(crate) fn of<B: Body>(body: &B) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Length)
    }
}

/// Trailers that may be sent behind a body: no others were announced. What was set or checked in the
/// head has no second value.
pub(crate) fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let is_sent = |name: &HeaderName| {
        may_trail(name) && !name.as_str().contains('_') && !headers.contains_key(name)
    };
    names(headers, TRAILER).filter_map(|name| name.parse().ok()).filter(is_sent).collect()
}

/// Writes request line and fields, in origin form (RFC 9112 3.2.1). What tells how long the body is
/// comes from the coding alone.
pub(crate) fn write_head(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    coding: &Coding,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if !target.starts_with(['/', '*']) {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        if name == TRANSFER_ENCODING || name == CONTENT_LENGTH {
            continue;
        }
        write_field(name, value.as_bytes(), out);
    }
    // Writing to a Vec cannot fail.
    match coding {
        // A POST may say that it has no body.
        Coding::Empty => {
            if headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0") {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
        }
        Coding::Length(length) => _ = write!(out, "content-length: {length}\r\n"),
        Coding::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes what stands before a chunk; CRLF stands behind it. A chunk of no bytes would be the last.
pub(crate) fn begin_chunk(bytes: usize, out: &mut Vec<u8>) {
    _ = write!(out, "{bytes:x}\r\n");
}

/// Writes the last chunk, and trailers behind it.
pub(crate) fn end_chunks(trailers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        write_field(name, value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_field(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;
    use http_body_util::{Empty, Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn written(method: &Method, uri: &'static str, headers: &HeaderMap, coding: &Coding) -> String {
        let mut out = Vec::new();
        write_head(method, &Uri::from_static(uri), headers, coding, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_body_says_how_long_it_is_whatever_the_fields_say() {
        for (coding, fields, expected) in [
            (Coding::Empty, &[][..], ""),
            (Coding::Empty, &[("content-length", "0")], "content-length: 0\r\n"),
            (Coding::Empty, &[("content-length", "5")], ""),
            (Coding::Empty, &[("transfer-encoding", "chunked")], ""),
            (Coding::Length(3), &[("content-length", "5")], "content-length: 3\r\n"),
            (Coding::Chunked, &[("content-length", "5")], "transfer-encoding: chunked\r\n"),
            (Coding::Chunked, &[("transfer-encoding", "gzip")], "transfer-encoding: chunked\r\n"),
        ] {
            let head = written(&Method::POST, "/", &map(fields), &coding);
            assert_eq!(head, format!("POST / HTTP/1.1\r\n{expected}\r\n"), "{coding:?}");
        }
    }

    #[test]
    fn targets_are_in_origin_form() {
        for (uri, expected) in [
            ("/a?b=c", "/a?b=c"),
            ("http://b.example/x?y", "/x?y"),
            ("http://b.example", "/"),
            ("http://b.example?y", "/?y"),
            ("*", "*"),
        ] {
            let head = written(&Method::GET, uri, &HeaderMap::new(), &Coding::Empty);
            assert_eq!(head, format!("GET {expected} HTTP/1.1\r\n\r\n"));
        }
    }

    #[test]
    fn fields_are_written_each_on_its_line_in_their_order() {
        let headers = map(&[("host", "a.example"), ("via", "1"), ("x-empty", ""), ("via", "2")]);
        let head = written(&Method::GET, "/", &headers, &Coding::Empty);
        let expected = "GET / HTTP/1.1\r\nhost: a.example\r\nvia: 1\r\nvia: 2\r\nx-empty: \r\n\r\n";
        assert_eq!(head, expected);
    }

    #[test]
    fn the_coding_is_what_the_body_allows() {
        assert!(matches!(Coding::of(&Empty::<Bytes>::new()), Coding::Empty));
        let full = Full::new(Bytes::from_static(b"abc"));
        assert!(matches!(Coding::of(&full), Coding::Length(3)));
        let stream = futures::stream::empty::<Result<Frame<Bytes>, std::io::Error>>();
        assert!(matches!(Coding::of(&StreamBody::new(stream)), Coding::Chunked));
    }

    #[test]
    fn trailers_are_announced_by_name() {
        let headers = map(&[("trailer", "x-sum, bad name, X-More"), ("trailer", "etag")]);
        assert_eq!(announced(&headers), ["x-sum", "x-more", "etag"]);
        assert!(announced(&HeaderMap::new()).is_empty());
    }

    #[test]
    fn attack_trailers_say_nothing_that_is_looked_at_in_heads() {
        for name in [
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Host",
            "Authorization",
            "Cookie",
            "Forwarded",
            "X-Request-ID",
            "X_Real_IP",
            // The head has it.
            "X-Real-IP",
        ] {
            let mut headers = map(&[("x-real-ip", "192.0.2.7")]);
            let names = HeaderValue::try_from(format!("x-sum, {name}")).unwrap();
            headers.insert(TRAILER, names);
            assert_eq!(announced(&headers), ["x-sum"], "{name}");
        }
    }

    #[test]
    fn chunks_end_with_the_trailers() {
        let mut out = Vec::new();
        begin_chunk(26, &mut out);
        end_chunks(&map(&[("x-sum", "1"), ("etag", "2")]), &mut out);
        assert_eq!(out, b"1a\r\n0\r\nx-sum: 1\r\netag: 2\r\n\r\n");
        out.clear();
        end_chunks(&HeaderMap::new(), &mut out);
        assert_eq!(out, LAST_CHUNK);
    }
}
