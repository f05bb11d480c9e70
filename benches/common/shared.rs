//! What benchmarks share; tests use it, too. Each needs some of it.
#![allow(unreachable_pub, dead_code, missing_docs, reason = "shared by several programs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "ends at a surprise")]
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "it prints its table")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clocks and samples")]

pub mod agent;
pub mod charts;
pub mod plot;
pub mod process;
pub mod report;
