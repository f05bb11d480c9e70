//! How many regular expressions there may be, and how large in all.

use crate::expression::Expression;

/// Expressions of one Ingress, those of its rewriting among them.
const INGRESS_EXPRESSIONS_MAX: usize = 2048;
/// Memory of them, in bytes. One of a path of thirty letters is about 3 KiB.
const INGRESS_BYTES_MAX: usize = 8 << 20;
/// Expressions that a request for one host may be compared with.
const HOST_EXPRESSIONS_MAX: usize = 2048;
/// Memory of them, in bytes; the time a request may take is in proportion to it.
const HOST_BYTES_MAX: usize = 8 << 20;

/// What there is still room for. Once something did not fit nothing does, so that what is served does not
/// depend on the sizes of what comes later.
#[derive(Debug)]
pub(super) struct Budget {
    of: &'static str,
    /// At first: how many, and their bytes.
    whole: (usize, usize),
    expressions: usize,
    bytes: usize,
    is_over: bool,
}

impl Budget {
    pub(super) fn of_ingress() -> Self {
        Self::new("an Ingress", INGRESS_EXPRESSIONS_MAX, INGRESS_BYTES_MAX)
    }

    pub(super) fn of_host() -> Self {
        Self::new("a host", HOST_EXPRESSIONS_MAX, HOST_BYTES_MAX)
    }

    fn new(of: &'static str, expressions: usize, bytes: usize) -> Self {
        Self { of, whole: (expressions, bytes), expressions, bytes, is_over: false }
    }

    /// Whether something did not fit.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes the room of all of them, if there are any; `false`: there is none.
    pub(super) fn take<'e>(&mut self, all: impl IntoIterator<Item = &'e Expression>) -> bool {
        let (mut count, mut bytes) = (0, 0usize);
        for expression in all {
            count += 1;
            bytes = bytes.saturating_add(expression.bytes());
        }
        if count == 0 {
            return true;
        }
        self.is_over |= count > self.expressions || bytes > self.bytes;
        if !self.is_over {
            self.expressions -= count;
            self.bytes -= bytes;
        }
        !self.is_over
    }

    /// Why paths are left out: the first one, and how many.
    pub(super) fn refusal(&self, path: &str, count: usize) -> String {
        let (expressions, bytes) = self.whole;
        let more = match count {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        format!(
            "path {path:?}{more}: no more than {expressions} regular expressions, and {} MiB of them, \
             are served of {}: write plain paths, or shorter expressions",
            bytes >> 20,
            self.of
        )
    }
}
