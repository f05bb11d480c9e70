//! Frames of the client's, and what they mean where (RFC 9113 5.1, 6).

use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, LEAVING, Stage};
use crate::codec::h2::{
    Reason, Serve, Surroundings,
    frame::{self, HEAD_BYTES, Head, MAX_31, PAYLOAD_BYTES_MAX, PREFACE},
    head::TOO_MUCH,
    receive::SHARED_BYTES_MIN,
    settings,
    streams::Closed,
};

/// Fields in several frames.
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ends: bool,
    pub(super) malformed: bool,
    pub(super) bytes: Vec<u8>,
}

impl<S, V, W> Connection<S, V, W>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Serve,
    W: Surroundings,
{
    /// Takes all whole frames.
    pub(super) fn take_input(&mut self) -> Result<(), Reason> {
        let mut input = mem::take(&mut self.input);
        let outcome = self.take_frames(&mut input);
        self.input = input;
        outcome
    }

    fn take_frames(&mut self, input: &mut BytesMut) -> Result<(), Reason> {
        if !self.is_greeted {
            let begun = input.len().min(PREFACE.len());
            if input.get(..begun) != PREFACE.get(..begun) {
                return Err(Reason::Protocol);
            }
            if begun < PREFACE.len() {
                return Ok(());
            }
            input.advance(PREFACE.len());
            self.is_greeted = true;
        }
        while let Some(head) = Head::parse(input) {
            if head.length > PAYLOAD_BYTES_MAX {
                return Err(Reason::FrameSize);
            }
            let end = HEAD_BYTES + head.length;
            if input.len() < end {
                break;
            }
            self.is_expected(&head)?;
            if head.kind == frame::DATA && head.length >= SHARED_BYTES_MIN {
                let payload = input.split_to(end).freeze().slice(HEAD_BYTES..);
                self.data(&head, &payload, Some(&payload))?;
            } else {
                self.frame(&head, input.get(HEAD_BYTES..end).unwrap_or_default())?;
                input.advance(end);
            }
        }
        Ok(())
    }

    /// Settings come first (RFC 9113 3.4), and nothing between the parts of a block (6.10).
    fn is_expected(&mut self, head: &Head) -> Result<(), Reason> {
        let is_first = !mem::replace(&mut self.has_settings, true);
        if is_first && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
            return Err(Reason::Protocol);
        }
        let expected = self.block.as_ref().map(|block| block.stream);
        let is_part = head.kind == frame::CONTINUATION;
        match expected {
            Some(stream) if !is_part || head.stream != stream => Err(Reason::Protocol),
            None if is_part => Err(Reason::Protocol),
            _ => Ok(()),
        }
    }

    fn frame(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        match head.kind {
            frame::DATA => self.data(head, payload, None),
            frame::HEADERS => self.headers(head, payload),
            frame::CONTINUATION => self.continuation(head, payload),
            frame::PRIORITY => self.priority(head, payload),
            frame::RST_STREAM => self.rst_stream(head, payload),
            frame::SETTINGS => self.client_settings(head, payload),
            frame::PUSH_PROMISE => Err(Reason::Protocol),
            frame::PING => self.ping(head, payload),
            frame::GOAWAY => self.goaway(head, payload),
            frame::WINDOW_UPDATE => self.window_update(head, payload),
            // RFC 9113 5.5.
            _ => Ok(self.guard.idle_frame()?),
        }
    }

    fn data(&mut self, head: &Head, payload: &[u8], shared: Option<&Bytes>) -> Result<(), Reason> {
        let bytes = i64::try_from(head.length).unwrap_or(i64::MAX);
        let ends = head.has(frame::END_STREAM);
        if !self.has_begun(head.stream) {
            return Err(Reason::Protocol);
        }
        if !self.windows.spend(head.length) {
            return Err(Reason::FlowControl);
        }
        let content = head.content(payload)?;
        let found = self.streams.find(head.stream);
        let is_idle = content.is_empty() && (!ends || found.is_none());
        if is_idle {
            self.guard.idle_frame()?;
        }
        let Some((place, stream)) = found.and_then(|place| Some((place, self.streams.get(place)?)))
        else {
            return self.data_of_nobody(head);
        };
        let Some(inflow) = &stream.inflow else {
            self.windows.give_back(head.length);
            return self.reset(head.stream, Reason::StreamClosed);
        };
        stream.receive_window -= bytes;
        let wrong = if stream.receive_window < 0 {
            Some(Reason::FlowControl)
        } else if let Some(length) = &mut stream.length {
            // RFC 9113 8.1.1: neither more than announced nor less.
            let left = length.checked_sub(content.len() as u64);
            *length = left.unwrap_or_default();
            (left.is_none() || (ends && *length > 0)).then_some(Reason::Protocol)
        } else {
            None
        };
        if let Some(reason) = wrong {
            self.windows.give_back(head.length);
            return self.reset(head.stream, reason);
        }
        if !is_idle {
            self.guard.work();
        }
        let data = payload.get(content.clone()).unwrap_or_default();
        inflow.push(data, shared.map(|shared| shared.slice(content)), head.length);
        if ends {
            inflow.end(None);
            self.received(place);
        }
        Ok(())
    }

    /// Others are idle: above all so far, a server's, which opens none, or the connection.
    fn has_begun(&self, stream: u32) -> bool {
        stream <= self.last_seen && !stream.is_multiple_of(2)
    }

    fn data_of_nobody(&mut self, head: &Head) -> Result<(), Reason> {
        self.windows.give_back(head.length);
        let was_on_its_way = self.streams.closed(head.stream) == Some(Closed::ByUs);
        if was_on_its_way || self.stage >= Stage::Left {
            return Ok(());
        }
        self.guard.idle_frame()?;
        self.reset(head.stream, Reason::StreamClosed)
    }

    fn headers(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        // RFC 9113 5.1.1.
        if head.stream.is_multiple_of(2) {
            return Err(Reason::Protocol);
        }
        let malformed = head.depends_on_itself(payload);
        let content = payload.get(head.content(payload)?).unwrap_or_default();
        let ends = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.fields(head.stream, ends, malformed, content);
        }
        self.guard.idle_frame()?;
        let bytes = content.to_vec();
        self.block = Some(Block { stream: head.stream, ends, malformed, bytes });
        Ok(())
    }

    fn continuation(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        self.guard.idle_frame()?;
        let Some(mut block) = self.block.take() else { return Err(Reason::Protocol) };
        // CVE-2024-27316: what is compressed is no longer than what it says.
        let bytes_max = self.settings.head_bytes_max.saturating_mul(TOO_MUCH);
        if block.bytes.len() + payload.len() > bytes_max {
            return Err(Reason::EnhanceYourCalm);
        }
        block.bytes.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            return self.fields(block.stream, block.ends, block.malformed, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// Nobody is served before others for it (RFC 9113 5.3.2).
    fn priority(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        self.guard.idle_frame()?;
        if head.stream == 0 {
            return Err(Reason::Protocol);
        }
        let wrong = match payload.len() {
            5 if head.depends_on_itself(payload) => Reason::Protocol,
            5 => return Ok(()),
            _ => Reason::FrameSize,
        };
        // A stream that is idle cannot be reset.
        if self.has_begun(head.stream) { self.reset(head.stream, wrong) } else { Err(wrong) }
    }

    fn rst_stream(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        frame::number(payload).ok_or(Reason::FrameSize)?;
        if !self.has_begun(head.stream) {
            return Err(Reason::Protocol);
        }
        match self.streams.find(head.stream) {
            Some(place) => {
                let is_answered = self
                    .streams
                    .get(place)
                    .is_some_and(|stream| stream.outflow.body.is_some() || stream.outflow.is_over);
                self.streams.close(place, Closed::Known);
                // Whoever waited for an answer may have enough of it.
                if is_answered { self.guard.idle_frame()? } else { self.guard.reset()? }
            }
            None => self.guard.idle_frame()?,
        }
        Ok(())
    }

    fn client_settings(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        self.guard.idle_frame()?;
        if head.stream != 0 {
            return Err(Reason::Protocol);
        }
        if head.has(frame::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Reason::FrameSize) };
        }
        let said = settings::parse(payload)?;
        for bytes in said.table_bytes.into_iter().flatten() {
            self.encoder.resize(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if let Some(bytes) = said.window {
            self.change_windows(i64::from(bytes))?;
        }
        frame::write_settings_ack(&mut self.output.text);
        Ok(())
    }

    /// RFC 9113 6.9.2: of streams that are open, too, where it may take away.
    fn change_windows(&mut self, bytes: i64) -> Result<(), Reason> {
        let more = bytes - self.stream_send_window;
        self.stream_send_window = bytes;
        let mut opened = Vec::new();
        for (place, stream) in self.streams.iter_mut() {
            let outflow = &mut stream.outflow;
            outflow.window += more;
            if outflow.window > i64::from(MAX_31) {
                return Err(Reason::FlowControl);
            }
            // Those in a queue have their turn, or wait for the connection's window.
            if outflow.window > 0 && !stream.is_queued && outflow.stalled_ms.take().is_some() {
                opened.push(place);
            }
        }
        for place in opened {
            self.queue(place);
        }
        Ok(())
    }

    fn ping(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        self.guard.idle_frame()?;
        if head.stream != 0 {
            return Err(Reason::Protocol);
        }
        let payload: [u8; 8] = payload.try_into().map_err(|_| Reason::FrameSize)?;
        if !head.has(frame::ACK) {
            frame::write_ping(frame::ACK, payload, &mut self.output.text);
        } else if self.stage == Stage::Leaving && payload == LEAVING {
            self.leave();
        }
        Ok(())
    }

    fn goaway(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::Protocol);
        }
        if payload.len() < 8 {
            return Err(Reason::FrameSize);
        }
        self.guard.idle_frame()?;
        self.client_leaves = true;
        Ok(())
    }

    fn window_update(&mut self, head: &Head, payload: &[u8]) -> Result<(), Reason> {
        self.guard.idle_frame()?;
        let more = i64::from(frame::number(payload).ok_or(Reason::FrameSize)? & MAX_31);
        if head.stream != 0 && !self.has_begun(head.stream) {
            return Err(Reason::Protocol);
        }
        if head.stream == 0 {
            self.send_window += more;
            for place in self.waiting.drain(..) {
                if let Some(stream) = self.streams.get(place) {
                    stream.outflow.stalled_ms = None;
                }
                self.sending.push_back(place);
            }
            return match more {
                0 => Err(Reason::Protocol),
                _ if self.send_window > i64::from(MAX_31) => Err(Reason::FlowControl),
                _ => Ok(()),
            };
        }
        let Some(place) = self.streams.find(head.stream) else { return Ok(()) };
        let Some(stream) = self.streams.get(place) else { return Ok(()) };
        let outflow = &mut stream.outflow;
        outflow.window += more;
        if more == 0 {
            return self.reset(head.stream, Reason::Protocol);
        }
        if outflow.window > i64::from(MAX_31) {
            return self.reset(head.stream, Reason::FlowControl);
        }
        if outflow.window > 0 && !stream.is_queued && outflow.stalled_ms.take().is_some() {
            self.queue(place);
        }
        Ok(())
    }
}
