//! Integration tests of the real binary, in namespaces and cgroups of their own.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, but not what they share"
)]

mod agent_kubernetes;
mod api_server_addresses;
mod bad_ingress;
mod bad_input;
mod check;
mod cleanup;
mod clock;
mod cold_start;
#[path = "../../benches/common/shared.rs"]
mod common;
mod corefile;
mod demo;
mod dns_overload;
mod docs;
mod drop_in;
mod environment;
mod full_maps;
mod ingress;
mod kubernetes_source;
mod life;
mod live;
mod monitoring;
mod node_cache;
mod operate;
mod page;
mod plots;
mod publish;
mod restart;
mod starts;
mod support;
mod tools;
mod trace;
mod world;
