//! The data path: one thread per core, each with its own listeners, connections and upstream pool.

mod accel;
mod accept;
mod addresses;
#[cfg(test)]
mod alone;
mod answer;
mod auth;
mod balance;
mod body;
mod buffer;
mod client;
mod clock;
mod connect;
mod crew;
mod errors;
mod exchange;
pub(crate) mod fields;
mod forward;
pub(crate) mod front;
mod gates;
mod gzip;
mod http1;
mod http2;
mod identity;
mod inbound;
mod incoming;
mod listen;
mod media;
mod mirror;
mod observed;
mod outgoing;
mod pace;
mod passthrough;
mod pipe;
mod plan;
mod pool;
mod preamble;
mod prefixed;
mod relay;
mod replay;
mod said;
mod scope;
mod send;
mod splice;
mod tunnel;
mod upstream;
mod upstream2;
mod websocket;
mod wire;
mod worker;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub(crate) use self::{
    accept::accept,
    addresses::{Addresses, Full, Seat},
    auth::user,
    client::Client,
    clock::Clock,
    crew::Crew,
    fields::{hex_digits, sent_request_id},
    gates::forwarded_for,
    listen::{Listener, Listening, bind, is_missing_ipv6, socket},
    preamble::read as read_preamble,
    relay::{Means, join},
    scope::argument,
    splice::Pipes,
    worker::{Life, Readiness, run},
};
use crate::{config::IngressConfig, routes::Routes, timer::Timer, tls::Handshakes, traces::Queue};

/// Of the first HTTPS listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpsPort {
    /// Its own.
    pub(crate) listen: u16,
    /// By which the outside knows it; plain HTTP is redirected there.
    pub(crate) outside: u16,
}

/// What all threads share; none of it is locked but for clients' addresses, where those are counted.
#[derive(Debug)]
pub(crate) struct Shared {
    /// May change at any time; each thread has a copy of its own.
    pub(crate) config: Arc<ArcSwap<IngressConfig>>,
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) tls: Arc<ArcSwap<Handshakes>>,
    /// `None` without an HTTPS listener.
    pub(crate) https: Option<HttpsPort>,
    pub(crate) threads: usize,
    /// Who has how many connections.
    pub(crate) crew: Crew,
    /// Which client has how many; `None`: it may have any number.
    pub(crate) addresses: Option<Arc<Addresses>>,
    /// Which peer has how many whose PROXY headers have not come.
    pub(crate) headerless: Arc<Addresses>,
    /// Where spans go.
    pub(crate) traces: Queue,
    pub(crate) timer: Timer,
}
