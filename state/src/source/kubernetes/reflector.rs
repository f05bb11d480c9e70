//! One list-and-watch: everything once, then every change, for ever.
//!
//! Position is the resourceVersion up to which the target knows everything. Without one the whole
//! is
//! listed again, and the target replaces what it has in one step: nothing flickers meanwhile.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Closed,
    api::{Api, ApiError, Events, From, Query},
    backoff::Backoff,
    wire::{self, Event},
};
use crate::{
    change::{Change, Refusal},
    decode::Decoder,
    model::{Key, Object, ObjectRef},
    snapshot::Snapshot,
    source::{APPLIED_AT_ONCE_MAX, aside},
    store::newest_of_each,
};

/// Items a page of a list.
const PAGE_ITEMS: u32 = 500;
/// A watch that held for so long was a good one: the next try is a first try.
const STEADY: Duration = Duration::from_secs(1);
/// Until a server without an optional kind is asked again: it may have been upgraded.
const ABSENT_RETRY: Duration = Duration::from_secs(600);

/// Who is told.
pub(super) trait Target: Send {
    /// Everything there is now.
    fn listed(
        &mut self,
        objects: Vec<Object>,
        refused: Vec<Refusal>,
    ) -> impl Future<Output = Result<(), Closed>> + Send;

    /// What is known by now: what a list repeats of it is not kept twice.
    fn known(&self) -> Option<Arc<Snapshot>> {
        None
    }

    /// What changed since.
    fn changed(&mut self, changes: Vec<Change>) -> impl Future<Output = Result<(), Closed>> + Send;

    /// The server answers, and what was told is current.
    fn contact(&mut self);

    /// The server does not answer, or not with what was asked for. It will be asked again.
    fn failed(&mut self, error: &ApiError) -> impl Future<Output = Result<(), Closed>> + Send;
}

/// Follows one query for one target.
#[derive(Debug)]
pub(super) struct Reflector<T> {
    api: Arc<Api>,
    query: Query,
    target: T,
    decoder: Decoder,
    backoff: Backoff,
    position: Option<Box<str>>,
    /// The server has streaming lists, as far as is known.
    streaming: bool,
    /// `None` after a list that took longer than the server keeps its pages.
    page_items: Option<u32>,
}

/// What ends a watch.
enum End {
    Closed,
    Failed(ApiError),
}

/// A list that is still coming in, in the order of arrival.
#[derive(Default)]
struct Incoming {
    heard: Vec<Heard>,
}

/// The rare ones are boxed: there is one of these for each object of the cluster.
enum Heard {
    Object(Object),
    Refused(Box<Refusal>),
    Gone(Box<ObjectRef>),
}

impl<T: Target> Reflector<T> {
    pub(super) fn new(api: Arc<Api>, query: Query, target: T) -> Self {
        Self {
            api,
            query,
            target,
            decoder: Decoder::default(),
            backoff: Backoff::default(),
            position: None,
            streaming: true,
            page_items: Some(PAGE_ITEMS),
        }
    }

    /// The same, keeping labels or not.
    pub(super) fn with_labels(self, labels: bool) -> Self {
        Self { decoder: Decoder::new(labels), ..self }
    }

    /// Runs until nobody takes changes any more.
    pub(super) async fn run(mut self) -> Closed {
        loop {
            let began = Instant::now();
            let end = self.follow().await;
            let steady = began.elapsed() >= STEADY;
            if steady {
                self.backoff.reset();
            }
            let again = match end {
                // The server ends each watch after a time that was agreed on.
                Ok(()) => steady,
                Err(End::Closed) => return Closed,
                Err(End::Failed(error)) => match self.recover(error).await {
                    Ok(at_once) => at_once,
                    Err(Closed) => return Closed,
                },
            };
            if !again {
                tokio::time::sleep(self.backoff.next()).await;
            }
        }
    }

    /// Prepares the next try; returns whether it may be made at once.
    async fn recover(&mut self, error: ApiError) -> Result<bool, Closed> {
        let kind = self.query.kind();
        let listing = self.position.is_none();
        match error {
            ApiError::Gone => {
                tracing::debug!("{kind}: the position is gone, listing again");
                self.page_items = if listing { None } else { self.page_items };
                self.position = None;
            }
            ApiError::BrokeOff(error) => tracing::debug!("{kind}: the watch broke off: {error}"),
            error if self.streaming && listing && error.is_invalid() => {
                tracing::debug!("{kind}: the server has no streaming lists ({error})");
                self.streaming = false;
                return Ok(true);
            }
            error => {
                // A server that knows nothing of streaming lists may also ignore the wish for one.
                let ignored = self.streaming && listing && matches!(error, ApiError::Silent(_));
                self.streaming &= !ignored;
                self.target.failed(&error).await?;
                if kind.is_optional() && error.is_absent() {
                    tokio::time::sleep(ABSENT_RETRY).await;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// One watch, from its list (if there is no position yet) to its end.
    async fn follow(&mut self) -> Result<(), End> {
        if self.position.is_none() && !self.streaming {
            self.list_pages().await?;
        }
        let from = self.position.as_deref().map_or(From::Everything, From::Version);
        let mut events = self.api.watch(&self.query, from).await?;
        if self.position.is_none() {
            let later = self.take_initial(&mut events).await?;
            self.take_changes(&later).await?;
        }
        self.target.contact();
        while let Some(lines) = events.read().await? {
            self.take_changes(&lines).await?;
            self.target.contact();
        }
        Ok(())
    }

    async fn list_pages(&mut self) -> Result<(), End> {
        let (api, query, kind) = (self.api.clone(), self.query.clone(), self.query.kind());
        let mut incoming = Incoming::default();
        let mut token = None;
        loop {
            let text = api.list(&query, self.page_items, token).await?;
            let page = wire::page(&mut self.decoder, kind, &text, api.server())?;
            let known = self.target.known();
            page.changes.into_iter().for_each(|change| incoming.take(change, known.as_deref()));
            token = page.next;
            if token.is_none() {
                self.finish(incoming, page.version).await?;
                self.page_items = Some(PAGE_ITEMS);
                return Ok(());
            }
        }
    }

    /// Takes a streaming list up to its end mark; returns the events that came right behind it.
    async fn take_initial(&mut self, events: &mut Events) -> Result<Vec<u8>, End> {
        let mut incoming = Incoming::default();
        loop {
            let Some(lines) = events.read().await? else {
                return Err(cut_short().into());
            };
            let known = self.target.known();
            let mut rest = lines.as_slice();
            while let Some((line, later)) = next_line(rest) {
                rest = later;
                match self.event(line)? {
                    Some(Event::Change { change, .. }) => incoming.take(change, known.as_deref()),
                    Some(Event::Bookmark { version, ends_initial: true }) => {
                        self.finish(incoming, version).await?;
                        return Ok(rest.to_vec());
                    }
                    Some(Event::Bookmark { ends_initial: false, .. }) | None => {}
                }
            }
        }
    }

    async fn finish(&mut self, incoming: Incoming, version: Box<str>) -> Result<(), End> {
        let (objects, refused) = match incoming.heard.len() {
            0..=APPLIED_AT_ONCE_MAX => incoming.sorted_out(),
            _ => aside(move || incoming.sorted_out()).await?,
        };
        self.target.listed(objects, refused).await?;
        self.position = Some(version);
        Ok(())
    }

    /// Hands on what was understood, even if something after it ends the watch.
    async fn take_changes(&mut self, lines: &[u8]) -> Result<(), End> {
        let mut changes = Vec::new();
        let mut position = None;
        let mut rest = lines;
        let mut end = Ok(());
        while let Some((line, later)) = next_line(rest) {
            rest = later;
            match self.event(line) {
                Ok(Some(Event::Change { change, version })) => {
                    changes.push(change);
                    position = version.or(position);
                }
                Ok(Some(Event::Bookmark { version, .. })) => position = Some(version),
                Ok(None) => {}
                Err(error) => {
                    end = Err(error.into());
                    break;
                }
            }
        }
        self.target.changed(changes).await?;
        self.position = position.or(self.position.take());
        end
    }

    fn event(&mut self, line: &[u8]) -> Result<Option<Event>, ApiError> {
        wire::event(&mut self.decoder, self.query.kind(), line, self.api.server())
    }
}

impl Incoming {
    fn take(&mut self, change: Change, known: Option<&Snapshot>) {
        self.heard.push(match change {
            Change::Upsert(object) => Heard::Object(match known {
                Some(known) => known.known(object),
                None => object,
            }),
            Change::Refuse(refusal) => Heard::Refused(refusal.into()),
            Change::Delete(object) => Heard::Gone(object.into()),
            Change::Replace { .. } => return,
        });
    }

    /// The newest of several versions counts.
    fn sorted_out(mut self) -> (Vec<Object>, Vec<Refusal>) {
        newest_of_each(&mut self.heard, Heard::key);
        let mut refused = Vec::new();
        let objects = self.heard.into_iter().filter_map(|heard| match heard {
            Heard::Object(object) => Some(object),
            Heard::Refused(refusal) => {
                refused.push(*refusal);
                None
            }
            Heard::Gone(_) => None,
        });
        (objects.collect(), refused)
    }
}

impl Heard {
    fn key(&self) -> &Key {
        match self {
            Heard::Object(object) => object.key(),
            Heard::Refused(refusal) => &refusal.object.key,
            Heard::Gone(object) => &object.key,
        }
    }
}

impl std::convert::From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        End::Failed(error)
    }
}

impl std::convert::From<Closed> for End {
    fn from(_: Closed) -> Self {
        End::Closed
    }
}

/// The first line that is not empty, and what follows it.
fn next_line(lines: &[u8]) -> Option<(&[u8], &[u8])> {
    let lines = lines.trim_ascii_start();
    let end = lines.iter().position(|byte| *byte == b'\n').unwrap_or(lines.len());
    let (line, rest) = lines.split_at_checked(end)?;
    (!line.is_empty()).then_some((line, rest))
}

fn cut_short() -> ApiError {
    ApiError::BrokeOff(std::io::ErrorKind::UnexpectedEof.into())
}
