//! What benchmarks share; tests use it, too. Each needs some of it.
#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program that prints its table and ends at the first surprise"
)]

pub mod agent;
pub mod charts;
pub mod plot;
pub mod process;
pub mod report;
