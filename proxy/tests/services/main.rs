//! Services from objects to maps: planning, synchronising, surviving.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

mod full;
mod health_ports;
mod incremental;
mod limits;
mod objects;
mod passes;
mod proxy_name;
mod random;
mod rivals;
mod running;
mod scenarios;
mod simulation;
mod unclaimed;
mod unusable;
mod without_local;
