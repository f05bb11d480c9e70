//! One of several: who holds a Lease leads. client-go's rules (leaderelection.go).
//!
//! Clocks of other machines are not believed: a holder is gone when its record has not changed for
//! the time it asked for, as measured here.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::api::PostParams;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Attempt, FIELD_MANAGER, WriteError, Writer, owned};
use crate::model::Key;

/// A holder that says nothing for so long is gone.
const LEASE_SECONDS: i32 = 30;
/// How often a candidate looks, and how long a holder leads without a renewal.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between renewals, and between looks of those who wait. Jitter is added.
    turn: Duration,
    /// A holder that could not renew for so long stops before others begin.
    deadline: Duration,
}

impl Pace {
    const USUAL: Self = Self { turn: Duration::from_secs(10), deadline: Duration::from_secs(20) };
}

const READ: Attempt = Attempt { what: "reading the Lease", right: "get on leases" };
const MAKE: Attempt = Attempt { what: "making the Lease", right: "create on leases" };
const WRITE: Attempt = Attempt { what: "writing the Lease", right: "update on leases" };

/// Which Lease, and as whom.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Its namespace and name.
    pub key: Key,
    /// Unique among the candidates, and another one after a restart.
    pub identity: Arc<str>,
}

/// A candidate for a Lease.
#[derive(Debug)]
pub struct Leadership {
    leads: watch::Sender<bool>,
    candidate: Candidate,
    writer: Writer,
    pace: Pace,
    /// When the last renewal that went well was begun: others count from when they see it, which may be
    /// any time after.
    renewed: Option<Instant>,
}

#[derive(Debug)]
struct Candidate {
    options: LeaseOptions,
    /// The record as last seen, and when it was first seen so.
    seen: Option<(LeaseSpec, Instant)>,
}

/// What a candidate does.
#[derive(Clone, Debug, PartialEq)]
enum Turn {
    /// Somebody else holds it.
    Wait,
    /// Write this.
    Write(Box<LeaseSpec>),
}

impl Leadership {
    /// A candidate, and whether it leads.
    pub fn new(writer: Writer, options: LeaseOptions) -> (Self, watch::Receiver<bool>) {
        let (leads, seen) = watch::channel(false);
        let candidate = Candidate { options, seen: None };
        (Self { leads, candidate, writer, pace: Pace::USUAL, renewed: None }, seen)
    }

    /// Competes until cancelled. The Lease is kept then: [`Leadership::give_up`] lets it go.
    pub async fn run(&mut self, cancel: &CancellationToken) {
        let mut said = None;
        while !cancel.is_cancelled() {
            let begun = Instant::now();
            match self.turn_in_time().await {
                Ok(leads) => {
                    self.renewed = leads.then_some(begun);
                    said = None;
                }
                Err(error) => {
                    let reason = error.to_string();
                    if said.as_ref() != Some(&reason) {
                        tracing::warn!(lease = %self.candidate.options.key, "{reason}");
                        said = Some(reason);
                    }
                }
            }
            let left = self.left();
            self.renewed = self.renewed.filter(|_| !left.is_zero());
            self.tell(self.renewed.is_some());
            let pause = self.pace.turn.mul_f64(rand::random_range(0.8..1.2));
            let pause = if self.renewed.is_some() { pause.min(left) } else { pause };
            let _ = cancel.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    /// How long it may go on to lead without a renewal.
    fn left(&self) -> Duration {
        self.renewed.map_or(Duration::ZERO, |at| self.pace.deadline.saturating_sub(at.elapsed()))
    }

    /// Who leads waits for no answer longer than it may lead (leaderelection.go: renew).
    async fn turn_in_time(&mut self) -> Result<bool, WriteError> {
        if self.renewed.is_none() {
            return self.turn().await;
        }
        let (left, deadline) = (self.left(), self.pace.deadline);
        timeout(left, self.turn()).await.unwrap_or_else(|_| {
            let reason = format!("no renewal within {} s", deadline.as_secs());
            Err(WriteError::Unavailable { what: WRITE.what, reason })
        })
    }

    /// Lets others lead at once.
    pub async fn give_up(self) {
        if !*self.leads.borrow() {
            return;
        }
        self.tell(false);
        let key = &self.candidate.options.key;
        let api = self.writer.namespaced::<Lease>(&key.namespace);
        let given_up = async {
            let mut lease = READ.at(api.get(&key.name)).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&*self.candidate.options.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            WRITE.at(api.replace(&key.name, &params(), &lease)).await.map(drop)
        };
        if let Err(error) = given_up.await {
            let error: WriteError = error;
            tracing::warn!(lease = %key, "{error}");
        }
    }

    fn tell(&self, leads: bool) {
        let changed = self.leads.send_if_modified(|told| std::mem::replace(told, leads) != leads);
        if changed {
            let Key { namespace, name } = &self.candidate.options.key;
            tracing::info!(lease = format!("{namespace}/{name}"), leads, "leadership");
        }
    }

    async fn turn(&mut self) -> Result<bool, WriteError> {
        let key = self.candidate.options.key.clone();
        let api = self.writer.namespaced::<Lease>(&key.namespace);
        let mut lease = match READ.at(api.get(&key.name)).await {
            Ok(lease) => lease,
            Err(WriteError::Gone { .. }) => {
                let metadata = ObjectMeta { name: owned(&key.name), ..ObjectMeta::default() };
                let spec = Some(self.candidate.taken(&LeaseSpec::default()));
                let made = MAKE.at(api.create(&params(), &Lease { metadata, spec })).await;
                return won(made.map(drop));
            }
            Err(error) => return Err(error),
        };
        let record = lease.spec.unwrap_or_default();
        match self.candidate.turn(record, Instant::now()) {
            Turn::Wait => Ok(false),
            Turn::Write(spec) => {
                lease.spec = Some(*spec);
                // The resourceVersion that was read goes along: of two who try, one wins.
                won(WRITE.at(api.replace(&key.name, &params(), &lease)).await.map(drop))
            }
        }
    }
}

impl Candidate {
    fn turn(&mut self, record: LeaseSpec, now: Instant) -> Turn {
        let seen = match self.seen.take() {
            Some((seen, at)) if seen == record => (seen, at),
            _ => (record, now),
        };
        let (record, since) = self.seen.insert(seen);
        let holder = record.holder_identity.as_deref().unwrap_or_default();
        if holder == &*self.options.identity {
            let renewed = LeaseSpec { renew_time: Some(self::now()), ..record.clone() };
            return Turn::Write(Box::new(renewed));
        }
        let asked = record.lease_duration_seconds.unwrap_or(LEASE_SECONDS);
        let asked = Duration::from_secs(u64::try_from(asked).unwrap_or_default());
        if !holder.is_empty() && now.duration_since(*since) < asked {
            return Turn::Wait;
        }
        let record = record.clone();
        Turn::Write(Box::new(self.taken(&record)))
    }

    fn taken(&self, before: &LeaseSpec) -> LeaseSpec {
        let transitions = before.lease_transitions.map_or(0, |before| before.saturating_add(1));
        LeaseSpec {
            acquire_time: Some(now()),
            holder_identity: owned(&self.options.identity),
            lease_duration_seconds: Some(LEASE_SECONDS),
            lease_transitions: Some(transitions),
            renew_time: Some(now()),
            ..LeaseSpec::default()
        }
    }
}

/// Losing a race is not an error.
fn won(written: Result<(), WriteError>) -> Result<bool, WriteError> {
    match written {
        Ok(()) => Ok(true),
        Err(WriteError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use http::{Request, Response};
    use kube::{Client, client::Body};
    use serde_json::json;
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::write::ANSWER_TIMEOUT;

    fn candidate() -> Candidate {
        let options = LeaseOptions { key: Key::new("ingress", "leader"), identity: "me".into() };
        Candidate { options, seen: None }
    }

    fn held(by: &str, version: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            renew_time: Some(MicroTime(Timestamp::constant(version, 0))),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_holder_with_a_wrong_clock_is_not_robbed() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut candidate = candidate();
        // Its times are of 1970: only that they change counts.
        for (seconds, version) in [(0, 1), (14, 2), (28, 2), (29, 3), (43, 3)] {
            assert_eq!(
                candidate.turn(held("other", version), after(seconds)),
                Turn::Wait,
                "{seconds}"
            );
        }
        let Turn::Write(spec) = candidate.turn(held("other", 3), after(44)) else {
            panic!("silent for 15 s: it is gone");
        };
        assert_eq!(spec.holder_identity.as_deref(), Some("me"));
        assert_eq!(spec.lease_transitions, Some(4));
    }

    #[test]
    fn what_nobody_holds_is_taken_and_what_one_holds_is_renewed() {
        for free in ["", "gone"] {
            let mut record = held(free, 1);
            if free == "gone" {
                record.holder_identity = None;
            }
            let turn = candidate().turn(record, Instant::now());
            assert!(matches!(turn, Turn::Write(spec) if spec.lease_transitions == Some(4)));
        }
        let Turn::Write(renewed) = candidate().turn(held("me", 1), Instant::now()) else {
            panic!("it is mine");
        };
        let renewed_at = renewed.renew_time.clone();
        assert_eq!(*renewed, LeaseSpec { renew_time: renewed_at, ..held("me", 1) });
    }

    /// Of a server that takes requests and answers none it waited for an answer as long as anybody does,
    /// 30 s: for some seconds two wrote.
    #[tokio::test]
    async fn bug_who_cannot_renew_stops_to_lead_before_others_may_begin() {
        let made = AtomicBool::new(false);
        let serve = move |request: Request<Body>| {
            let is_first = request.method() == "POST" || !made.load(Relaxed);
            made.fetch_or(request.method() == "POST", Relaxed);
            async move {
                if !is_first {
                    std::future::pending::<()>().await;
                }
                let (code, body) = match request.method().as_str() {
                    "GET" => (404, json!({"kind": "Status", "code": 404, "reason": "NotFound"})),
                    _ => (201, json!({"metadata": {"name": "leader"}, "spec": {}})),
                };
                let body = Body::from(body.to_string().into_bytes());
                Response::builder().status(code).body(body).map_err(BoxError::from)
            }
        };
        let writer = Writer::new(Client::new(service_fn(serve), "ingress"));
        let options = candidate().options;
        let (mut leadership, mut leads) = Leadership::new(writer, options);
        leadership.pace =
            Pace { turn: Duration::from_millis(100), deadline: Duration::from_secs(1) };
        let cancel = CancellationToken::new();
        let watched = async {
            leads.wait_for(|leads| *leads).await.unwrap();
            let ends = timeout(ANSWER_TIMEOUT / 2, leads.wait_for(|leads| !*leads));
            assert!(ends.await.is_ok(), "it leads on");
            cancel.cancel();
        };
        tokio::join!(watched, cancel.run_until_cancelled(leadership.run(&cancel)));
    }
}
