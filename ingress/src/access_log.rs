//! One line for each request, made by the thread that served it and written by another.
//!
//! ```text
//! request -> Record (what only the request knows) -> last byte sent -> Lines of the thread
//!         -> bounded queue, in blocks -> the writing thread -> file or standard output
//! ```
//! Lines go on in blocks, at the latest with the thread's next tick. A queue that is full costs
//! lines, which are counted, and never a request its time.

mod format;
mod line;
mod lines;
mod text;
mod writer;

use std::path::PathBuf;

pub use self::format::LogFormat;
pub(crate) use self::{
    line::Written,
    lines::Lines,
    writer::{Queue, queue, write},
};
use crate::matcher::TextMatches;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to; made anew when it was moved away.
    File(PathBuf),
}

/// What is logged of requests.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where to.
    pub target: LogTarget,
    /// What a line says.
    pub format: LogFormat,
    /// Requests that are left out, by path and query as received.
    pub skip: TextMatches,
}

impl AccessLog {
    /// ingress-nginx's format.
    pub fn to(target: LogTarget) -> Self {
        Self { target, format: LogFormat::default(), skip: TextMatches::default() }
    }

    pub(crate) fn skips(&self, target: &[u8]) -> bool {
        self.skip.fits(target)
    }
}
