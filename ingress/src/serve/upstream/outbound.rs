//! A request on its way out: head, then its body as the client sends it and the endpoint takes it.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::Request;
use hyper::body::{Body, Frame};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use crate::{
    codec::{Coding, LAST_CHUNK, begin_chunk, end_chunks, write_head},
    serve::{
        body::{BodyError, RequestBody, Spliced},
        wire::Wire,
    },
};

/// Room of a longer head is not kept.
const KEPT_BYTES_MAX: usize = 4 << 10;
const CRLF: &[u8] = b"\r\n";
/// Behind the last data, if the body is known to end with it.
const CRLF_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// What is still to be written: text, data, tail, in this order. One piece of a body at a time, so
/// that a client is read no faster than the endpoint reads.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Head, and what frames the data; in room the next request uses again.
    text: Vec<u8>,
    /// So much of the text.
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    /// `None` when nothing more comes.
    body: Option<RequestBody>,
    coding: Coding,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Sending,
    /// All of it.
    Sent,
    /// The endpoint takes no more; it may have answered before.
    Refused,
}

/// The client broke off, or sent what it had not announced: a request was begun that will not end.
#[derive(Debug)]
pub(super) struct BrokenOff;

impl Outbound {
    /// Takes the body out of the request, and the head's bytes.
    pub(super) fn begin(&mut self, request: &mut Request<RequestBody>) {
        self.text.clear();
        self.written = 0;
        let headers = request.headers();
        self.coding = Coding::of(request.body());
        write_head(request.method(), request.uri(), headers, &self.coding, &mut self.text);
        let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
        self.body = Some(body).filter(|body| !body.is_end_stream());
        self.stage = Stage::Sending;
    }

    pub(super) fn is_sent(&self) -> bool {
        self.stage == Stage::Sent
    }

    /// There will be no request for a while.
    pub(super) fn rest(&mut self) {
        if self.text.capacity() > KEPT_BYTES_MAX {
            self.give_back();
        }
    }

    /// Nor soon after.
    pub(super) fn give_back(&mut self) {
        self.text = Vec::new();
    }

    /// Writes what can be; ready when there is nothing more to do.
    ///
    /// # Errors
    /// The request will never be whole.
    pub(super) fn poll(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BrokenOff>> {
        while self.stage == Stage::Sending {
            match self.splice(wire, cx) {
                Spliced::Not => {}
                Spliced::Waits(_) => return Poll::Pending,
                Spliced::Over(Ok(())) => {
                    self.end(Stage::Sent);
                    break;
                }
                Spliced::Over(Err(BodyError::Endpoint(_))) => {
                    self.end(Stage::Refused);
                    break;
                }
                Spliced::Over(Err(_)) => return Poll::Ready(Err(BrokenOff)),
            }
            // Before the first byte is written: head and body leave in one piece if both are there.
            let waits = match self.fill(cx) {
                Poll::Ready(filled) => {
                    filled?;
                    false
                }
                Poll::Pending => true,
            };
            if ready!(self.write(wire, cx)).is_err() {
                self.end(Stage::Refused);
            } else if waits {
                return Poll::Pending;
            } else if self.body.is_none() {
                self.end(Stage::Sent);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What is left of a long body goes on by itself, once what is before it is written.
    fn splice(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Spliced {
        let is_written = self.text.is_empty() && self.data.is_empty() && self.tail.is_empty();
        match (&mut self.body, &self.coding, wire.bare()) {
            (Some(body), Coding::Length(left), Some(to)) if is_written => {
                body.splice(*left, to, cx)
            }
            _ => Spliced::Not,
        }
    }

    /// Asks for another piece of the body once the last one is written.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        while self.data.is_empty() && self.tail.is_empty() {
            let Some(body) = &mut self.body else { break };
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let is_last = body.is_end_stream();
                    self.load(frame, is_last)?;
                }
                Some(Err(_)) => return Poll::Ready(Err(BrokenOff)),
                None => self.close()?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn load(&mut self, frame: Frame<Bytes>, is_last: bool) -> Result<(), BrokenOff> {
        match frame.into_data() {
            // A chunk of no bytes would be the last.
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                match &mut self.coding {
                    Coding::Empty => return Err(BrokenOff),
                    Coding::Length(left) => {
                        *left = left.checked_sub(data.len() as u64).ok_or(BrokenOff)?;
                    }
                    Coding::Chunked => {
                        begin_chunk(data.len(), &mut self.text);
                        self.tail = CRLF;
                    }
                }
                self.data = data;
            }
            Err(frame) => {
                if matches!(self.coding, Coding::Chunked)
                    && let Ok(trailers) = frame.into_trailers()
                {
                    end_chunks(&trailers, &mut self.text);
                    // Only the end may follow.
                    self.coding = Coding::Empty;
                }
            }
        }
        if is_last { self.close() } else { Ok(()) }
    }

    /// The body is over.
    fn close(&mut self) -> Result<(), BrokenOff> {
        match self.coding {
            // What follows would be taken for the rest of it.
            Coding::Length(left) if left > 0 => return Err(BrokenOff),
            Coding::Chunked if self.data.is_empty() => self.text.extend_from_slice(LAST_CHUNK),
            Coding::Chunked => self.tail = CRLF_LAST_CHUNK,
            Coding::Empty | Coding::Length(_) => {}
        }
        self.body = None;
        Ok(())
    }

    fn write(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let text = self.text.get(self.written..).unwrap_or_default();
            let parts =
                [text, self.data.as_ref(), self.tail].into_iter().filter(|part| !part.is_empty());
            let parts: SmallVec<[IoSlice<'_>; 3]> = parts.map(IoSlice::new).collect();
            if parts.is_empty() {
                break;
            }
            let outcome = Pin::new(&mut *wire).poll_write_vectored(cx, &parts);
            drop(parts);
            match ready!(outcome)? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                bytes => self.advance(bytes),
            }
        }
        self.text.clear();
        self.written = 0;
        self.data = Bytes::new();
        Pin::new(wire).poll_flush(cx)
    }

    fn advance(&mut self, bytes: usize) {
        let of_text = bytes.min(self.text.len() - self.written);
        self.written += of_text;
        let of_data = (bytes - of_text).min(self.data.len());
        self.data.advance(of_data);
        self.tail = self.tail.get(bytes - of_text - of_data..).unwrap_or_default();
    }

    fn end(&mut self, stage: Stage) {
        self.stage = stage;
        // Whoever counts bodies under way is told now.
        self.body = None;
        self.data = Bytes::new();
        self.tail = &[];
    }
}
