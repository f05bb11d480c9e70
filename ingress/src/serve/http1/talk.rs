//! The conversation: requests are read, served and answered, one after the other.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use http::Response;
use tokio::task::coop::consume_budget;

use super::{
    link::Link,
    reply::{flush, reply},
};
use crate::{
    codec::h1::{Asks, Head, Unread},
    counters::Refused,
    serve::{
        answer, body::ResponseBody, client::Client, exchange, incoming::Incoming, worker::Stage,
    },
};

/// Why a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing came for a while, and nothing is under way.
    Rest,
    /// The client speaks HTTP/2.
    Preface,
    /// The last answer is written; the client may still be sending.
    Said { is_unread: bool },
    /// It is not whole, and only the connection's end can say so.
    Broken,
    /// There is nobody any more.
    Gone,
}

/// Polls a conversation; `None`: a deadline came first. Pinned where it is made, as what [`Watch`](crate::serve::clock::Watch) limits.
pub(super) async fn attend<T>(
    link: &Link,
    client: &Client,
    mut talking: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|cx| {
        client.watch().register(cx.waker());
        match link.attended(|| talking.as_mut().poll(cx)) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending if !client.watch().expired() => Poll::Pending,
            Poll::Pending if client.watch().awaits_write() && link.pushes() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Ready(None),
        }
    })
    .await
}

/// Serves until there is a reason not to.
pub(super) async fn talk(link: &Rc<Link>, client: &Rc<Client>) -> End {
    loop {
        let head = match next(link, client).await {
            Ok(head) => head,
            Err(end) => return end,
        };
        let Head { request, framing, asks, doubt } = head;
        let body = link.begin(framing, asks);
        let request = request.map(|()| Incoming::Http1(body));
        // In its place: it is copied no more than need be.
        let mut handling = pin!(exchange::handle(client.clone(), request, doubt));
        let Some(response) = served(link, handling.as_mut()).await else { return End::Gone };
        match reply(link, client, asks, response).await {
            Ok(()) => {}
            // Where its body ends nobody knows.
            Err(End::Said { .. }) if doubt.is_some() => return End::Said { is_unread: true },
            Err(end) => return end,
        }
        // Others are served by this thread, too.
        consume_budget().await;
    }
}

/// Waits for the next head. What cannot be read as one is answered.
async fn next(link: &Rc<Link>, client: &Rc<Client>) -> Result<Head, End> {
    client.watch().wake_when_expired();
    loop {
        match link.next_head() {
            Ok(Some(head)) => return Ok(head),
            Ok(None) => {}
            Err(Unread::Preface) if !client.tls => return Err(End::Preface),
            Err(Unread::Preface) => return Err(refuse(link, client, Refused::Malformed).await),
            Err(Unread::Refused(reason)) => return Err(refuse(link, client, reason).await),
        }
        // Answers to requests that came together leave together, and before more is waited for.
        flush(link, client).await?;
        more(link, client).await?;
    }
}

/// Waits for bytes.
async fn more(link: &Link, client: &Client) -> Result<(), End> {
    if !link.is_drained() {
        // It came while another request was served (nginx: client_header_timeout).
        client.live().head_begins();
    }
    poll_fn(|cx| {
        let is_idle = link.is_drained();
        match link.poll_read(cx) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
            Poll::Ready(_) => Poll::Ready(Err(End::Gone)),
            Poll::Pending if is_idle && client.worker.stage.get() >= Stage::Closing => {
                Poll::Ready(Err(End::Said { is_unread: false }))
            }
            Poll::Pending if is_idle && client.watch().may_rest() => Poll::Ready(Err(End::Rest)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn refuse(link: &Rc<Link>, client: &Rc<Client>, reason: Refused) -> End {
    client.worker.counters.refused(reason);
    match reply(link, client, Asks::default(), answer::status(reason.status())).await {
        Ok(()) | Err(End::Said { .. }) => End::Said { is_unread: true },
        Err(end) => end,
    }
}

/// Waits for the answer; `None`: the client left.
async fn served<E>(
    link: &Link,
    mut handling: Pin<&mut impl Future<Output = Result<Response<ResponseBody>, E>>>,
) -> Option<Response<ResponseBody>> {
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = handling.as_mut().poll(cx) {
            return Poll::Ready(outcome.ok());
        }
        // Answers to the requests before it.
        if let Poll::Ready(Err(_)) = link.poll_output(cx) {
            return Poll::Ready(None);
        }
        link.poll_leave(cx).map(|()| None)
    })
    .await
}
