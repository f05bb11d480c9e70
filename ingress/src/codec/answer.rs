//! The head of an answer, and how long its body is (RFC 9112 6.3).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;
use memchr::memchr_iter;

use super::{LENGTH_MAX, Malformed};
use crate::admission::names;

/// nginx takes a sixteenth of it, unless told otherwise (proxy_buffer_size).
const HEAD_BYTES_MAX: usize = 64 << 10;
/// As many as a request may have; trailers, too.
pub(crate) const FIELDS_MAX: usize = 100;
/// A client's next request is read into the map its last answer was in: there is room for what
/// clients of APIs send, and for what is set here of every request.
const FIELDS_USUAL: usize = 12;
/// 100, 102 and 103 before the answer proper.
const INTERIM_MAX: usize = 32;
const BEGIN: &[u8] = b"HTTP/1.";

/// What was asked decides whether an answer has a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Never one.
    Head,
    /// A yes has none.
    Connect,
    /// As the answer says.
    #[default]
    Other,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// With a chunk of no bytes.
    Chunked,
    /// With the connection.
    UntilClose,
    /// What follows is not HTTP.
    Tunnel,
}

/// An answer's head.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// If it is not the status's own.
    pub(crate) reason: Option<ReasonPhrase>,
    pub(crate) framing: Framing,
    /// The endpoint waits for another request behind it.
    pub(crate) keeps: bool,
}

/// The answers to one request: interim ones, and the one that counts.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    asked: Asked,
    /// Up to here there is no end of a head.
    scanned: usize,
    interim: usize,
    /// What the next one's fields are read into.
    room: HeaderMap,
}

impl Asked {
    pub(crate) fn by(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }
}

impl Answers {
    pub(crate) fn to(asked: Asked) -> Self {
        Self { asked, ..Self::default() }
    }

    /// Fields that nobody needs any more: those of an answer have their room.
    pub(crate) fn give_room(&mut self, mut headers: HeaderMap) {
        // What they say is parts of somebody's buffer.
        headers.clear();
        self.room = headers;
    }

    /// Something was answered, if only that an answer is on its way.
    pub(crate) fn has_begun(&self) -> bool {
        self.interim > 0
    }

    /// Takes the head of the answer that counts off `input`; `None` while it is not whole.
    ///
    /// # Errors
    /// It will never be one.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Answer>, Malformed> {
        loop {
            // What does not even begin well is not waited for.
            if !input.iter().zip(BEGIN).all(|(byte, expected)| byte == expected) {
                return Err(Malformed::Begin);
            }
            // Looked at once, however slowly it comes; parsed once, too.
            let end = match head_end(input, self.scanned) {
                Some(end) if end <= HEAD_BYTES_MAX => end,
                None if input.len() < HEAD_BYTES_MAX => {
                    self.scanned = input.len().saturating_sub(2);
                    return Ok(None);
                }
                _ => return Err(Malformed::HeadTooLong),
            };
            self.scanned = 0;
            let room = std::mem::take(&mut self.room);
            let answer = parse(&input.split_to(end).freeze(), self.asked, room)?;
            let is_interim = answer.status.is_informational()
                && answer.status != StatusCode::SWITCHING_PROTOCOLS;
            if !is_interim {
                return Ok(Some(answer));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(Malformed::InterimTooMany);
            }
        }
    }
}

/// Behind the first empty line whose line before ends at `from` or later.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    memchr_iter(b'\n', rest).find_map(|at| {
        let next = from + at + 1;
        match rest.get(at + 1..)? {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    })
}

/// Values stay where they are: they are parts of `head`.
fn parse(head: &Bytes, asked: Asked, mut headers: HeaderMap) -> Result<Answer, Malformed> {
    let mut fields = [MaybeUninit::uninit(); FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut parsed, head, &mut fields) {
        Ok(Status::Complete(end)) if end == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::FieldsTooMany),
        _ => return Err(Malformed::Head),
    }
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Malformed::Head);
    };
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::Head)?;
    headers.reserve(parsed.headers.len().max(FIELDS_USUAL));
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed::Head) };
        headers.append(name, value);
    }
    let reason = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    let reason = reason.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    let framing = framing(status, &headers, minor == 1, asked)?;
    let ends_with_it = matches!(framing, Framing::UntilClose | Framing::Tunnel);
    let mut keeps = !ends_with_it && keeps(&headers, minor == 1);
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // Neither may say how long its body is (RFC 9110 8.6), and who does may send one.
        keeps &= !announces_body(&headers);
        headers.remove(CONTENT_LENGTH);
    }
    Ok(Answer { status, headers, reason, framing, keeps })
}

fn framing(
    status: StatusCode,
    headers: &HeaderMap,
    is_11: bool,
    asked: Asked,
) -> Result<Framing, Malformed> {
    let chunked = is_chunked(headers, is_11)?;
    let length = length(headers)?;
    if chunked && length.is_some() {
        return Err(Malformed::LengthAndCoding);
    }
    if status == StatusCode::SWITCHING_PROTOCOLS || (asked == Asked::Connect && status.is_success())
    {
        return Ok(Framing::Tunnel);
    }
    if status.is_informational() && announces_body(headers) {
        return Err(Malformed::InterimBody);
    }
    let has_none = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || asked == Asked::Head;
    Ok(match length {
        _ if has_none => Framing::Empty,
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    })
}

/// Both fields are proper.
fn announces_body(headers: &HeaderMap) -> bool {
    let is_some = |length: &HeaderValue| length.as_bytes().iter().any(|digit| *digit != b'0');
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(is_some)
}

/// Any other coding would be stripped on the way while the body stays coded.
fn is_chunked(headers: &HeaderMap, is_11: bool) -> Result<bool, Malformed> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if is_11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(true)
        }
        _ => Err(Malformed::Coding),
    }
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(length), None) => {
            let is_digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
            let digits = length.to_str().ok().filter(is_digits);
            let length = digits.and_then(|digits| digits.parse::<u64>().ok());
            length.filter(|length| *length <= LENGTH_MAX).map(Some).ok_or(Malformed::Length)
        }
        _ => Err(Malformed::Length),
    }
}

/// RFC 9112 9.3: close has the last word.
fn keeps(headers: &HeaderMap, is_11: bool) -> bool {
    let mut keeps = is_11;
    for name in names(headers, CONNECTION) {
        if name.eq_ignore_ascii_case("close") {
            return false;
        }
        keeps |= name.eq_ignore_ascii_case("keep-alive");
    }
    keeps
}

#[cfg(test)]
mod tests;
