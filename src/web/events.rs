//! Live updates: the same page made again every two seconds for whoever follows it, and sent where
//! it differs (server-sent events, HTML standard § 9.2).

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Response,
    body::Frame,
    header::{self, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{Facts, asked::Page, frame, rates::Rates};
use crate::agent::Body;

/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// So many looks without a change and a comment is sent, by which a dead connection is found out.
const SILENT_LOOKS_MAX: u32 = 8;

struct Stream<F> {
    facts: F,
    page: Page,
    rates: Rates,
    /// What was sent last.
    sent: Value,
    silent: u32,
    looks: Interval,
    /// Given back when the browser has gone.
    _permit: OwnedSemaphorePermit,
}

/// A response that goes on as long as somebody listens, with a look every so often.
pub(super) fn follow<F: Facts>(
    facts: F,
    page: Page,
    permit: OwnedSemaphorePermit,
    every: Duration,
) -> Response<Body> {
    let mut looks = interval(every);
    // A look that took long is not made up for.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream {
        facts,
        page,
        rates: Rates::default(),
        sent: Value::Null,
        silent: 0,
        looks,
        _permit: permit,
    };
    let mut response = Response::new(StreamBody::new(stream::unfold(stream, next)).boxed_unsync());
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

type Sent = Result<Frame<Bytes>, Infallible>;

async fn next<F: Facts>(mut stream: Stream<F>) -> Option<(Sent, Stream<F>)> {
    loop {
        stream.looks.tick().await;
        let looking = tokio::task::spawn_blocking(move || {
            let text = stream.look();
            (text, stream)
        });
        let (text, back) = looking.await.ok()?;
        stream = back;
        if let Some(text) = text {
            return Some((Ok(Frame::data(text.into())), stream));
        }
    }
}

impl<F: Facts> Stream<F> {
    fn look(&mut self) -> Option<String> {
        let now = part(&self.facts, &self.page, &mut self.rates);
        if now == self.sent {
            self.silent += 1;
            let is_long = self.silent >= SILENT_LOOKS_MAX;
            self.silent %= SILENT_LOOKS_MAX;
            return is_long.then(|| ":\n\n".to_owned());
        }
        self.silent = 0;
        // JSON has no line breaks of its own: one line of data is enough.
        let text = format!("data: {now}\n\n");
        self.sent = now;
        Some(text)
    }
}

/// What of a page changes, as HTML by the id of its place.
pub(super) fn part<F: Facts>(facts: &F, page: &Page, rates: &mut Rates) -> Value {
    rates.look_again();
    let content = frame::content(facts, page, rates);
    let health = frame::health(&facts.health()).into_string();
    json!({ "health": health, "live": content.live.into_string() })
}
