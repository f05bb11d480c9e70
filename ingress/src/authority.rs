//! Whom an Ingress asks about its requests: where that is, and what it said a moment ago.

mod keeping;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use fairlead_state::Key;
use http::{HeaderMap, HeaderValue, StatusCode};

pub(crate) use self::keeping::Keeping;
use crate::{
    routes::{Asking, Copies, Protocol, Speech, Upstream, UpstreamKey},
    timer::Timer,
    tls::{TlsWish, prepare},
};

/// An address is looked up again after this.
const LOOKED_UP_MS: u64 = 5_000;
const LOOK_UP_TIME: Duration = Duration::from_secs(5);
/// Hosts asked by one Ingress whose auth-url holds a variable.
const PLACES_MAX: usize = 64;
/// Copies of one Ingress under way, from their request's head on; more are not made.
const COPIES_MAX: usize = 256;
/// Answers remembered per Ingress.
const ANSWERS_MAX: usize = 4096;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// What an answer is remembered under: a hash, for a client's own words may be long, and a secret.
pub(crate) type AnswerKey = [u8; SHA256_OUTPUT_LEN];

/// Somebody who is asked.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) asking: Asking,
    pub(crate) places: Places,
    answers: Mutex<HashMap<AnswerKey, Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    answer: Answer,
    keeping: Keeping,
    /// What the request it answers has of the fields that it varies by.
    mark: [u8; 32],
    until: Instant,
}

/// Who is sent copies.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) copies: Copies,
    pub(crate) places: Arc<Places>,
    under_way: Arc<AtomicUsize>,
}

/// One copy under way.
#[derive(Debug)]
pub(crate) struct Turn(Arc<AtomicUsize>);

/// Hosts that URLs of one Ingress lead to.
#[derive(Debug)]
pub(crate) struct Places {
    tls: bool,
    known: Mutex<HashMap<Box<str>, Arc<Place>>>,
    started: Instant,
}

/// One host, and its addresses.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) upstream: Upstream,
    host: Box<str>,
    port: u16,
    speech: Speech,
    /// Since the start; 0: never.
    looked_up_ms: AtomicU64,
}

/// What was said about a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Go on with the request.
    pub(crate) fields: HeaderMap,
    /// Go to the client.
    pub(crate) cookies: Vec<HeaderValue>,
    pub(crate) challenge: Option<HeaderValue>,
}

impl Authority {
    pub(crate) fn new(asking: Asking) -> Self {
        let places = Places::new(asking.url.tls);
        Self { asking, places, answers: Mutex::default() }
    }

    /// What was said of a request with that key and these fields.
    pub(crate) fn remembered(&self, key: &AnswerKey, request: &HeaderMap) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answers.get(key).filter(|known| known.until > Instant::now())?;
        (known.keeping.mark(request)? == known.mark).then(|| known.answer.clone())
    }

    /// Keeps an answer as long as the Ingress and whoever gave it say, whichever is shorter.
    pub(crate) fn remember(
        &self,
        key: AnswerKey,
        request: &HeaderMap,
        answer: &Answer,
        keeping: Keeping,
    ) {
        let Some(duration) = self.asking.cached_for(answer.status.as_u16()) else { return };
        let duration = keeping.longest.map_or(duration, |longest| longest.min(duration));
        let Some(mark) = keeping.mark(request) else { return };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, known| known.until > now);
        }
        if answers.len() < ANSWERS_MAX {
            let (answer, until) = (answer.clone(), now + duration);
            answers.insert(key, Remembered { answer, keeping, mark, until });
        }
    }
}

/// `None` never happens: the hash has that length.
pub(crate) fn answer_key(text: &str) -> Option<AnswerKey> {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().ok()
}

impl Places {
    fn new(tls: bool) -> Self {
        Self { tls, known: Mutex::default(), started: Instant::now() }
    }

    /// The place of an authority (`HOST[:PORT]`), its addresses looked up; `None`: there is none.
    pub(crate) async fn place(&self, authority: &str, timer: &Timer) -> Option<Arc<Place>> {
        let place = self.find(authority)?;
        let now = self.now_ms();
        let looked_up = place.looked_up_ms.load(Relaxed);
        let is_due = looked_up == 0 || now.saturating_sub(looked_up) >= LOOKED_UP_MS;
        let has_none = place.upstream.endpoints().list.is_empty();
        if is_due || has_none {
            // Others go by what is known meanwhile.
            place.looked_up_ms.store(now, Relaxed);
            place.look_up(timer).await;
        }
        Some(place)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn find(&self, authority: &str) -> Option<Arc<Place>> {
        let mut places = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(authority) {
            return Some(place.clone());
        }
        let place = Arc::new(Place::of(authority, self.tls)?);
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert(authority.into(), place.clone());
        Some(place)
    }
}

impl Mirror {
    pub(crate) fn new(copies: Copies) -> Self {
        let places = Arc::new(Places::new(copies.url.tls));
        Self { copies, places, under_way: Arc::default() }
    }

    /// `None`: too many copies are under way.
    pub(crate) fn begin(&self) -> Option<Turn> {
        let turn = Turn(self.under_way.clone());
        (self.under_way.fetch_add(1, Relaxed) < COPIES_MAX).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Place {
    fn of(authority: &str, tls: bool) -> Option<Self> {
        let (host, port) = split(authority)?;
        let port = port.unwrap_or(if tls { HTTPS_PORT } else { HTTP_PORT });
        let name = Key::new("auth-url", host);
        let speech = if tls {
            // As nginx: encrypted, to whoever is there, who is told whom we want.
            let wish = TlsWish { server_name: true, name: Some(host.into()), ..TlsWish::default() };
            let tls = prepare(&wish, &name, b"http/1.1", None).ok()?;
            Speech { protocol: Protocol::Https, tls: Some(Arc::new(tls)) }
        } else {
            Speech::default()
        };
        let upstream = Upstream::new(UpstreamKey::of(name));
        let looked_up_ms = AtomicU64::new(0);
        Some(Self { upstream, host: host.into(), port, speech, looked_up_ms })
    }

    async fn look_up(&self, timer: &Timer) {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, self.port));
        // What was found before is better than nothing.
        if let Some(Ok(found)) = timer.timeout(LOOK_UP_TIME, found).await {
            let mut addresses: Vec<SocketAddr> = found.collect();
            addresses.sort();
            addresses.dedup();
            self.upstream.set(&addresses, &self.speech, None);
        }
    }
}

fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    crate::host::normalise(authority)?;
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for (text, expected) in [
            ("auth.svc", Some(("auth.svc", None))),
            ("auth.svc:8080", Some(("auth.svc", Some(8080)))),
            ("[::1]:80", Some(("[::1]", Some(80)))),
            ("[::1]", Some(("[::1]", None))),
            ("auth:99999", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
