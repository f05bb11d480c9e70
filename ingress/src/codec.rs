//! HTTP by the byte. HTTP/1.1 as endpoints speak it is here: requests written, answers read. As
//! clients speak it it is in [`h1`], HTTP/2 in [`h2`]. Pure: bytes in, bytes out.
//!
//! An endpoint is a tenant's: what it says is refused in doubt, because two readings of one answer
//! would put one client's answer in front of another (response queue poisoning).

mod answer;
mod body;
pub(crate) mod h1;
pub(crate) mod h2;
mod output;
mod request;

use http::HeaderName;

pub(crate) use self::{
    answer::{Answer, Answers, Asked, FIELDS_MAX, Framing},
    body::{Decoder, Piece},
    output::Output,
    request::{Coding, LAST_CHUNK, announced, begin_chunk, end_chunks, write_head},
};

/// Of a body or a chunk: what JavaScript's numbers hold is what everybody agrees on (HAProxy's limit,
/// below nginx's).
const LENGTH_MAX: u64 = (1 << 52) - 1;

/// Said in heads only, where it is looked at: how a message is framed, whose it is, what it means
/// (RFC 9110 6.5.1). Apache took trailers for fields nobody had checked (CVE-2013-5704).
const HEADS_ONLY: [&str; 24] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-original-forwarded-for",
    "x-original-forwarded-host",
    "x-request-id",
];

/// In an answer's extensions: nothing is said, and its connection, or its stream of HTTP/2, ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unanswered;

fn may_trail(name: &HeaderName) -> bool {
    !HEADS_ONLY.contains(&name.as_str())
}

/// Why an answer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// No status line.
    #[error("the endpoint's answer does not begin as HTTP/1 does")]
    Begin,
    /// A status line or a field that is none (RFC 9112 4, 5).
    #[error("the head of the endpoint's answer cannot be read")]
    Head,
    /// No end of a head in sight.
    #[error("the head of the endpoint's answer is too long")]
    HeadTooLong,
    /// More fields than anybody needs.
    #[error("the endpoint's answer has too many fields")]
    FieldsTooMany,
    /// It is over with its head (RFC 9110 15.2).
    #[error("an interim answer of the endpoint's announces a body")]
    InterimBody,
    /// 1xx without end.
    #[error("the endpoint sends interim answers only")]
    InterimTooMany,
    /// Not one number (RFC 9112 6.3).
    #[error("the endpoint's answer has no proper Content-Length")]
    Length,
    /// Not `chunked` alone, or in HTTP/1.0 (RFC 9112 6.1).
    #[error("the endpoint's answer has no proper Transfer-Encoding")]
    Coding,
    /// Either could be meant (RFC 9112 6.3).
    #[error("the endpoint's answer has both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// RFC 9112 7.1.
    #[error("the endpoint's answer has a chunk without a proper size")]
    ChunkSize,
    /// No CRLF behind a chunk.
    #[error("a chunk of the endpoint's answer does not end where it should")]
    ChunkEnd,
    /// RFC 9112 7.1.2.
    #[error("the trailers of the endpoint's answer cannot be read")]
    Trailers,
    /// The connection ended first.
    #[error("the endpoint's answer is cut off")]
    CutOff,
}
