//! How many regular expressions there may be, and how large in all.

use smallvec::{SmallVec, smallvec};

use crate::expression::Expression;

/// Expressions of one Ingress, those of its rewriting among them.
const INGRESS_EXPRESSIONS_MAX: usize = 2048;
/// Memory of them, in bytes. One of a path of thirty letters is about 3 KiB.
const INGRESS_BYTES_MAX: usize = 8 << 20;
/// Expressions that a request for one host may be compared with.
const HOST_EXPRESSIONS_MAX: usize = 2048;
/// Memory of them, in bytes.
const HOST_BYTES_MAX: usize = 8 << 20;
/// Steps in which a request's path is compared with them, and as many again for its rewriting, for all
/// conditions of snippets, for a canary's field and for a certificate's name: a step takes some 10 ns, and
/// the thread has other requests.
pub(crate) const REQUEST_STEPS_MAX: u32 = 500_000;

/// What is left of a request's steps for each of the namespaces that have expressions of its host.
#[derive(Debug)]
pub(super) struct Steps(SmallVec<[Share; 2]>);

#[derive(Clone, Copy, Debug)]
struct Share {
    left: u32,
    is_over: bool,
}

impl Steps {
    /// The first one is that which has the host: it has half of them, or all, whatever others have.
    pub(super) fn of(namespaces: usize) -> Self {
        let guests = u32::try_from(namespaces.saturating_sub(1)).unwrap_or(u32::MAX);
        let own = if guests == 0 { REQUEST_STEPS_MAX } else { REQUEST_STEPS_MAX / 2 };
        let of = |left| Share { left, is_over: false };
        let mut shares = smallvec![of(own.checked_div(guests).unwrap_or(0)); namespaces];
        if let Some(first) = shares.first_mut() {
            *first = of(own);
        }
        Self(shares)
    }

    /// Whether an expression of a namespace matches; as if it did not once its steps are taken.
    pub(super) fn is_match(&mut self, of: usize, expression: &Expression, text: &[u8]) -> bool {
        let Some(share) = self.0.get_mut(of).filter(|share| !share.is_over) else { return false };
        let matched = expression.is_match_within(text, &mut share.left);
        share.is_over = matched.is_err();
        matched == Ok(true)
    }

    /// Whether something of a namespace was not compared to its end.
    pub(super) fn is_over(&self, of: usize) -> bool {
        self.0.get(of).is_some_and(|share| share.is_over)
    }
}

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
