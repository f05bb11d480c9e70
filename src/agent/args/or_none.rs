//! Flags that `""` turns off.

/// A value, or nothing. Of an `Option` clap makes a flag that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

impl<T> OrNone<T> {
    /// What `parse` reads, but nothing of `""`.
    pub(super) fn of<E>(text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Self, E> {
        if text.is_empty() { Ok(Self(None)) } else { parse(text).map(|value| Self(Some(value))) }
    }
}
