//! How long endpoints take to answer, where that decides who is asked.

use std::{sync::Arc, time::Instant};

use http::StatusCode;

use crate::routes::Endpoint;

/// One that was asked just now. Given up, as by a client that leaves, it took as long at least: who never
/// answers would be the fastest (ingress-nginx: ewma.lua is told the time of whatever became of it).
pub(super) struct Timing {
    /// `None`: it is told already.
    endpoint: Option<Arc<Endpoint>>,
    begun: Instant,
}

impl Timing {
    pub(super) fn of(endpoint: &Arc<Endpoint>) -> Self {
        Self { endpoint: Some(endpoint.clone()), begun: Instant::now() }
    }

    /// `failed_by`: the status of an endpoint that did not answer.
    pub(super) fn end(mut self, failed_by: Option<StatusCode>) {
        if failed_by == Some(StatusCode::GATEWAY_TIMEOUT) {
            return;
        }
        // Whoever breaks off says nothing of how fast it is.
        if let Some(endpoint) = self.endpoint.take().filter(|_| failed_by.is_none()) {
            endpoint.answered_in(self.begun.elapsed());
        }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.silent_for(self.begun.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fairlead_state::Key;

    use super::*;
    use crate::routes::{Pick, Speech, Upstream, UpstreamKey};

    /// It was asked so long ago.
    fn since(endpoint: &Arc<Endpoint>, ms: u64) -> Timing {
        let begun = Instant::now().checked_sub(Duration::from_millis(ms)).unwrap();
        Timing { endpoint: Some(endpoint.clone()), begun }
    }

    #[test]
    fn bug_who_gives_no_answer_is_not_the_fastest() {
        type End = fn(Timing);
        let answered: End = |timing| timing.end(None);
        let late: End = |timing| timing.end(Some(StatusCode::GATEWAY_TIMEOUT));
        let broken: End = |timing| timing.end(Some(StatusCode::BAD_GATEWAY));
        for (name, before, end, after_ms, is_asked) in [
            ("an answer", None, answered, 5_000, false),
            ("none in time", None, late, 5_000, false),
            ("none before the client left", None, drop, 5_000, false),
            ("none in time, and it was fast", Some(1), late, 60_000, false),
            // It is as fast as it was.
            ("none before the client left soon", Some(1), drop, 2, true),
            ("a connection that broke", Some(1), broken, 5_000, true),
        ] {
            let upstream = Upstream::new(UpstreamKey::of(Key::new("shop", "web")));
            let addresses = ["192.0.2.1:80", "192.0.2.2:80"].map(|text| text.parse().unwrap());
            upstream.set(&addresses, &Speech::default(), None);
            let [known, other] = &*upstream.endpoints().list else { panic!() };
            since(known, 100).end(None);
            if let Some(ms) = before {
                since(other, ms).end(None);
            }
            end(since(other, after_ms));
            for (a, b) in [(0, 1), (1, 0)] {
                let chosen = upstream.choose(Pick::Faster { a, b }, &[]).unwrap();
                assert_eq!(chosen.id() == other.id(), is_asked, "{name}");
            }
        }
    }
}
