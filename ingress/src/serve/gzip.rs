//! Answers made smaller on their way to whoever takes them so (nginx: gzip; RFC 9110 8.4, 12.5.3).

use std::{
    cell::Cell,
    io::{self, Write},
    task::{Context, Poll},
};

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
        CONTENT_TYPE, ETAG, TRAILER, VARY,
    },
    request::Parts,
};
use hyper::body::Frame;

use super::body::{BodyError, ResponseBody, Source};
use crate::{admission::names, config::Compression};

/// A piece goes out when it is as large, or when nothing more comes for now.
const PIECE_BYTES: usize = 16 << 10;
/// Others are served by this thread, too: of what becomes nearly nothing a piece may take megabytes.
const TAKEN_BYTES_MAX: usize = 64 << 10;
/// Of a thread, at once: each holds about 266 KB for as long as its client takes for the answer, and a
/// client of HTTP/2 has many answers. Those above it are sent as they are.
const AT_WORK_MAX: usize = 256;
/// nginx takes it without being told.
const HTML: &str = "text/html";
/// Sums of the bytes as they are (RFC 9530, RFC 3230): of others they would be wrong.
static SUMS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

thread_local! {
    /// Answers that are being compressed.
    static AT_WORK: Cell<usize> = const { Cell::new(0) };
}

/// One of those at work.
#[derive(Debug)]
struct Place;

/// A body and what becomes of it.
#[derive(Debug)]
pub(super) struct Gzipped {
    _place: Place,
    source: Source,
    encoder: GzEncoder<Vec<u8>>,
    /// The encoder holds back what the client could have.
    holds: bool,
    ended: bool,
    trailers: Option<HeaderMap>,
}

/// How a client takes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    AsItIs,
    ByGzip,
    /// Its fields as if it were by gzip (RFC 9110 9.3.2): there is no body.
    Head,
}

impl Taken {
    /// nginx: gzip_http_version 1.1. What follows a CONNECT's answer is a tunnel.
    pub(super) fn by(head: &Parts) -> Self {
        let is_taken = head.version >= Version::HTTP_11
            && head.method != Method::CONNECT
            && names(&head.headers, ACCEPT_ENCODING).any(names_gzip);
        match is_taken {
            false => Self::AsItIs,
            true if head.method == Method::HEAD => Self::Head,
            true => Self::ByGzip,
        }
    }
}

/// `gzip`, perhaps with a weight that is not 0.
fn names_gzip(coding: &str) -> bool {
    let mut parts = coding.split(';').map(str::trim);
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && !parts.any(is_never)
}

fn is_never(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.is_some_and(|weight| weight.bytes().all(|b| matches!(b, b'0' | b'.')))
}

/// Compresses an answer that is worth it, if it is taken so; false: there was no room for one more. Who
/// keeps answers is told in any case (gzip_vary).
pub(super) fn apply(
    how: &Compression,
    taken: Taken,
    response: &mut Response<ResponseBody>,
) -> bool {
    if !is_worth(how, response.status(), response.headers()) {
        return true;
    }
    let headers = response.headers_mut();
    if !names(headers, VARY).any(|name| name.eq_ignore_ascii_case("accept-encoding")) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if taken == Taken::AsItIs {
        return true;
    }
    if taken == Taken::ByGzip && AT_WORK.get() >= AT_WORK_MAX {
        return false;
    }
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    weaken(headers);
    if taken == Taken::ByGzip {
        response.body_mut().gzip(how.level);
    }
    true
}

fn is_worth(how: &Compression, status: StatusCode, headers: &HeaderMap) -> bool {
    let is_usual = matches!(status, StatusCode::OK | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
    if !is_usual || headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let is_short = length.is_some_and(|length: u64| length < how.length_min);
    let is_kept = names(headers, CACHE_CONTROL).any(|d| d.eq_ignore_ascii_case("no-transform"));
    let announces =
        |sum: &HeaderName| names(headers, TRAILER).any(|n| n.eq_ignore_ascii_case(sum.as_str()));
    let is_summed = SUMS.iter().any(|sum| headers.contains_key(sum) || announces(sum));
    !is_short
        && !is_kept
        && !is_summed
        && headers.get(CONTENT_TYPE).is_some_and(|kind| has(how, kind))
}

fn has(how: &Compression, kind: &HeaderValue) -> bool {
    let Ok(kind) = kind.to_str() else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is = |own: &str| own == "*" || own.eq_ignore_ascii_case(kind);
    is(HTML) || how.types.iter().any(|own| is(own))
}

/// The bytes are others now (RFC 9110 8.8.1). As by nginx, what is no tag goes: it would be compared
/// byte by byte.
fn weaken(headers: &mut HeaderMap) {
    let weak = match headers.get(ETAG).map(HeaderValue::as_bytes) {
        None | Some([b'W', b'/', ..]) => return,
        Some(tag @ [b'"', ..]) => HeaderValue::from_bytes(&[&b"W/"[..], tag].concat()).ok(),
        Some(_) => None,
    };
    match weak {
        Some(weak) => _ = headers.insert(ETAG, weak),
        None => _ = headers.remove(ETAG),
    }
}

/// Trailers that nobody announced may be sums, too.
fn without_sums(mut trailers: HeaderMap) -> Option<HeaderMap> {
    for name in &SUMS {
        trailers.remove(name);
    }
    Some(trailers).filter(|trailers| !trailers.is_empty())
}

impl Place {
    fn take() -> Self {
        AT_WORK.set(AT_WORK.get() + 1);
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        AT_WORK.set(AT_WORK.get() - 1);
    }
}

impl Gzipped {
    pub(super) fn new(source: Source, level: u32) -> Self {
        let encoder = GzEncoder::new(Vec::new(), Level::new(level));
        let _place = Place::take();
        Self { _place, source, encoder, holds: false, ended: false, trailers: None }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn is_over(&self) -> bool {
        self.ended && self.trailers.is_none()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut taken = 0;
        while !self.ended {
            if taken >= TAKEN_BYTES_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let made = match self.source.poll(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        taken += data.len();
                        self.push(&data)
                    }
                    Err(last) => {
                        self.trailers = last.into_trailers().ok().and_then(without_sums);
                        self.end()
                    }
                },
                Poll::Ready(None) => self.end(),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Pending if self.holds => {
                    self.source.pause();
                    self.flush()
                }
                Poll::Pending => return Poll::Pending,
            };
            match made {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Compression(error)))),
            }
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn push(&mut self, data: &[u8]) -> io::Result<Option<Bytes>> {
        self.encoder.write_all(data)?;
        self.holds = true;
        let is_much = self.encoder.get_ref().len() >= PIECE_BYTES;
        Ok(is_much.then(|| self.take()))
    }

    /// What was pushed so far can be read by the client.
    fn flush(&mut self) -> io::Result<Option<Bytes>> {
        self.encoder.flush()?;
        self.holds = false;
        Ok(Some(self.take()))
    }

    fn end(&mut self) -> io::Result<Option<Bytes>> {
        self.ended = true;
        self.encoder.try_finish()?;
        Ok(Some(self.take()))
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.encoder.get_mut()).into()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::Full;

    use super::*;

    #[test]
    fn attack_what_becomes_nearly_nothing_does_not_keep_a_thread_for_itself() {
        for (bytes, expected) in [
            (1_000, &[true][..]),
            (TAKEN_BYTES_MAX - 1, &[true]),
            (TAKEN_BYTES_MAX, &[false, true]),
            (8 * TAKEN_BYTES_MAX, &[false, true]),
        ] {
            let source = Source::Ours(Full::new(Bytes::from(vec![b'x'; bytes])));
            let mut body = Gzipped::new(source, 1);
            for is_ready in expected {
                let polled = body.poll(&mut Context::from_waker(Waker::noop()));
                assert_eq!(polled.is_ready(), *is_ready, "{bytes}");
            }
            assert!(body.is_over(), "{bytes}");
        }
    }

    #[test]
    fn attack_answers_nobody_takes_hold_room_for_so_many_and_others_come_as_they_are() {
        let how = Compression::default();
        let come = |taken| {
            let mut response = Response::new(ResponseBody::own("x".repeat(1_000)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            let had_room = apply(&how, taken, &mut response);
            assert_eq!(response.headers()[VARY], "Accept-Encoding");
            (had_room, response.headers().contains_key(CONTENT_ENCODING), response)
        };
        let mut held = Vec::new();
        for _ in 0..AT_WORK_MAX {
            let (had_room, is_smaller, response) = come(Taken::ByGzip);
            assert!(had_room && is_smaller);
            held.push(response);
        }
        let (had_room, is_smaller, response) = come(Taken::ByGzip);
        assert!(!had_room && !is_smaller);
        assert_eq!(hyper::body::Body::size_hint(response.body()).exact(), Some(1_000));
        // What has no body needs no room.
        assert!(matches!(come(Taken::Head), (true, true, _)));
        assert!(matches!(come(Taken::AsItIs), (true, false, _)));
        held.pop();
        assert!(matches!(come(Taken::ByGzip), (true, true, _)));
    }

    #[test]
    fn gzip_is_taken_if_it_is_named_and_not_ruled_out() {
        for (text, expected) in [
            ("gzip", true),
            ("GZIP", true),
            ("br, gzip;q=0.5", true),
            ("gzip;q=1.0, identity", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("br", false),
            ("*", false),
            ("xgzip", false),
            ("", false),
        ] {
            let request = http::Request::builder().header(ACCEPT_ENCODING, text);
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(Taken::by(&head) == Taken::ByGzip, expected, "{text}");
        }
    }

    #[test]
    fn how_an_answer_is_taken_depends_on_method_and_version() {
        for (method, version, expected) in [
            (Method::POST, Version::HTTP_11, Taken::ByGzip),
            (Method::GET, Version::HTTP_2, Taken::ByGzip),
            (Method::GET, Version::HTTP_10, Taken::AsItIs),
            (Method::HEAD, Version::HTTP_11, Taken::Head),
            (Method::HEAD, Version::HTTP_10, Taken::AsItIs),
            (Method::CONNECT, Version::HTTP_2, Taken::AsItIs),
        ] {
            let name = format!("{method} {version:?}");
            let request = http::Request::builder().method(method).version(version);
            let request = request.header(ACCEPT_ENCODING, "gzip").body(()).unwrap();
            assert_eq!(Taken::by(&request.into_parts().0), expected, "{name}");
        }
    }

    #[test]
    fn a_tag_of_other_bytes_is_weak_and_what_is_none_goes() {
        for (tag, expected) in [
            (None, None),
            (Some("\"1\""), Some("W/\"1\"")),
            (Some("\"\""), Some("W/\"\"")),
            (Some("W/\"1\""), Some("W/\"1\"")),
            (Some("1"), None),
            (Some("w/\"1\""), None),
            (Some(""), None),
        ] {
            let tag = tag.map(|tag| (ETAG, HeaderValue::from_static(tag)));
            let mut headers: HeaderMap = tag.into_iter().collect();
            weaken(&mut headers);
            assert_eq!(headers.get(ETAG).map(HeaderValue::as_bytes), expected.map(str::as_bytes));
        }
    }

    #[test]
    fn what_is_summed_or_of_a_part_stays_as_it_is() {
        let how = Compression::default();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        for (status, expected) in [(200, true), (206, false), (304, false), (404, true)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_worth(&how, status, &headers), expected, "{status}");
        }
        for name in ["content-digest", "repr-digest", "digest", "content-md5"] {
            let mut headers = headers.clone();
            headers.insert(name, HeaderValue::from_static("x"));
            assert!(!is_worth(&how, StatusCode::OK, &headers), "{name}");
            // The same behind the body.
            let mut announcing = HeaderMap::new();
            announcing.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            announcing.insert(TRAILER, HeaderValue::try_from(format!("X-Own, {name}")).unwrap());
            assert!(!is_worth(&how, StatusCode::OK, &announcing), "{name}");
            assert!(without_sums(headers.clone()).is_some_and(|rest| !rest.contains_key(name)));
        }
        assert_eq!(without_sums(HeaderMap::new()), None);
    }
}
