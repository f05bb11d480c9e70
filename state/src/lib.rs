//! The cluster as data.
//!
//! One way through: a [`source`] emits [`Change`]s, the [`store::Store`] (the only writer) applies
//! them and publishes an immutable [`Snapshot`]; readers take the newest one from a
//! `tokio::sync::watch`. Nothing is published before every wanted kind is complete.
#![forbid(unsafe_code)]

pub mod change;
pub mod decode;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod kept;
mod line;
pub mod model;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod write;

pub use change::{Change, Dirty, Refusal, SaidClass};
pub use line::{in_one_line, some_of};
pub use model::{Key, Kind, Name, Object, ObjectRef};
pub use snapshot::{Changes, Snapshot};
pub use source::{Running, Source, SourceError, SourceHealth, start};
pub use store::Store;
