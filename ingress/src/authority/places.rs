//! Hosts that URLs of one Ingress lead to, and what is known of their addresses.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fairlead_state::Key;
use tokio::sync::watch;

use super::finder::{Finder, Found};
use crate::{
    routes::{Protocol, Speech, Upstream, UpstreamKey, Url},
    timer::Timer,
    tls::{TlsWish, prepare},
};

/// An address is looked up again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// One that was not found is not looked up for each of its requests.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Who has no address yet waits for one as long as this.
const LOOK_UP_TIME: Duration = Duration::from_secs(5);
/// Hosts asked by one Ingress whose auth-url holds a variable.
const PLACES_MAX: usize = 64;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Hosts that URLs of one Ingress lead to.
#[derive(Debug)]
pub(crate) struct Places {
    tls: bool,
    finder: Finder,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    places: HashMap<Box<str>, Held>,
    /// How often any of them was asked for.
    turns: u64,
}

#[derive(Debug)]
struct Held {
    place: Arc<Place>,
    /// At which turn it came, and was asked for last.
    came: u64,
    asked: u64,
}

/// One host, and its addresses.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) upstream: Upstream,
    host: Box<str>,
    port: u16,
    speech: Speech,
    made: Instant,
    /// When it is to be looked up next, in milliseconds since it was made.
    due_ms: AtomicU64,
    is_looked_up: AtomicBool,
    /// How many look-ups have ended.
    ended: watch::Sender<u64>,
}

/// The look-up of a place that is under way. Its end is told, however it ends.
struct LookUp(Arc<Place>);

impl Places {
    pub(super) fn new(tls: bool, finder: Finder) -> Self {
        Self { tls, finder, known: Mutex::default() }
    }

    /// Of a URL. `known`: those of its predecessor, which go on if they would be found again.
    pub(super) fn of(url: &Url, finder: Finder, known: Option<(&Url, &Arc<Self>)>) -> Arc<Self> {
        let same = known.filter(|(of, places)| *of == url && places.finder.is_as(&finder));
        match same {
            Some((_, places)) => places.clone(),
            None => Arc::new(Self::new(url.tls, finder)),
        }
    }

    /// The place of an authority (`HOST[:PORT]`), with its addresses if there are any; `None`: it is none.
    /// Only the first ones are waited for; later they are looked up beside the requests.
    pub(crate) async fn place(&self, authority: &str, timer: &Timer) -> Option<Arc<Place>> {
        let place = self.find(authority)?;
        // From before its begin on, so that no end is missed.
        let mut ended = place.ended.subscribe();
        if let Some(look_up) = place.begin() {
            look_up.run(&self.finder);
        }
        let is_looked_up = || place.is_looked_up.load(Ordering::Acquire);
        if !place.upstream.has_endpoints() && is_looked_up() {
            let _ = timer.timeout(LOOK_UP_TIME, ended.changed()).await;
        }
        Some(place)
    }

    /// Why an authority that is an address leads nowhere.
    pub(super) fn problem(&self, authority: &str) -> Option<Arc<str>> {
        let (host, port) = split(authority)?;
        self.finder.problem(unbracketed(host), port.unwrap_or(usual_port(self.tls)))
    }

    fn find(&self, authority: &str) -> Option<Arc<Place>> {
        let known = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.turns += 1;
        let turn = known.turns;
        if let Some(held) = known.places.get_mut(authority) {
            held.asked = turn;
            return Some(held.place.clone());
        }
        let place = Arc::new(Place::of(authority, self.tls)?);
        // What nobody looks up now takes no other one's place.
        if self.finder.is_busy() {
            return Some(place);
        }
        if known.places.len() >= PLACES_MAX {
            known.give_way();
        }
        let held = Held { place: place.clone(), came: turn, asked: turn };
        known.places.insert(authority.into(), held);
        Some(place)
    }
}

impl Known {
    /// Forgets one. First those that lead nowhere, the oldest of them, however often they are asked for: clients
    /// make hosts up. Then whoever was not asked for the longest.
    fn give_way(&mut self) {
        let first = self.places.iter().min_by_key(|(_, held)| {
            let leads = held.place.upstream.has_endpoints();
            (leads, if leads { held.asked } else { held.came })
        });
        if let Some(host) = first.map(|(host, _)| host.clone()) {
            self.places.remove(&host);
        }
    }
}

impl Place {
    fn of(authority: &str, tls: bool) -> Option<Self> {
        let (host, port) = split(authority)?;
        let port = port.unwrap_or(usual_port(tls));
        let name = Key::new("auth-url", host);
        let speech = if tls {
            // As nginx: encrypted, to whoever is there, who is told whom we want.
            let wish = TlsWish { server_name: true, name: Some(host.into()), ..TlsWish::default() };
            let tls = prepare(&wish, &name, b"http/1.1", None).ok()?;
            Speech { protocol: Protocol::Https, tls: Some(Arc::new(tls)) }
        } else {
            Speech::default()
        };
        Some(Self {
            upstream: Upstream::new(UpstreamKey::of(name)),
            host: host.into(),
            port,
            speech,
            made: Instant::now(),
            due_ms: AtomicU64::new(0),
            is_looked_up: AtomicBool::new(false),
            ended: watch::Sender::new(0),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// `None`: nothing is due, or somebody does it.
    fn begin(self: &Arc<Self>) -> Option<LookUp> {
        let is_due = || self.now_ms() >= self.due_ms.load(Ordering::Relaxed);
        if !is_due() || self.is_looked_up.swap(true, Ordering::AcqRel) {
            return None;
        }
        let look_up = LookUp(self.clone());
        // The one before may have ended just now.
        is_due().then_some(look_up)
    }

    fn learn(&self, found: Found) {
        match found {
            Ok(addresses) => {
                let addresses: Vec<SocketAddr> =
                    addresses.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
                self.upstream.set(&addresses, &self.speech, None);
                self.next_in(LOOK_AGAIN);
            }
            // What was found before is better than nothing.
            Err(_) => self.next_in(TRY_AGAIN),
        }
    }

    fn next_in(&self, time: Duration) {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.due_ms.store(self.now_ms().saturating_add(time_ms), Ordering::Relaxed);
    }
}

impl LookUp {
    fn run(self, finder: &Finder) {
        let (host, port) = (unbracketed(&self.0.host).into(), self.0.port);
        finder.find(host, port, move |found| self.0.learn(found));
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        self.0.is_looked_up.store(false, Ordering::Release);
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}

fn usual_port(tls: bool) -> u16 {
    if tls { HTTPS_PORT } else { HTTP_PORT }
}

fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    crate::host::normalise(authority)?;
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests;
