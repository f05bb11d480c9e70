//! What this binary was built from.

/// `0.1.0 (commit)`: `build.rs` says which commit.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("FAIRLEAD_COMMIT"), ")");
