//! A request's head, and where its body ends (RFC 9112 3, 5, 6).
//!
//! Nobody else reads these bytes: what is served is what was read here. A head that somebody behind
//! could read otherwise is answered, not served, and what follows it is not read.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE},
};
use httparse::{ParserConfig, Status};
use memchr::memchr;

use crate::{
    codec::{FIELDS_MAX, Framing, LENGTH_MAX, answer::head_end},
    counters::Refused,
};

/// RFC 9113 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What `Uri` holds.
const TARGET_BYTES_MAX: usize = 65_534;
/// The longest line that says how long a body is. Padding is what parsers are tried with.
const FRAMING_LINE_BYTES_MAX: usize = 64;

/// A request, as far as its head goes.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) request: Request<()>,
    /// Where its body ends; none is read of a request in doubt.
    pub(crate) framing: Framing,
    pub(crate) asks: Asks,
    /// Why it is not to be served.
    pub(crate) doubt: Option<Refused>,
}

/// What a client says of its answer and of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    /// It speaks HTTP/1.0.
    pub(crate) is_10: bool,
    /// HEAD.
    pub(crate) is_head: bool,
    /// It may have another request.
    pub(crate) keeps: bool,
    /// It waits for 100 before it sends a body (RFC 9110 10.1.1).
    pub(crate) expects: bool,
    /// It reads trailers (RFC 9110 6.5.1).
    pub(crate) trailers: bool,
    /// It would go on in another protocol.
    pub(crate) upgrades: bool,
}

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The client speaks HTTP/2 without having asked (RFC 9113 3.3); nothing was taken.
    Preface,
    /// It never will be one.
    Refused(Refused),
}

/// The heads of a connection, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// Up to here there is no end of the next one.
    scanned: usize,
    /// Its beginning is one.
    is_begun: bool,
    /// There was one.
    has_begun: bool,
}

impl Heads {
    /// Of a connection that had so many.
    pub(crate) fn behind(heads: u64) -> Self {
        Self { has_begun: heads > 0, ..Self::default() }
    }

    /// Takes the next head off `input`, into `room`'s room; `None` while it is not whole.
    ///
    /// # Errors
    /// It will never be one, or is longer than `bytes_max`.
    pub(crate) fn take(
        &mut self,
        input: &mut BytesMut,
        bytes_max: usize,
        room: &mut HeaderMap,
    ) -> Result<Option<Head>, Unread> {
        if self.scanned == 0 {
            skip_empty_lines(input);
            if !self.has_begun && input.starts_with(b"PRI") && may_be_preface(input) {
                let is_whole = input.len() >= PREFACE.len();
                return if is_whole { Err(Unread::Preface) } else { Ok(None) };
            }
        }
        // Looked at once, however slowly it comes; parsed once, too.
        let end = head_end(input, self.scanned);
        if let Some(end) = end.filter(|end| *end <= bytes_max) {
            *self = Self { has_begun: true, ..Self::default() };
            return parse(&input.split_to(end).freeze(), room).map(Some);
        }
        // Whatever pieces it comes in, it is refused for the same.
        self.look_ahead(input.get(..bytes_max).unwrap_or(input))?;
        if end.is_some() || input.len() >= bytes_max {
            return Err(Unread::Refused(Refused::FieldsTooMany));
        }
        self.scanned = input.len().saturating_sub(2);
        Ok(None)
    }

    /// What does not even begin well is not waited for.
    fn look_ahead(&mut self, input: &[u8]) -> Result<(), Unread> {
        if self.is_begun {
            return Ok(());
        }
        let line = memchr(b'\n', input).and_then(|end| input.get(..=end));
        self.is_begun = line.is_some();
        let begins_well = match (line, input) {
            (Some(line), _) => httparse::Request::new(&mut []).parse(line).is_ok(),
            // Perhaps an empty line.
            (None, [] | [b'\r']) => true,
            (None, [first, ..]) => first.is_ascii_graphic(),
        };
        if begins_well { Ok(()) } else { Err(Unread::Refused(Refused::Malformed)) }
    }
}

/// RFC 9112 2.2.
fn skip_empty_lines(input: &mut BytesMut) {
    loop {
        let bytes = match &input[..] {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return,
        };
        input.advance(bytes);
    }
}

fn may_be_preface(input: &[u8]) -> bool {
    input.iter().zip(PREFACE).all(|(byte, expected)| byte == expected)
}

/// Values stay where they are: they are parts of `head`.
fn parse(head: &Bytes, room: &mut HeaderMap) -> Result<Head, Unread> {
    const MALFORMED: Unread = Unread::Refused(Refused::Malformed);
    let mut fields = [MaybeUninit::uninit(); FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let parser = ParserConfig::default();
    match parser.parse_request_with_uninit_headers(&mut parsed, head, &mut fields) {
        Ok(Status::Complete(end)) if end == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Unread::Refused(Refused::FieldsTooMany));
        }
        _ => return Err(MALFORMED),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(MALFORMED);
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(Unread::Refused(Refused::UriTooLong));
    }
    let has_fragment = method.contains('#') || target.contains('#');
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| MALFORMED)?;
    let target = head.slice_ref(target.as_bytes());
    let uri = Uri::from_maybe_shared(target).map_err(|_| MALFORMED)?;
    let is_10 = minor == 0;
    let mut says = Says::default();
    let mut headers = std::mem::take(room);
    headers.clear();
    headers.reserve(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(MALFORMED) };
        says.read(&name, &value, || is_padded(head, field.name));
        headers.append(name, value);
    }
    // The first is what it is refused for.
    let (framing, mut doubt) = match says.framing(is_10) {
        Ok(framing) => (framing, None),
        Err(reason) => (Framing::Empty, Some(reason)),
    };
    if has_fragment {
        // A parser that cuts it off serves another path (RFC 9112 3.2).
        doubt = Some(Refused::Path);
    }
    let framing = if doubt.is_some() { Framing::Empty } else { framing };
    let mut request = Request::new(());
    let asks = Asks {
        is_10,
        is_head: method == Method::HEAD,
        keeps: doubt.is_none() && !says.closes && (!is_10 || says.keeps_alive),
        expects: says.expects && !is_10 && framing != Framing::Empty,
        trailers: says.trailers,
        upgrades: says.upgrades && !is_10,
    };
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = if is_10 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = headers;
    Ok(Head { request, framing, asks, doubt })
}

/// The field's line is longer than it need be.
fn is_padded(head: &Bytes, name: &str) -> bool {
    let start = name.as_ptr().addr().saturating_sub(head.as_ptr().addr());
    let rest = head.get(start..).unwrap_or_default();
    memchr(b'\n', rest).is_none_or(|end| end >= FRAMING_LINE_BYTES_MAX)
}

/// What the fields of a head say of its body and its connection.
#[derive(Debug, Default)]
struct Says {
    lengths: usize,
    /// The first one, if it is proper.
    length: Option<u64>,
    codings: usize,
    /// As it must be, and alone.
    is_chunked: bool,
    /// At least that is where it ends (RFC 9112 6.3).
    ends_chunked: bool,
    closes: bool,
    keeps_alive: bool,
    expects: bool,
    trailers: bool,
    upgrades: bool,
}

impl Says {
    fn read(&mut self, name: &HeaderName, value: &HeaderValue, is_padded: impl Fn() -> bool) {
        let value = value.as_bytes();
        if name == CONTENT_LENGTH {
            self.lengths += 1;
            self.length = length(value).filter(|_| !is_padded());
        } else if name == TRANSFER_ENCODING {
            self.codings += 1;
            self.is_chunked = value.eq_ignore_ascii_case(b"chunked") && !is_padded();
            self.ends_chunked = has_last(value, b"chunked");
        } else if name == CONNECTION {
            self.closes |= has(value, b"close");
            self.keeps_alive |= has(value, b"keep-alive");
        } else if name == EXPECT {
            self.expects = value.eq_ignore_ascii_case(b"100-continue");
        } else if name == TE {
            self.trailers |= has(value, b"trailers");
        } else if name == UPGRADE {
            self.upgrades = true;
        }
    }

    fn framing(&self, is_10: bool) -> Result<Framing, Refused> {
        match (self.codings, self.lengths) {
            (0, 0) => Ok(Framing::Empty),
            // RFC 9112 6.1, 6.3: HTTP/1.0 knows none, and without `chunked` a body has no end.
            (1.., _) if is_10 || !self.ends_chunked => Err(Refused::Malformed),
            (1.., 1..) => Err(Refused::LengthAndCoding),
            (0, 1) => self.length.map(Framing::Length).ok_or(Refused::Length),
            (0, _) => Err(Refused::Length),
            // Any other would be stripped on the way while the body stays coded.
            (1, 0) if self.is_chunked => Ok(Framing::Chunked),
            (_, 0) => Err(Refused::TransferCoding),
        }
    }
}

/// RFC 9110 8.6: digits alone, no list.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = str::from_utf8(value).ok()?.parse().ok()?;
    (length <= LENGTH_MAX).then_some(length)
}

fn has(list: &[u8], name: &[u8]) -> bool {
    items(list).any(|item| item.eq_ignore_ascii_case(name))
}

fn has_last(list: &[u8], name: &[u8]) -> bool {
    items(list).last().is_some_and(|item| item.eq_ignore_ascii_case(name))
}

fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests;
