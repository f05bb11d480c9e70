//! What a client sends over HTTP/2: frames, and compressed fields in them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, Settings};
use crate::codec::h2::{
    Dropped, Received, Surroundings,
    frame::{self, END_HEADERS, END_STREAM, HEAD_BYTES, Head},
    hpack::{Decoder, Encoder, Field, Sink, Unread, huffman},
};

const SETTINGS: Settings = Settings {
    streams_max: 8,
    head_bytes_max: 1 << 10,
    stream_window_bytes: 16 << 10,
    connection_window_bytes: 64 << 10,
    stall_ms: 1_000,
};

/// A connection in memory that takes all and gives a few bytes at a time.
struct Wire<'a> {
    sent: &'a [u8],
    step: usize,
    written: Vec<u8>,
}

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = self.step.min(buf.remaining()).min(self.sent.len());
        let (piece, rest) = self.sent.split_at_checked(bytes).unwrap_or_default();
        if piece.is_empty() {
            return Poll::Pending;
        }
        buf.put_slice(piece);
        self.sent = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Time stands still.
struct Still;

impl Surroundings for Still {
    fn now_ms(&self) -> u64 {
        0
    }

    fn date(&self) -> HeaderValue {
        HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT")
    }

    fn dropped(&self, _: Dropped) {}
}

/// Sends back what it is sent. Some requests are never answered, some before they are whole, and some
/// once they are read.
async fn answer(request: Request<Received>) -> Result<Response<Received>, Infallible> {
    let (head, mut body) = request.into_parts();
    let body = match head.uri.path() {
        "/wait" => std::future::pending().await,
        "/early" => Received::nothing(),
        "/read" => {
            while let Some(Ok(_)) = body.frame().await {}
            Received::nothing()
        }
        _ => body,
    };
    let mut response = Response::new(body);
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// A byte of how it comes, then a client's connection. Whatever that is, what is said in return is
/// what a server may say, and each stream has one end.
pub fn frames(bytes: &[u8]) {
    let Some((kind, sent)) = bytes.split_first() else { return };
    let step = usize::from(*kind) * usize::from(*kind) + 1;
    let wire = Wire { sent, step, written: Vec::new() };
    let mut connection = Connection::new(wire, answer, Still, SETTINGS);
    let mut cx = Context::from_waker(Waker::noop());
    // Each turn reads something, and some have nothing to read.
    let mut turns = sent.len() + 4;
    let mut has_ended = false;
    while turns > 0 && !has_ended {
        turns -= if connection.io.sent.is_empty() { turns.div_ceil(2) } else { 1 };
        has_ended = connection.poll(&mut cx).is_ready();
        assert!(connection.output.is_sent());
    }
    assert!(has_ended || connection.io.sent.is_empty(), "it waits for more than was sent");
    said(&connection.io.written, has_ended);
}

/// What a server may say.
fn said(mut written: &[u8], has_ended: bool) {
    let mut decoder = Decoder::new();
    let mut block: Option<(u32, bool, Vec<u8>)> = None;
    // True: it has its end.
    let mut streams: BTreeMap<u32, bool> = BTreeMap::new();
    let mut is_last = false;
    while let Some(head) = Head::parse(written) {
        let end = HEAD_BYTES + head.length;
        assert!(written.len() >= end, "a frame is cut off: {head:?}");
        let payload = written.get(HEAD_BYTES..end).unwrap_or_default();
        written = written.get(end..).unwrap_or_default();
        assert!(!is_last, "something follows an error");
        let ends = head.has(END_STREAM);
        match head.kind {
            frame::HEADERS | frame::CONTINUATION => {
                assert_eq!(block.is_some(), head.kind == frame::CONTINUATION);
                let mut part = block.take().unwrap_or((head.stream, ends, Vec::new()));
                part.2.extend_from_slice(payload);
                if !head.has(END_HEADERS) {
                    block = Some(part);
                    continue;
                }
                let (stream, ends, fields) = part;
                let read = decoder.decode(&fields, &mut Fields::default());
                assert_eq!(read, Ok(()), "fields nobody can read");
                assert_ne!(streams.insert(stream, ends), Some(true), "behind its end");
            }
            frame::DATA => {
                let before = streams.insert(head.stream, ends);
                assert_eq!(before, Some(false), "data without a head, or behind its end");
            }
            frame::RST_STREAM => _ = streams.insert(head.stream, true),
            frame::GOAWAY => is_last = payload.get(4..) != Some(&[0; 4]),
            frame::WINDOW_UPDATE => assert!(frame::number(payload) > Some(0)),
            kind => {
                assert!([frame::SETTINGS, frame::PING].contains(&kind), "not a server's: {head:?}");
                assert_eq!(head.stream, 0);
            }
        }
    }
    assert!(written.is_empty() && block.is_none(), "something is cut off");
    assert!(has_ended || !is_last);
    assert!(streams.keys().all(|stream| !stream.is_multiple_of(2)));
}

/// Fields of requests that are not pseudo.
#[derive(Debug, Default)]
struct Fields(Vec<(HeaderName, HeaderValue)>);

impl Sink for Fields {
    fn take(&mut self, field: &Field, _: usize) -> Result<(), Unread> {
        if let Field::Regular(name, value) = field {
            self.0.push((name.clone(), value.clone()));
        }
        Ok(())
    }
}

/// Blocks of fields, each behind a byte of its length. What can be read is the same once written
/// again; a text has one form in Huffman's code.
pub fn fields(bytes: &[u8]) {
    let (mut text, mut code) = (Vec::new(), Vec::new());
    if huffman::decode(bytes, &mut text).is_ok() {
        huffman::encode(&text, &mut code);
        assert_eq!(code, bytes, "two codes of one text");
    }
    (text, code) = Default::default();
    huffman::encode(bytes, &mut code);
    assert_eq!(huffman::decode(&code, &mut text), Ok(()));
    assert_eq!(text, bytes);
    let (mut decoder, mut encoder, mut again) = (Decoder::new(), Encoder::new(), Decoder::new());
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first() {
        let block = behind.get(..usize::from(*length)).unwrap_or(behind);
        rest = behind.get(block.len()..).unwrap_or_default();
        let mut read = Fields::default();
        if decoder.decode(block, &mut read).is_err() {
            return;
        }
        let mut written = Vec::new();
        encoder.resize(block.len() * 16);
        encoder.begin(&mut written);
        for (name, value) in &read.0 {
            encoder.field(name, value, &mut written);
        }
        let mut same = Fields::default();
        assert_eq!(again.decode(&written, &mut same), Ok(()));
        assert_eq!(same.0, read.0);
    }
}
