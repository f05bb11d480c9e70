//! Copies of requests that did not come to their mirror.

use std::fmt;

/// Why there is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Uncopied {
    /// It is a conversation: gRPC, or a WebSocket.
    Unfit,
    /// Its body is larger than what is held for a copy.
    TooLarge,
    /// Its body did not come to an end: the client broke off, or the request was answered before.
    CutOff,
    /// Too many copies are under way, or they hold as much as they may.
    Busy,
    /// What mirror-target says of this request is nowhere.
    Target,
    /// The mirror could not be reached, or gave no proper answer before its thread ended.
    Unanswered,
}

impl Uncopied {
    /// All reasons, in the order they are shown.
    pub const ALL: [Uncopied; 6] = [
        Uncopied::Unfit,
        Uncopied::TooLarge,
        Uncopied::CutOff,
        Uncopied::Busy,
        Uncopied::Target,
        Uncopied::Unanswered,
    ];

    /// The name used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Uncopied::Unfit => "mirror_unfit",
            Uncopied::TooLarge => "mirror_too_large",
            Uncopied::CutOff => "mirror_cut_off",
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
