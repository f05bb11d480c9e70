//! A WebSocket's handshake, on both sides.

use std::rc::Rc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};

use super::{http1::Upgraded, incoming::Incoming};
use crate::{limiter::Slot, record::Record};

/// RFC 6455 1.3.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client's wish for a WebSocket.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) side: Side,
    /// Counted until the tunnel ends.
    pub(super) slot: Option<Slot>,
    /// Told of when it ends.
    pub(super) record: Rc<Record>,
    /// Over HTTP/2 we are the one who asks: what a proper answer holds.
    accept: Option<HeaderValue>,
}

/// The client's side of what may become a tunnel.
#[derive(Debug)]
pub(super) enum Side {
    /// The connection, once it has its answer.
    Connection(Upgraded),
    /// A stream: what it sends, and after the answer's head what it is sent.
    Stream(Incoming),
}

impl Asked {
    pub(super) fn by_upgrade(upgraded: Upgraded, slot: Option<Slot>, record: Rc<Record>) -> Self {
        Self { side: Side::Connection(upgraded), slot, record, accept: None }
    }

    /// RFC 8441 5.1: the key is HTTP/1's; over HTTP/2 there is none.
    pub(super) fn by_connect(
        body: Incoming,
        slot: Option<Slot>,
        record: Rc<Record>,
        headers: &mut HeaderMap,
    ) -> Self {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let accept = HeaderValue::try_from(accept(key.as_bytes())).ok();
        if let Ok(key) = HeaderValue::try_from(key) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        Self { side: Side::Stream(body), slot, record, accept }
    }

    fn is_connect(&self) -> bool {
        self.accept.is_some()
    }

    /// Whether an upstream's 101 is one to this request.
    pub(super) fn is_agreed(&self, headers: &HeaderMap) -> bool {
        let protocol = headers.get(UPGRADE).map(HeaderValue::as_bytes);
        let agreed = protocol.is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"));
        let accepted = self.accept.as_ref().is_none_or(|accept| {
            headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|answer| answer == accept)
        });
        agreed && accepted
    }

    /// Makes the head of an upstream's 101 the client's.
    pub(super) fn agree<B>(&self, response: &mut Response<B>) {
        if self.is_connect() {
            *response.status_mut() = StatusCode::OK;
            let headers = response.headers_mut();
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            return;
        }
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }

    /// To a CONNECT any 2xx is a yes, whatever the upstream meant by it.
    pub(super) fn is_misread(&self, status: StatusCode) -> bool {
        self.is_connect() && status.is_success()
    }
}

fn accept(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SUFFIX].concat()))
}

#[cfg(test)]
mod tests {
    /// RFC 6455 1.3 has this example.
    #[test]
    fn the_answer_to_a_key() {
        let accept = super::accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
