//! What this binary was built from.

/// `0.1.0`.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The commit, or what stands for it.
pub(crate) const COMMIT: &str = env!("FAIRLEAD_COMMIT");

/// `0.1.0 (commit)`: `build.rs` says which commit.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("FAIRLEAD_COMMIT"), ")");
