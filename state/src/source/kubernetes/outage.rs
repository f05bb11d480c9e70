//! Says that the API server is out of reach once, not once a kind and try.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::api::ApiError;
use crate::model::Kind;

/// How often a lasting failure is said again.
const REPEAT: Duration = Duration::from_secs(60);

/// What currently fails, and when it was last said.
#[derive(Debug)]
pub(super) struct Outage {
    server: Arc<str>,
    /// Configured by the pod this runs in.
    is_in_cluster: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who is cut off: a kind or an object.
    cut_off: BTreeMap<String, Instant>,
    said: Option<Instant>,
    /// Failures that are one subject's own, and when each was last said.
    own: BTreeMap<String, (String, Instant)>,
}

/// What is to be said.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    CutOff,
    Own,
    Back { after: Duration },
    OwnCured,
}

impl Outage {
    pub(super) fn new(server: Arc<str>, is_in_cluster: bool) -> Self {
        Self { server, is_in_cluster, state: Mutex::default() }
    }

    /// `subject` could not be listed or watched.
    pub(super) fn failed(&self, subject: &str, kind: Kind, error: &ApiError) {
        let say = self.change(|state| state.failed(subject, error, Instant::now()));
        let (server, cure) = (&self.server, error.cure(kind, self.is_in_cluster));
        match say {
            Say::CutOff => tracing::warn!(
                "the API server {server} cannot be reached: {error}; {cure}; \
                 going on with the last known state and trying again"
            ),
            Say::Own => tracing::warn!(
                "{subject} cannot be read from the API server {server}: {error}; {cure}; \
                 trying again"
            ),
            Say::Nothing | Say::Back { .. } | Say::OwnCured => {}
        }
    }

    /// `subject` is followed.
    pub(super) fn contact(&self, subject: &str) {
        let server = &self.server;
        match self.change(|state| state.contact(subject, Instant::now())) {
            Say::Back { after } => tracing::info!(
                "the API server {server} can be reached again after {} s",
                after.as_secs()
            ),
            Say::OwnCured => tracing::info!("{subject} can be read from the API server {server}"),
            Say::Nothing | Say::CutOff | Say::Own => {}
        }
    }

    /// `subject` is no longer asked for.
    pub(super) fn forget(&self, subject: &str) {
        self.change(|state| {
            state.contact(subject, Instant::now());
            Say::Nothing
        });
    }

    fn change(&self, change: impl FnOnce(&mut State) -> Say) -> Say {
        // The state is whole after each change, whoever panicked elsewhere.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn failed(&mut self, subject: &str, error: &ApiError, now: Instant) -> Say {
        let due = |said: Instant| now.saturating_duration_since(said) >= REPEAT;
        if error.is_outage() {
            self.cut_off.entry(subject.to_owned()).or_insert(now);
            if self.said.is_some_and(|said| !due(said)) {
                return Say::Nothing;
            }
            self.said = Some(now);
            return Say::CutOff;
        }
        let text = error.to_string();
        if self.own.get(subject).is_some_and(|(old, said)| *old == text && !due(*said)) {
            return Say::Nothing;
        }
        self.own.insert(subject.to_owned(), (text, now));
        Say::Own
    }

    fn contact(&mut self, subject: &str, now: Instant) -> Say {
        let cured = self.own.remove(subject).is_some();
        let Some(since) = self.cut_off.remove(subject) else {
            return if cured { Say::OwnCured } else { Say::Nothing };
        };
        if !self.cut_off.is_empty() {
            return Say::Nothing;
        }
        self.said = None;
        Say::Back { after: now.saturating_duration_since(since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> ApiError {
        ApiError::Silent(Duration::from_secs(1))
    }

    fn forbidden() -> ApiError {
        ApiError::status(403, "no".to_owned())
    }

    #[test]
    fn all_kinds_cut_off_are_one_line_and_one_when_all_are_back() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(state.failed("Service", &refused(), now), Say::CutOff);
        assert_eq!(state.failed("Node", &refused(), now), Say::Nothing);
        assert_eq!(state.contact("Node", now), Say::Nothing);
        let after = Duration::from_secs(7);
        assert_eq!(state.contact("Service", now + after), Say::Back { after });
        assert_eq!(state.failed("Service", &refused(), now + after), Say::CutOff);
    }

    #[test]
    fn a_lasting_outage_is_said_again_after_a_while() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(state.failed("Service", &refused(), now), Say::CutOff);
        assert_eq!(state.failed("Service", &refused(), now + REPEAT / 2), Say::Nothing);
        assert_eq!(state.failed("Node", &refused(), now + REPEAT), Say::CutOff);
    }

    #[test]
    fn a_missing_right_is_said_for_each_kind_and_when_it_is_cured() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(state.failed("Service", &forbidden(), now), Say::Own);
        assert_eq!(state.failed("Node", &forbidden(), now), Say::Own);
        assert_eq!(state.failed("Node", &forbidden(), now), Say::Nothing);
        assert_eq!(state.contact("Node", now), Say::OwnCured);
        assert_eq!(state.contact("Node", now), Say::Nothing);
    }
}
