use std::{fmt, ops::Deref};

/// Fields that most objects leave at their defaults; those objects keep a null pointer for them.
#[derive(Clone, PartialEq, Eq)]
pub struct Rare<T>(Option<Box<T>>);

/// What [`Rare`] can hold.
pub trait Plain: Eq + 'static {
    /// The value with every field at its default.
    fn plain() -> &'static Self;
}

impl<T: Plain> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::plain(),
        }
    }
}

impl<T: Plain> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        // Equal values are kept in one way, so that equal objects are equal.
        Self((value != *T::plain()).then(|| Box::new(value)))
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
