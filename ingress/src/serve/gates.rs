//! Who may go on, in the order of nginx's phases: limits first (preaccess), then addresses and
//! authentication (access).

use std::{net::IpAddr, rc::Rc};

use http::{HeaderMap, HeaderName, Response};

use super::{
    answer,
    auth::{self, LetIn},
    body::ResponseBody,
    client::Client,
    scope::Scope,
};
use crate::{
    config::ForwardedHeaders,
    counters::Refused,
    limiter::{Slot, TooMuch},
    routes::{Access, Extra},
};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Counts the request.
pub(super) fn count(
    client: &Client,
    extra: &Extra,
    headers: &HeaderMap,
) -> Result<Option<Slot>, Refused> {
    if extra.denied.is_some() {
        return Err(Refused::Misconfigured);
    }
    let Some(limiter) = &extra.limiter else { return Ok(None) };
    limiter.enter(address(client, headers)).map_err(|too_much| match too_much {
        TooMuch::Requests => Refused::RequestRate,
        TooMuch::Connections => Refused::ClientConnections,
    })
}

/// Looks at where it comes from and who sends it; with `satisfy: any` one of both is enough.
pub(super) async fn pass(
    client: &Rc<Client>,
    extra: &Extra,
    scope: &Scope<'_>,
) -> Result<LetIn, Response<ResponseBody>> {
    let access = extra.access.as_ref();
    let admitted = access.is_none_or(|access| access.admits(address(client, &scope.head.headers)));
    let is_asked = auth::is_asked(extra, &scope.route.path);
    let is_either = is_asked && access.is_some_and(Access::is_either);
    if !admitted && !is_either {
        return Err(refuse(client, Refused::Address));
    }
    if !is_asked || (admitted && is_either) {
        return Ok(LetIn::default());
    }
    auth::ask(client, extra, scope).await
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
    let config = client.worker.config();
    let status = match reason {
        Refused::RequestRate => config.request_rate_status,
        Refused::ClientConnections => config.client_connections_status,
        _ => reason.status(),
    };
    answer::text(status, line)
}

/// The client, by the connection; where a balancer in front is believed, by what that one added to
/// X-Forwarded-For itself: what stands before it anybody may have written.
pub(super) fn address(client: &Client, headers: &HeaderMap) -> IpAddr {
    if client.forwarded != ForwardedHeaders::Trust {
        return client.peer;
    }
    let last = headers.get_all(&X_FORWARDED_FOR).iter().next_back();
    let text = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    let address = text.and_then(|text| text.trim().parse::<IpAddr>().ok());
    address.map_or(client.peer, |address| address.to_canonical())
}
