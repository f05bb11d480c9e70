//! Copies of requests that did not come to their mirror.

use std::fmt;

/// Why there is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Uncopied {
    /// It has a body, which is not copied, or asks for a WebSocket.
    Unfit,
    /// Too many copies are under way.
    Busy,
    /// What mirror-target says of this request is nowhere.
    Target,
    /// The mirror could not be reached or gave no proper answer.
    Unanswered,
}

impl Uncopied {
    /// All reasons, in the order they are shown.
    pub const ALL: [Uncopied; 4] =
        [Uncopied::Unfit, Uncopied::Busy, Uncopied::Target, Uncopied::Unanswered];

    /// The name used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Uncopied::Unfit => "mirror_unfit",
            Uncopied::Busy => "mirror_busy",
            Uncopied::Target => "mirror_target",
            Uncopied::Unanswered => "mirror_unanswered",
        }
    }
}

impl fmt::Display for Uncopied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
