//! Who is waited for while a request is sent, and how long.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use crate::{routes::Patience, serve::clock::Watch};

/// How far a request's body is: decides who is waited for, and how long.
#[derive(Debug)]
pub(crate) struct Progress {
    stage: Cell<Upload>,
    /// Of the connection it is sent on.
    watch: RefCell<Option<Arc<Watch>>>,
    client_body_ms: u64,
    upstream_send_ms: u64,
    upstream_read_ms: u64,
}

/// Who is to act next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// The upstream has not taken what is there.
    Sending,
    /// The client has not sent more.
    Receiving,
    /// The client broke off.
    Broken,
    /// The client sent more than it may.
    TooLarge,
    /// All of it was sent.
    Done,
}

impl Progress {
    pub(crate) fn new(client_body_ms: u64, patience: &Patience) -> Self {
        Self {
            stage: Cell::new(Upload::Sending),
            watch: RefCell::default(),
            client_body_ms,
            upstream_send_ms: patience.send_ms,
            upstream_read_ms: patience.read_ms,
        }
    }

    /// The body is about to be sent on the connection of this watch.
    pub(crate) fn begin(&self, watch: &Arc<Watch>) {
        watch.arm(self.upstream_send_ms);
        *self.watch.borrow_mut() = Some(watch.clone());
    }

    pub(crate) fn stage(&self) -> Upload {
        self.stage.get()
    }

    pub(crate) fn reach(&self, stage: Upload) {
        let waited_on = stage == Upload::Receiving && self.stage.get() == Upload::Receiving;
        self.stage.set(stage);
        if waited_on {
            return;
        }
        if let Some(watch) = &*self.watch.borrow() {
            watch.arm(match stage {
                Upload::Receiving => self.client_body_ms,
                Upload::Sending | Upload::Broken | Upload::TooLarge => self.upstream_send_ms,
                Upload::Done => self.upstream_read_ms,
            });
        }
    }
}
