//! The rest of an endpoint's answer, on its way to a client without being read.

use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::{
    BodyError,
    answered::{Carrier, UpstreamBody},
};
use crate::{
    codec::Malformed,
    serve::{
        observed::Observer,
        splice::{Broke, Moved, Pipes, Pump, SPLICED_BYTES_MIN, Waits},
    },
};

/// What became of a body that was to go on by itself.
#[derive(Debug)]
pub(crate) enum Spliced {
    /// Nothing: it is to be polled.
    Not,
    /// Not all of it went on yet.
    Waits(Waits),
    /// This is its end.
    Over(Result<(), BodyError>),
}

/// Whether a body goes on by itself.
#[derive(Debug, Default)]
pub(crate) enum Splicing {
    /// There was no occasion yet.
    #[default]
    Undecided,
    Going(Box<Pump>),
    /// It is read and written.
    Never,
}

impl Splicing {
    pub(super) fn begin(pipes: &Pipes, left: u64) -> Self {
        Pump::begin(pipes, left).map_or(Self::Never, |pump| Self::Going(Box::new(pump)))
    }
}

impl UpstreamBody {
    /// These are the bytes left, and they could go to a client's connection by themselves.
    pub(super) fn may_splice(&self, left: u64) -> bool {
        match (&self.splicing, &self.carrier) {
            (Splicing::Going(_), _) => true,
            (Splicing::Undecided, Some(Carrier::H1(connection))) => {
                left >= SPLICED_BYTES_MIN
                    && connection.bare().is_some_and(|(known, _)| known == left)
            }
            _ => false,
        }
    }

    /// What goes to a client's connection by itself, and how much of it went there just now.
    pub(super) fn splice(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> (usize, Spliced) {
        let Some(Carrier::H1(connection)) = &mut self.carrier else { return (0, Spliced::Not) };
        let worker = &self.client.worker;
        let Some((left, from)) = connection.bare() else { return (0, Spliced::Not) };
        if matches!(self.splicing, Splicing::Undecided) {
            self.splicing = Splicing::begin(&worker.pipes, left);
        }
        let Splicing::Going(pump) = &mut self.splicing else { return (0, Spliced::Not) };
        let polled = pump.poll(Some(from), to, cx);
        let waits = pump.waits();
        let watch = self.client.watch();
        let is_late = watch.expired() && watch.awaits_write();
        if polled.is_pending() && waits == Waits::Room && is_late && pump.push(to) {
            cx.waker().wake_by_ref();
        }
        let moved = pump.moved();
        connection.pass_over(moved.taken as u64);
        worker.counters.spliced_bytes.add_all(moved.given as u64);
        if moved.given > 0 {
            self.client.live().written();
        }
        let outcome = match polled {
            Poll::Pending => match self.wait(waits, moved, cx) {
                Ok(()) => return (moved.given, Spliced::Waits(waits)),
                Err(error) => Err(error),
            },
            Poll::Ready(Err(Broke::Unable(error))) => {
                tracing::debug!(%error, "a body is copied");
                self.splicing = Splicing::Never;
                return (moved.given, Spliced::Not);
            }
            Poll::Ready(outcome) => outcome.map_err(BodyError::from),
        };
        self.splicing = Splicing::Never;
        match &outcome {
            Ok(()) => self.finish(),
            Err(_) => self.carrier = None,
        }
        (moved.given, Spliced::Over(outcome))
    }

    fn wait(&self, waits: Waits, moved: Moved, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(carrier) = &self.carrier else { return Ok(()) };
        let watch = carrier.watch();
        if moved != Moved::default() {
            watch.disarm();
        }
        match waits {
            Waits::More => {
                watch.arm_once(self.read_ms);
                watch.register(cx.waker());
                if watch.expired() {
                    self.client.worker.counters.upstream_timeouts.add();
                    return Err(BodyError::TimedOut);
                }
            }
            Waits::Room => {
                // That is not the endpoint's fault.
                watch.disarm();
                self.client.live().blocked();
            }
            Waits::Turn => {}
        }
        Ok(())
    }
}

impl From<Broke> for BodyError {
    fn from(broke: Broke) -> Self {
        match broke {
            Broke::From(error) | Broke::Unable(error) => Self::Endpoint(error),
            Broke::CutOff => Self::Answer(Malformed::CutOff),
            Broke::To(error) => Self::Client(error),
        }
    }
}
