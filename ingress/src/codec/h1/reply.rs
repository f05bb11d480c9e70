//! An answer as it is written to a client (RFC 9112 4, 6, 7.1).

use std::io::Write;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING},
};
use hyper::{body::Body, ext::ReasonPhrase};

use super::Asks;
use crate::codec::{LAST_CHUNK, Output, announced, begin_chunk, end_chunks, request::write_field};

const CRLF: &[u8] = b"\r\n";

/// An answer's head.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) status: StatusCode,
    /// If it is not the status's own.
    pub(crate) reason: Option<&'a ReasonPhrase>,
    pub(crate) headers: &'a HeaderMap,
    /// What it answers.
    pub(crate) asks: Asks,
    /// It is the connection's last.
    pub(crate) closes: bool,
}

/// What is left of an answer's body, and how it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Nothing.
    Over,
    /// So many bytes, as they are.
    Length(u64),
    /// In chunks, and with these trailers if they come.
    Chunked(Vec<HeaderName>),
    /// To the end of the connection: HTTP/1.0 knows no chunks.
    UntilClose,
}

/// A body that is not as long as was said: what is behind it would be taken for another answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer's body is not as long as its head says")]
pub(crate) struct Misfit;

impl Reply<'_> {
    /// Writes the head. Its body decides how it is sent, whatever the fields say of it. `date`: for
    /// an answer without one (RFC 9110 6.6.1).
    pub(crate) fn write<B: Body>(
        &self,
        body: &B,
        date: impl FnOnce() -> HeaderValue,
        out: &mut Vec<u8>,
    ) -> Sending {
        let sending = self.sending(body);
        self.write_line(out);
        let switches = self.status == StatusCode::SWITCHING_PROTOCOLS;
        let has_no_trailers = self.asks.is_10 || self.has_no_body();
        let mut has_date = false;
        for (name, value) in self.headers {
            let is_ours = name == CONTENT_LENGTH
                || name == TRANSFER_ENCODING
                || (name == CONNECTION && !switches)
                || (name == TRAILER && has_no_trailers);
            if is_ours {
                continue;
            }
            has_date |= name == DATE;
            write_field(name, value.as_bytes(), out);
        }
        self.write_framing(body, &sending, out);
        if self.closes || sending == Sending::UntilClose {
            out.extend_from_slice(b"connection: close\r\n");
        } else if self.asks.is_10 && !switches {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if !has_date {
            write_field(&DATE, date().as_bytes(), out);
        }
        out.extend_from_slice(CRLF);
        sending
    }

    fn sending<B: Body>(&self, body: &B) -> Sending {
        if self.has_no_body() || body.is_end_stream() {
            return Sending::Over;
        }
        match body.size_hint().exact() {
            Some(length) => Sending::Length(length),
            None if self.asks.is_10 => Sending::UntilClose,
            None if self.asks.trailers => Sending::Chunked(announced(self.headers)),
            None => Sending::Chunked(Vec::new()),
        }
    }

    /// RFC 9110 6.4.1.
    fn has_no_body(&self) -> bool {
        self.asks.is_head || self.says_nothing_of_a_body()
    }

    /// RFC 9110 8.6; of a 304 it would be another answer's.
    fn says_nothing_of_a_body(&self) -> bool {
        self.status.is_informational()
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED
    }

    fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.asks.is_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        let own = || self.status.canonical_reason().unwrap_or("<none>").as_bytes();
        out.extend_from_slice(self.reason.map_or_else(own, ReasonPhrase::as_bytes));
        out.extend_from_slice(CRLF);
    }

    fn write_framing<B: Body>(&self, body: &B, sending: &Sending, out: &mut Vec<u8>) {
        if self.says_nothing_of_a_body() {
            return;
        }
        if self.asks.is_head {
            // As long as it would be, if that is known.
            match self.headers.get(CONTENT_LENGTH) {
                Some(length) => write_field(&CONTENT_LENGTH, length.as_bytes(), out),
                None if body.is_end_stream() => {}
                None => {
                    if let Some(length) = body.size_hint().exact() {
                        write_length(length, out);
                    }
                }
            }
            return;
        }
        match sending {
            Sending::Over => write_length(0, out),
            Sending::Length(length) => write_length(*length, out),
            Sending::Chunked(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Sending::UntilClose => {}
        }
    }
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    _ = write!(out, "content-length: {length}\r\n");
}

impl Sending {
    /// Nothing is left.
    pub(crate) fn is_over(&self) -> bool {
        *self == Self::Over
    }

    /// A piece of the body; `is_last`: nothing follows it.
    ///
    /// # Errors
    /// There is more or less of it than was said.
    pub(crate) fn data(
        &mut self,
        data: Bytes,
        is_last: bool,
        out: &mut Output,
    ) -> Result<(), Misfit> {
        // A chunk of no bytes would be the last.
        if !data.is_empty() {
            match self {
                Self::Over => return Err(Misfit),
                Self::Length(left) => {
                    *left = left.checked_sub(data.len() as u64).ok_or(Misfit)?;
                    out.push(data);
                }
                Self::Chunked(_) => {
                    begin_chunk(data.len(), &mut out.text);
                    out.push(data);
                    out.text.extend_from_slice(CRLF);
                }
                Self::UntilClose => out.push(data),
            }
        }
        if is_last { self.end(out) } else { Ok(()) }
    }

    /// What follows the body; who was not told of it does not see it.
    pub(crate) fn trailers(
        &mut self,
        mut trailers: HeaderMap,
        out: &mut Output,
    ) -> Result<(), Misfit> {
        let Self::Chunked(announced) = self else { return self.end(out) };
        if !trailers.keys().all(|name| announced.contains(name)) {
            let kept = trailers.iter().filter(|(name, _)| announced.contains(name));
            trailers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        }
        end_chunks(&trailers, &mut out.text);
        *self = Self::Over;
        Ok(())
    }

    /// The body is over.
    ///
    /// # Errors
    /// There is less of it than was said.
    pub(crate) fn end(&mut self, out: &mut Output) -> Result<(), Misfit> {
        match self {
            Self::Length(left) if *left > 0 => return Err(Misfit),
            Self::Chunked(_) => out.text.extend_from_slice(LAST_CHUNK),
            Self::Over | Self::Length(_) | Self::UntilClose => {}
        }
        *self = Self::Over;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
