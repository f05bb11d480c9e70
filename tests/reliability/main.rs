//! What nodes and clusters go through, under traffic: minutes of work, so apart from `make test` (`make test-reliability`).
#![allow(
    unreachable_pub,
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "shared with tests/it; a test that cannot go on fails"
)]

#[path = "../it/support"]
mod support {
    pub(crate) mod agent;
    pub(crate) mod apiserver;
    pub(crate) mod cluster;
    pub(crate) mod world;
}

mod changes;
mod ends;
mod flood;
mod node;
mod outages;
mod power;
#[path = "../../benches/common/process.rs"]
mod process;
mod routes;
#[path = "../../benches/services/stats.rs"]
mod stats;
mod traffic;
