//! How long endpoints take to answer, where that decides who is asked.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{
    routes::Endpoint,
    serve::body::{Progress, Upload},
};

/// One that was asked just now. Given up, as by a client that leaves, it took as long at least: who never
/// answers would be the fastest (ingress-nginx: ewma.lua is told the time of whatever became of it).
pub(super) struct Timing {
    /// `None`: it is told already.
    endpoint: Option<Arc<Endpoint>>,
    begun: Instant,
    /// Of the request's body; `None`: it has none.
    upload: Option<Rc<Progress>>,
}

impl Timing {
    pub(super) fn of(endpoint: &Arc<Endpoint>, upload: Option<Rc<Progress>>) -> Self {
        Self { endpoint: Some(endpoint.clone()), begun: Instant::now(), upload }
    }

    /// How long the endpoint has been waited for. `None`: its client is, and slow clients are no endpoint's
    /// slowness.
    fn waited(&self) -> Option<Duration> {
        let since = match &self.upload {
            None => self.begun,
            Some(upload) => match upload.stage() {
                Upload::Receiving | Upload::Broken | Upload::TooLarge => return None,
                Upload::Sending => self.begun,
                Upload::Done => upload.done_at().map_or(self.begun, |done| done.max(self.begun)),
            },
        };
        Some(since.elapsed())
    }

    /// `failed_by`: the status of an endpoint that did not answer.
    pub(super) fn end(mut self, failed_by: Option<StatusCode>) {
        if failed_by == Some(StatusCode::GATEWAY_TIMEOUT) {
            return;
        }
        // Whoever breaks off says nothing of how fast it is.
        if let Some(endpoint) = self.endpoint.take().filter(|_| failed_by.is_none()) {
            // Who answers before it has all, as to gRPC, did not wait for it.
            endpoint.answered_in(self.waited().unwrap_or_else(|| self.begun.elapsed()));
        }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint
            && let Some(waited) = self.waited()
        {
            endpoint.silent_for(waited);
        }
    }
}

#[cfg(test)]
mod tests {
    use fairlead_state::Key;

    use super::*;
    use crate::routes::{Patience, Pick, Speech, Upstream, UpstreamKey};

    /// It was asked so long ago; whatever there is of an upload has come just now.
    fn since(endpoint: &Arc<Endpoint>, ms: u64, upload: Option<Upload>) -> Timing {
        let begun = Instant::now().checked_sub(Duration::from_millis(ms)).unwrap();
        let upload = upload.map(|stage| {
            let patience = Patience { connect_ms: 1, send_ms: 1, read_ms: 1 };
            let progress = Rc::new(Progress::new(1, &patience));
            progress.reach(stage);
            progress
        });
        Timing { endpoint: Some(endpoint.clone()), begun, upload }
    }

    type End = fn(Timing);
    const ANSWERED: End = |timing| timing.end(None);
    const LATE: End = |timing| timing.end(Some(StatusCode::GATEWAY_TIMEOUT));
    const BROKEN: End = |timing| timing.end(Some(StatusCode::BAD_GATEWAY));

    /// Whether one that was as fast as `before_ms` says is asked again, beside one of 100 ms.
    fn is_asked(before_ms: Option<u64>, ended: impl FnOnce(&Arc<Endpoint>)) -> bool {
        let upstream = Upstream::new(UpstreamKey::of(Key::new("shop", "web")));
        let addresses = ["192.0.2.1:80", "192.0.2.2:80"].map(|text| text.parse().unwrap());
        upstream.set(&addresses, &Speech::default(), None);
        let [known, other] = &*upstream.endpoints().list else { panic!() };
        since(known, 100, None).end(None);
        if let Some(ms) = before_ms {
            since(other, ms, None).end(None);
        }
        ended(other);
        let asked = [(0, 1), (1, 0)].map(|(a, b)| {
            let chosen = upstream.choose(Pick::Faster { a, b }, &[]).unwrap();
            chosen.id() == other.id()
        });
        assert_eq!(asked[0], asked[1], "whichever is drawn first");
        asked[0]
    }

    #[test]
    fn bug_who_gives_no_answer_is_not_the_fastest() {
        for (name, before_ms, end, after_ms, expected) in [
            ("an answer", None, ANSWERED, 5_000, false),
            ("none in time", None, LATE, 5_000, false),
            ("none before the client left", None, drop, 5_000, false),
            ("none in time, and it was fast", Some(1), LATE, 60_000, false),
            // It is as fast as it was.
            ("none before the client left soon", Some(1), drop, 2, true),
            ("a connection that broke", Some(1), BROKEN, 5_000, true),
        ] {
            let ended = |other: &Arc<Endpoint>| end(since(other, after_ms, None));
            assert_eq!(is_asked(before_ms, ended), expected, "{name}");
        }
    }

    /// Endpoints were put out for minutes by whoever uploads a byte a second and leaves.
    #[test]
    fn attack_an_endpoint_is_not_as_slow_as_what_its_clients_send() {
        for (name, before_ms, stage, end, expected) in [
            ("its client sent slowly and left", Some(1), Upload::Receiving, drop as End, true),
            ("or broke off", Some(1), Upload::Broken, drop, true),
            ("or sent too much", Some(1), Upload::TooLarge, drop, true),
            ("an answer, once all was there", None, Upload::Done, ANSWERED, true),
            ("none yet, as all was there just now", Some(1), Upload::Done, drop, true),
            // It did not take what was there.
            ("the endpoint reads slowly", Some(1), Upload::Sending, drop, false),
            ("and answers at last", None, Upload::Sending, ANSWERED, false),
        ] {
            let ended = |other: &Arc<Endpoint>| end(since(other, 600_000, Some(stage)));
            assert_eq!(is_asked(before_ms, ended), expected, "{name}");
        }
    }
}
