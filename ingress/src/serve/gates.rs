//! Who may go on, in the order of nginx's phases: limits first (preaccess), then addresses and
//! authentication (access).

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

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
    routes::{Access, Extra, Verdict},
};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whom balancers in front name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named {
    /// `None`: nobody.
    pub(super) client: Option<IpAddr>,
    /// How many entries from the last one it stands, itself included.
    pub(super) hops: usize,
}

/// Counts the request.
pub(super) fn count(
    client: &Client,
    extra: &Extra,
    headers: &HeaderMap,
) -> Result<Option<Slot>, Refused> {
    let Some(limiter) = &extra.limiter else { return Ok(None) };
    limiter.enter(address(client, headers)).map_err(|too_much| match too_much {
        TooMuch::Requests => Refused::RequestRate,
        TooMuch::Connections => Refused::ClientConnections,
    })
}

/// Looks at where it comes from and who sends it; with `satisfy: any` one of all is enough.
pub(super) async fn pass(
    client: &Rc<Client>,
    extra: &Extra,
    scope: &Scope<'_>,
) -> Result<LetIn, Response<ResponseBody>> {
    let access = extra.access.as_ref();
    let judge = |access: &Access| access.judge(address(client, &scope.head.headers));
    let is_asked = auth::is_asked(extra, &scope.route.path);
    let is_either = is_asked && access.is_some_and(Access::is_either);
    match access.map_or(Verdict::Silent, judge) {
        Verdict::Denied if !is_either => Err(refuse(client, Refused::Address)),
        Verdict::Allowed if is_either => Ok(LetIn::unnamed(extra, is_asked)),
        _ if !is_asked => Ok(LetIn::unnamed(extra, is_asked)),
        _ => auth::ask(client, extra, scope, is_either).await,
    }
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

/// The client, by the connection or by a balancer in front that is believed.
pub(super) fn address(client: &Client, headers: &HeaderMap) -> IpAddr {
    forwarded_for(client, headers).unwrap_or(client.peer)
}

/// The client, as a balancer in front that is believed names it. `None`: the connection says who it
/// is.
pub(crate) fn forwarded_for(client: &Client, headers: &HeaderMap) -> Option<IpAddr> {
    is_believed(client).then(|| named(client, headers).client).flatten()
}

/// Whether it is believed what a connection's requests say of who asked, and how.
pub(super) fn is_believed(client: &Client) -> bool {
    client.forwarded() == ForwardedHeaders::Trust
}

/// The last one of X-Forwarded-For that is no balancer (nginx: real_ip_recursive). What stands before
/// it anybody may have written.
pub(super) fn named(client: &Client, headers: &HeaderMap) -> Named {
    let config = client.worker.config();
    let fields = headers.get_all(&X_FORWARDED_FOR).iter().rev();
    let texts = fields.flat_map(|field| field.to_str().unwrap_or_default().rsplit(','));
    let mut named = Named::default();
    for text in texts {
        let Some(address) = read(text.trim()) else { break };
        named = Named { client: Some(address), hops: named.hops + 1 };
        if !config.is_balancer(address) {
            break;
        }
    }
    named
}

/// Some balancers add a port.
fn read(text: &str) -> Option<IpAddr> {
    let address =
        text.parse().or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_port_and_nothing_else() {
        let v4 = Some("192.0.2.1".parse().unwrap());
        for (text, expected) in [
            ("192.0.2.1", v4),
            ("192.0.2.1:4000", v4),
            ("::ffff:192.0.2.1", v4),
            ("2001:db8::1", "2001:db8::1".parse().ok()),
            ("[2001:db8::1]:80", "2001:db8::1".parse().ok()),
            ("unknown", None),
            ("192.0.2.1 x", None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
