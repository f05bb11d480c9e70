//! What is refused, differs or waits, with the object's name and a reason a person can act on.

use std::{borrow::Cow, fmt, sync::Arc};

use fairlead_state::{Key, Kind, ObjectRef, in_one_line};

/// How much of an object a finding affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A part of the object is not served.
    Refused,
    /// It is served, but something in it has no effect or another one.
    Differs,
    /// It will be served once something else exists.
    Waiting,
}

/// One thing worth knowing about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Which object.
    pub object: ObjectRef,
    /// How much it affects.
    pub severity: Severity,
    /// One line: the field, its value, the cure. Whoever may read the object may read it.
    pub reason: Arc<str>,
    /// An Ingress of another namespace that the reason speaks of without a name: its name is for
    /// administrators, and not for Events.
    pub other: Option<Key>,
}

impl Finding {
    /// A finding about any object. Whatever the reason repeats of a value cannot break the line.
    pub(crate) fn new(object: ObjectRef, severity: Severity, reason: impl Into<Arc<str>>) -> Self {
        let reason: Arc<str> = reason.into();
        let reason = match in_one_line(&reason) {
            Cow::Borrowed(_) => reason.clone(),
            Cow::Owned(line) => line.into(),
        };
        Self { object, severity, reason, other: None }
    }

    /// A finding about an Ingress.
    pub(crate) fn ingress(key: &Key, severity: Severity, reason: impl Into<Arc<str>>) -> Self {
        let object = ObjectRef { kind: Kind::Ingress, key: key.clone() };
        Self::new(object, severity, reason)
    }

    /// A refusal of what another Ingress has, or decides. Who owns the one may not be allowed to know
    /// which others there are: `reason` gets a name for it, and that of another namespace names none.
    pub(crate) fn beside(key: &Key, other: &Key, reason: impl FnOnce(&str) -> String) -> Self {
        let is_own = key.namespace == other.namespace;
        let reason = match is_own {
            true => reason(&other.to_string()),
            false => reason("Ingress of another namespace"),
        };
        let other = (!is_own).then(|| other.clone());
        Self { other, ..Self::ingress(key, Severity::Refused, reason) }
    }

    /// The reason with the name that Events do not tell.
    pub fn in_full(&self) -> String {
        match &self.other {
            Some(other) => format!("{} ({other})", self.reason),
            None => self.reason.to_string(),
        }
    }
}

impl Severity {
    /// The word used in status and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Refused => "refused",
            Severity::Differs => "differs",
            Severity::Waiting => "waiting",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.object, self.severity.as_str(), self.in_full())
    }
}

/// Says what is new; what was already said is not repeated.
pub(crate) fn tell(old: &[Finding], new: &[Finding]) {
    for finding in new.iter().filter(|finding| !old.contains(finding)) {
        tracing::warn!("{finding}");
    }
}
