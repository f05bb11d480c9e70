//! The role on real sockets: listeners on loopback, upstreams on 127.0.0.x, snapshots by the store.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

mod access_log;
mod annotations;
mod answers;
mod attacks;
mod attacks2;
mod change;
mod client_connections;
mod crew;
mod cve;
mod drain;
mod expressions;
mod floods;
mod fronted;
mod grpc;
mod gzip;
mod handover;
mod http;
mod http1;
mod leaving;
mod limits;
mod matching;
mod metrics;
mod options;
mod passthrough;
mod planner;
mod proxy_protocol;
mod rest;
mod routing;
mod slow_readers;
mod splice;
mod streams;
mod support;
mod tenants;
mod tls;
mod tls_sections;
mod traces;
mod upstream_tls;
mod upstreams;
mod version1;
mod websocket;
