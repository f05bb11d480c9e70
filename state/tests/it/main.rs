//! The crate from outside: sources on real directories, the store against a naive model.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

mod directory;
mod fixtures;
mod large;
mod store;
mod support;
