//! Who may go on, in the order of nginx's phases: limits first (preaccess), then addresses and
//! authentication (access).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Response};

use super::{answer, body::ResponseBody, client::Client};
use crate::{
    config::ForwardedHeaders,
    counters::Refused,
    limiter::{Slot, TooMuch},
    routes::Extra,
};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Counts the request and looks at where it comes from.
pub(super) fn enter(
    client: &Client,
    extra: &Extra,
    headers: &HeaderMap,
) -> Result<Option<Slot>, Refused> {
    if extra.denied.is_some() {
        return Err(Refused::Misconfigured);
    }
    let address = address(client, headers);
    let entered = extra.limiter.as_ref().map(|limiter| limiter.enter(address)).transpose();
    let slot = entered.map_err(|too_much| match too_much {
        TooMuch::Requests => Refused::RequestRate,
        TooMuch::Connections => Refused::ClientConnections,
    })?;
    if extra.access.as_ref().is_some_and(|access| !access.admits(address)) {
        return Err(Refused::Address);
    }
    Ok(slot.flatten())
}

/// Answers for a request that may not go on.
pub(super) fn refuse(client: &Client, reason: Refused) -> Response<ResponseBody> {
    client.worker.counters.refused(reason);
    let line = match reason {
        Refused::Misconfigured => "What guards this path cannot be read: nobody is let in.\n",
        Refused::RequestRate => "Too many requests.\n",
        Refused::ClientConnections => "Too many requests at once.\n",
        _ => "Not from this address.\n",
    };
    answer::text(reason.status(), line)
}

/// The client, by the connection; where a balancer in front is believed, by what that one added to
/// X-Forwarded-For itself: what stands before it anybody may have written.
pub(super) fn address(client: &Client, headers: &HeaderMap) -> IpAddr {
    if client.worker.shared.config.forwarded_headers != ForwardedHeaders::Trust {
        return client.peer;
    }
    let last = headers.get_all(&X_FORWARDED_FOR).iter().next_back();
    let text = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    let address = text.and_then(|text| text.trim().parse::<IpAddr>().ok());
    address.map_or(client.peer, |address| address.to_canonical())
}
