//! A request's body as it arrives. Whoever reads it reads the connection, so a client is read no
//! faster than the endpoint reads.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{net::TcpStream, sync::oneshot::Receiver};

use super::link::Link;
use crate::{
    codec::h2::Broken,
    serve::{
        prefixed::Prefixed,
        splice::{Broke, Moved, Pump},
        wire::ClientWire,
    },
};

/// The body. Dropping it gives the rest up.
#[derive(Debug)]
pub(crate) struct Arriving {
    /// `None`: there is none.
    link: Option<Rc<Link>>,
    /// Of which request of the connection.
    request: u64,
}

/// A connection that speaks HTTP no longer, and what was read of it.
pub(in crate::serve) type Bare = Prefixed<ClientWire>;

/// Becomes one, once the client has its 101.
#[derive(Debug)]
pub(crate) struct Upgraded(Option<Receiver<Bare>>);

impl Arriving {
    pub(super) fn new(link: Option<Rc<Link>>, request: u64) -> Self {
        Self { link, request }
    }

    pub(crate) fn upgraded(&self) -> Upgraded {
        Upgraded(self.link.as_ref().map(|link| link.upgraded()))
    }

    /// Bytes that are left, if nothing is to be done but to pass them on.
    pub(crate) fn bare_left(&self) -> Option<u64> {
        self.open()?.bare_left()
    }

    /// They go on by themselves: what moved, and the end of it.
    pub(crate) fn splice(
        &self,
        pump: &mut Pump,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> (Moved, Poll<Result<(), Broke>>) {
        match self.open() {
            Some(link) => link.splice(pump, to, cx),
            // All was taken, and the conversation has gone on.
            None => {
                let polled = pump.poll(None, to, cx);
                (pump.moved(), polled)
            }
        }
    }

    fn open(&self) -> Option<&Rc<Link>> {
        self.link.as_ref().filter(|link| link.request() == self.request)
    }
}

impl Upgraded {
    /// Of what is no connection.
    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// Waits for the 101 to be written. `None`: it was not.
    pub(in crate::serve) async fn connection(self) -> Option<Bare> {
        self.0?.await.ok()
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.open().map_or(Poll::Ready(None), |link| link.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.open().is_none_or(|link| link.is_read())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(link) = self.open() else { return SizeHint::with_exact(0) };
        link.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(link) = self.open() {
            link.give_up();
        }
    }
}
