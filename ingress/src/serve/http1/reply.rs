//! An answer on its way to the client: its head and what is there of its body leave together.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Response, StatusCode, header::CONNECTION};
use hyper::{
    body::{Body, Frame},
    ext::ReasonPhrase,
};

use super::{link::Link, talk::End};
use crate::{
    admission::names,
    codec::{
        Output, Unanswered,
        h1::{Asks, Misfit, Reply, Sending},
    },
    serve::{
        body::{BodyError, ResponseBody, Spliced},
        client::Client,
        splice::Waits,
    },
};

/// Why an answer is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Its body broke off.
    Short,
    /// Nobody takes it.
    Gone,
}

/// Answers a request.
///
/// # Errors
/// There is no next one on this connection.
pub(super) async fn reply(
    link: &Rc<Link>,
    client: &Rc<Client>,
    asks: Asks,
    response: Response<ResponseBody>,
) -> Result<(), End> {
    if response.extensions().get::<Unanswered>().is_some() {
        // Answers to those before it.
        flush(link, client).await?;
        return Err(End::Gone);
    }
    let (head, mut body) = response.into_parts();
    let settles = poll_fn(|cx| Poll::Ready(link.settles(cx))).await;
    let closes = !asks.keeps || !settles || says_close(&head.headers);
    let (status, headers) = (head.status, &head.headers);
    let reason = head.extensions.get::<ReasonPhrase>();
    let reply = Reply { status, reason, headers, asks, closes };
    let date = || client.worker.clock.date();
    let mut sending = link.answer(|out| reply.write(&body, date, &mut out.text));
    link.give_room(head.headers);
    let until_close = sending == Sending::UntilClose;
    let poured = match sending.is_over() {
        true => Ok(()),
        false => poll_fn(|cx| poll_pour(link, &mut sending, &mut body, cx)).await,
    };
    // Whoever reads slowly is not idle before he could have read all of it.
    let busy = client.hold();
    drop(body);
    if poured == Err(Cut::Gone) {
        return Err(End::Gone);
    }
    let is_last = closes || until_close || poured.is_err();
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    // If the next request is here already its answer may go along; what is left of this one's body is
    // none.
    let is_next_here = link.is_read() && !link.is_drained();
    if is_last || switches || !is_next_here || !link.has_room() {
        flush(link, client).await?;
    }
    drop(busy);
    match poured {
        Err(_) if until_close => return Err(End::Broken),
        Err(_) => return Err(End::Gone),
        Ok(()) => {}
    }
    if switches {
        link.switch();
        return Err(End::Gone);
    }
    if is_last || !is_read_to_its_end(link, client).await {
        return Err(End::Said { is_unread: !link.is_read() });
    }
    Ok(())
}

/// Writes what was said.
///
/// # Errors
/// Nothing can be written any more.
pub(super) async fn flush(link: &Link, client: &Rc<Client>) -> Result<(), End> {
    if link.is_sent() {
        return Ok(());
    }
    let _busy = client.hold();
    poll_fn(|cx| link.poll_output(cx)).await.map_err(|_| End::Gone)
}

/// Puts what comes of the body behind what is to be written, and writes when there is no more, or
/// enough.
fn poll_pour(
    link: &Link,
    sending: &mut Sending,
    body: &mut ResponseBody,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Cut>> {
    loop {
        while link.has_room() {
            if let Some(spliced) = poll_splice(link, sending, body, cx) {
                return spliced;
            }
            let said = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let is_last = body.is_end_stream();
                    link.answer(|out| say(sending, frame, is_last, out))
                }
                Poll::Ready(None) => link.answer(|out| sending.end(out)),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Cut::Short)),
                Poll::Pending => {
                    let is_gone = matches!(link.poll_output(cx), Poll::Ready(Err(_)));
                    if is_gone || link.poll_leave(cx).is_ready() {
                        return Poll::Ready(Err(Cut::Gone));
                    }
                    return Poll::Pending;
                }
            };
            if said.is_err() {
                return Poll::Ready(Err(Cut::Short));
            }
            if sending.is_over() {
                return Poll::Ready(Ok(()));
            }
        }
        if ready!(link.poll_output(cx)).is_err() {
            return Poll::Ready(Err(Cut::Gone));
        }
    }
}

/// A long body that nothing is to be done to goes on by itself behind what was said. `None`: it is to
/// be polled.
fn poll_splice(
    link: &Link,
    sending: &mut Sending,
    body: &mut ResponseBody,
    cx: &mut Context<'_>,
) -> Option<Poll<Result<(), Cut>>> {
    let Sending::Length(left) = *sending else { return None };
    if !body.may_splice(left) {
        return None;
    }
    link.plain(|_| ())?;
    match link.poll_output(cx) {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(_)) => return Some(Poll::Ready(Err(Cut::Gone))),
        Poll::Pending => return Some(Poll::Pending),
    }
    match link.plain(|stream| body.splice(stream, cx))? {
        Spliced::Not => None,
        Spliced::Waits(Waits::More) if link.poll_leave(cx).is_ready() => {
            Some(Poll::Ready(Err(Cut::Gone)))
        }
        Spliced::Waits(_) => Some(Poll::Pending),
        Spliced::Over(Ok(())) => {
            *sending = Sending::Over;
            Some(Poll::Ready(Ok(())))
        }
        Spliced::Over(Err(BodyError::Client(_))) => Some(Poll::Ready(Err(Cut::Gone))),
        Spliced::Over(Err(_)) => Some(Poll::Ready(Err(Cut::Short))),
    }
}

fn say(
    sending: &mut Sending,
    frame: Frame<bytes::Bytes>,
    is_last: bool,
    out: &mut Output,
) -> Result<(), Misfit> {
    match frame.into_data() {
        Ok(data) => sending.data(data, is_last, out),
        Err(frame) => match frame.into_trailers() {
            Ok(trailers) => sending.trailers(trailers, out),
            Err(_) => Ok(()),
        },
    }
}

/// An endpoint may answer first and read on: what is left of the request is no next one.
async fn is_read_to_its_end(link: &Link, client: &Rc<Client>) -> bool {
    if link.is_read() {
        return true;
    }
    let _busy = client.hold();
    let patience_ms = client.worker.config().timeouts.client_body_ms;
    poll_fn(|cx| {
        ready!(link.poll_read_on(patience_ms, cx));
        Poll::Ready(link.settles(cx))
    })
    .await
}

/// RFC 9112 9.6.
fn says_close(headers: &HeaderMap) -> bool {
    names(headers, CONNECTION).any(|name| name.eq_ignore_ascii_case("close"))
}
