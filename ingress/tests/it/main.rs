//! The Ingress role on real sockets: listeners on loopback, upstreams on 127.0.0.x, snapshots by the store.
#![forbid(unsafe_code)]

mod attacks;
mod change;
mod drain;
mod http;
mod planner;
mod routing;
mod support;
mod tls;
mod upstreams;
mod websocket;
