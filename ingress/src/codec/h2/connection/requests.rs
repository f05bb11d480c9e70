//! From a block of fields to a request that is served.

use http::{Method, header::EXPECT};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, Stage};
use crate::codec::h2::{
    Reason, Serve, Surroundings,
    head::{Fields, Head},
    hpack::Unread,
    receive::{Inflow, Received},
    streams::Closed,
};

/// RFC 9110 10.1.1.
const CONTINUE: &[u8] = b"100-continue";

impl<S, V, W> Connection<S, V, W>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Serve,
    W: Surroundings,
{
    /// A whole block: a request's head, or the trailers of one. It is read whatever becomes of it:
    /// the next one depends on it.
    pub(super) fn fields(
        &mut self,
        id: u32,
        ends: bool,
        malformed: bool,
        block: &[u8],
    ) -> Result<(), Reason> {
        let mut fields = Fields::new(self.settings.head_bytes_max);
        match self.decoder.decode(block, &mut fields) {
            Ok(()) => {}
            Err(Unread::Invalid) => return Err(Reason::Compression),
            Err(Unread::TooMuch) => return Err(Reason::EnhanceYourCalm),
        }
        if id > self.last_seen {
            return self.request(id, ends, malformed, fields);
        }
        let Some(place) = self.streams.find(id) else {
            return match self.streams.closed(id) {
                Some(Closed::ByUs) => Ok(self.guard.idle_frame()?),
                Some(Closed::Known) => Err(Reason::StreamClosed),
                None if self.stage >= Stage::Left => Ok(self.guard.idle_frame()?),
                // RFC 9113 5.1.1: skipped when a later one began.
                None => Err(Reason::Protocol),
            };
        };
        let Some(stream) = self.streams.get(place) else { return Ok(()) };
        let Some(inflow) = &stream.inflow else { return self.reset(id, Reason::StreamClosed) };
        let is_short = stream.length.is_some_and(|left| left > 0);
        match fields.into_trailers() {
            Ok(trailers) if ends && !malformed && !is_short => {
                inflow.end(Some(trailers));
                self.received(place);
                Ok(())
            }
            _ => self.reset(id, Reason::Protocol),
        }
    }

    fn request(
        &mut self,
        id: u32,
        ends: bool,
        malformed: bool,
        fields: Fields,
    ) -> Result<(), Reason> {
        self.last_seen = id;
        // RFC 9113 6.8: the client was told that it would not be served.
        if self.stage >= Stage::Left {
            return Ok(self.guard.idle_frame()?);
        }
        self.last_served = id;
        self.guard.work();
        if self.streams.is_full() {
            return self.reset(id, Reason::Refused);
        }
        match fields.into_request(ends) {
            Ok(head) if !malformed => {
                self.serve(id, ends, head);
                Ok(())
            }
            _ => self.reset(id, Reason::Protocol),
        }
    }

    fn serve(&mut self, id: u32, ends: bool, head: Head) {
        let (head, length) = head;
        let send = self.stream_send_window;
        let receive = i64::from(self.settings.stream_window_bytes);
        let place = self.streams.open(id, send, receive);
        let Some(stream) = self.streams.get(place) else { return };
        if std::mem::take(&mut stream.is_queued) {
            // That was the place's last stream.
            self.sending.retain(|queued| *queued != place);
            self.waiting.retain(|queued| *queued != place);
        }
        let body = if ends {
            Received::nothing()
        } else {
            let expected = head.headers().get(EXPECT);
            let waits =
                expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(CONTINUE));
            let (inflow, body) = Inflow::new(length, waits, &self.windows, &stream.waker);
            stream.inflow = Some(inflow);
            body
        };
        stream.length = length;
        stream.is_head = head.method() == Method::HEAD;
        let answer = self.service.serve(head.map(|()| body));
        stream.answer.set(Some(answer));
        // Begun once all that was read is taken: it may be given up already (CVE-2023-44487).
        self.woken.push(place);
    }

    /// A request is whole.
    pub(super) fn received(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place) else { return };
        stream.inflow = None;
        if stream.outflow.is_over {
            self.streams.close(place, Closed::Known);
        }
    }
}
