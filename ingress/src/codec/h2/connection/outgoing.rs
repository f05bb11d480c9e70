//! Answers on their way: heads as soon as they are there, data in turn as the client's windows let
//! it through.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_LENGTH, DATE},
};
use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, OUTPUT_BYTES_MAX};
use crate::codec::{
    Unanswered,
    h2::{
        Reason, Serve, Surroundings,
        frame::{self, HEAD_BYTES, Head, MAX_31, PAYLOAD_BYTES_MAX},
        guard::CRUMB_BYTES,
        hpack::Encoder,
        streams::{Closed, Outflow},
    },
};

/// What became of a stream's turn.
enum Turn {
    /// There may be more.
    Sent,
    /// It waits for its body, or for its window.
    Waits,
    /// All wait for the connection's window.
    AllWait,
    /// All of it was written.
    Over,
    /// There will be no end.
    Broken,
}

impl<S, V, W> Connection<S, V, W>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Serve,
    W: Surroundings,
{
    /// Polls all that were woken.
    pub(super) fn go_on(&mut self) {
        let mut woken = std::mem::take(&mut self.woken);
        self.streams.ready.take(&mut woken);
        for place in woken.drain(..) {
            self.poll_stream(place);
        }
        self.woken = woken;
    }

    fn poll_stream(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place) else { return };
        if let Some(answer) = stream.answer.as_mut().as_pin_mut() {
            match answer.poll(&mut Context::from_waker(&stream.waker)) {
                Poll::Ready(Ok(response)) => {
                    stream.answer.set(None);
                    self.begin_answer(place, response);
                }
                Poll::Ready(Err(never)) => match never {},
                Poll::Pending => {}
            }
        } else if stream.outflow.body.is_some() {
            self.queue(place);
        }
        self.look_after(place);
    }

    /// Says that a stream's body is waited for, opens its window as it is read, and ends it if nobody
    /// reads it any more.
    fn look_after(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place) else { return };
        let Some(inflow) = &stream.inflow else { return };
        if inflow.is_given_up() {
            if stream.outflow.is_over {
                // RFC 9113 8.1: the rest of the request is not needed for the answer.
                frame::write_reset(stream.id, Reason::NoError, &mut self.output.text);
                self.streams.close(place, Closed::ByUs);
            }
            return;
        }
        // RFC 9110 10.1.1: before any other answer.
        if inflow.is_wanted() && stream.answer.is_some() {
            let out = &mut self.output.text;
            let start = out.len();
            out.extend_from_slice(&[0; HEAD_BYTES]);
            self.encoder.begin(out);
            self.encoder.status(StatusCode::CONTINUE, out);
            frame::seal_block(stream.id, 0, start, out);
        }
        let more = inflow.due();
        if more > 0 {
            stream.receive_window += i64::try_from(more).unwrap_or_default();
            let more = u32::try_from(more).unwrap_or(MAX_31);
            frame::write_window(stream.id, more, &mut self.output.text);
        }
    }

    fn begin_answer(&mut self, place: usize, response: Response<V::Body>) {
        let Some(stream) = self.streams.get(place) else { return };
        let id = stream.id;
        let (mut head, body) = response.into_parts();
        if head.extensions.get::<Unanswered>().is_some() {
            frame::write_reset(id, Reason::Cancel, &mut self.output.text);
            self.streams.close(place, Closed::ByUs);
            return;
        }
        // RFC 9110 6.4.1, 8.6: these have no content, whatever their body is.
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH);
        }
        let has_none = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let ends = has_none || stream.is_head || body.is_end_stream();
        let length = if ends { None } else { body.size_hint().exact() };
        let out = &mut self.output.text;
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        self.encoder.begin(out);
        self.encoder.status(head.status, out);
        let seen = write_fields(&head.headers, &mut self.encoder, out);
        if !seen.date {
            self.encoder.field(&DATE, &self.around.date(), out);
        }
        if let Some(length) = length.filter(|_| !seen.length) {
            self.encoder.field(&CONTENT_LENGTH, &length.into(), out);
        }
        let flags = if ends { frame::END_STREAM } else { 0 };
        frame::seal_block(id, flags, start, out);
        if ends {
            drop(body);
            self.finish(place);
        } else {
            stream.outflow.body = Some(body);
            self.queue(place);
        }
    }

    /// It has something to send, perhaps.
    pub(super) fn queue(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place) else { return };
        if !std::mem::replace(&mut stream.is_queued, true) {
            self.sending.push_back(place);
        }
    }

    /// Something could be sent at once.
    pub(super) fn can_send(&self) -> bool {
        !self.sending.is_empty() && self.output.len() < OUTPUT_BYTES_MAX
    }

    /// A frame of each stream in turn, until there is enough to write.
    pub(super) fn send(&mut self) {
        while self.can_send()
            && let Some(place) = self.sending.pop_front()
        {
            let turn = self.turn(place);
            if !matches!(turn, Turn::AllWait) {
                self.streams.leave_queue(place);
            }
            match turn {
                Turn::Sent => self.queue(place),
                Turn::Waits => {}
                Turn::AllWait => self.waiting.push_back(place),
                Turn::Over => self.finish(place),
                Turn::Broken => {
                    if let Some(stream) = self.streams.get(place) {
                        let id = stream.id;
                        frame::write_reset(id, Reason::Internal, &mut self.output.text);
                        self.streams.close(place, Closed::ByUs);
                    }
                }
            }
            self.look_after(place);
        }
    }

    fn turn(&mut self, place: usize) -> Turn {
        let Some(stream) = self.streams.get(place) else { return Turn::Waits };
        let (id, outflow) = (stream.id, &mut stream.outflow);
        match outflow.fill(&mut Context::from_waker(&stream.waker)) {
            Poll::Pending => return Turn::Waits,
            Poll::Ready(Err(())) => return Turn::Broken,
            Poll::Ready(Ok(())) => {}
        }
        let out = &mut self.output;
        if outflow.data.is_empty() {
            match outflow.trailers.take() {
                Some(trailers) => {
                    let start = out.text.len();
                    out.text.extend_from_slice(&[0; HEAD_BYTES]);
                    self.encoder.begin(&mut out.text);
                    write_fields(&trailers, &mut self.encoder, &mut out.text);
                    frame::seal_block(id, frame::END_STREAM, start, &mut out.text);
                }
                None => {
                    let flags = frame::END_STREAM;
                    let head = Head { length: 0, kind: frame::DATA, flags, stream: id };
                    head.write(&mut out.text);
                }
            }
            return Turn::Over;
        }
        if outflow.window <= 0 || self.send_window <= 0 {
            outflow.stalled_ms.get_or_insert_with(|| self.around.now_ms());
            self.has_stalled = true;
            return if outflow.window <= 0 { Turn::Waits } else { Turn::AllWait };
        }
        outflow.stalled_ms = None;
        let window = usize::try_from(outflow.window.min(self.send_window)).unwrap_or_default();
        let length = outflow.data.len().min(window).min(PAYLOAD_BYTES_MAX);
        let data = outflow.data.split_to(length);
        let is_over = outflow.is_last && outflow.data.is_empty() && outflow.trailers.is_none();
        let flags = if is_over { frame::END_STREAM } else { 0 };
        Head { length, kind: frame::DATA, flags, stream: id }.write(&mut out.text);
        out.push(data);
        let length = i64::try_from(length).unwrap_or_default();
        outflow.window -= length;
        self.send_window -= length;
        // What a narrow window cuts off explains no other window (CVE-2019-9511).
        if outflow.data.is_empty() || length >= CRUMB_BYTES {
            self.guard.work();
        }
        if is_over { Turn::Over } else { Turn::Sent }
    }

    /// All of an answer is written.
    fn finish(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place) else { return };
        self.guard.answered();
        stream.outflow.body = None;
        stream.outflow.is_over = true;
        if stream.inflow.is_none() {
            self.streams.close(place, Closed::Known);
        }
    }
}

impl<B: Body<Data = bytes::Bytes> + Unpin> Outflow<B> {
    /// Takes the next piece off the body if there is none. Ready with nothing is the end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        while self.data.is_empty() && !self.is_last {
            let Some(body) = &mut self.body else { return Poll::Pending };
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(())),
                Poll::Ready(None) => self.is_last = true,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.data = data;
                        self.is_last = body.is_end_stream();
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.is_last = true;
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Fields that were there.
struct Seen {
    date: bool,
    length: bool,
}

fn write_fields(headers: &HeaderMap, encoder: &mut Encoder, out: &mut Vec<u8>) -> Seen {
    let mut seen = Seen { date: false, length: false };
    for (name, value) in headers {
        match name.as_str() {
            // RFC 9113 8.2.2.
            "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding"
            | "upgrade" => continue,
            "date" => seen.date = true,
            "content-length" => seen.length = true,
            _ => {}
        }
        encoder.field(name, value, out);
    }
    seen
}
