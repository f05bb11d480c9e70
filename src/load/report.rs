//! What became of the requests so far.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    histogram::Histogram,
    request::{Answer, Failure},
};

/// Failures that are described one by one; further ones are only counted.
const FAILURES_DESCRIBED_MAX: usize = 20;
/// HOST_NAME_MAX of Linux.
const HOST_NAME_BYTES_MAX: usize = 64;

/// One line of output.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The last line.
    pub(crate) done: bool,
    /// Since the first request.
    pub(crate) seconds: f64,
    /// Requests that were answered as expected.
    pub(crate) ok: u64,
    /// All others.
    pub(crate) failed: u64,
    /// Connections that were established and ended without a word.
    pub(crate) broken: u64,
    /// Requests not made because too many were open: this generator's limit, not a failure of what
    /// it calls.
    pub(crate) skipped: u64,
    /// Requests a second, of those begun on schedule; once that is over.
    pub(crate) pace: Option<Pace>,
    /// Failed requests by kind.
    pub(crate) failures: BTreeMap<String, u64>,
    /// The first failures in words.
    pub(crate) described: Vec<Described>,
    /// Microseconds from connect to the end of the answer.
    pub(crate) latency_us: Latency,
    /// Who answered.
    pub(crate) pods: BTreeMap<String, Pod>,
    /// The newest answer: its status, and its body when that is JSON.
    pub(crate) sample: Option<Sample>,
}

/// Whether there was as much traffic as asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Requests a second that were to begin.
    pub(crate) asked: u32,
    /// Those that did.
    pub(crate) reached: f64,
    /// For how long.
    pub(crate) seconds: f64,
}

/// One failure in words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Described {
    /// Milliseconds since the first request.
    pub(crate) at_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) at_unix_ms: u64,
    /// Microseconds from connect to the failure.
    pub(crate) after_us: u64,
    /// One word.
    pub(crate) kind: String,
    /// The rest.
    pub(crate) detail: String,
}

/// Shares of requests that were at least this fast; of good answers, or of failures when there are
/// no answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Half.
    pub(crate) p50: u64,
    /// 90 %.
    pub(crate) p90: u64,
    /// 99 %.
    pub(crate) p99: u64,
    /// All.
    pub(crate) max: u64,
}

/// One pod's share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pod {
    /// Its answers.
    pub(crate) answers: u64,
    /// When the first came, milliseconds since 1970.
    pub(crate) first_unix_ms: u64,
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// HTTP status, 0 for UDP.
    pub(crate) status: u16,
    /// `Location`, of a redirect.
    pub(crate) location: Option<String>,
    /// The body, `null` when it is not JSON.
    pub(crate) body: Value,
}

/// Collects.
#[derive(Debug)]
pub(crate) struct Recorder {
    started: Instant,
    histogram: Histogram,
    so_far: Report,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { started: Instant::now(), histogram: Histogram::default(), so_far: Report::default() }
    }
}

impl Recorder {
    /// A good answer.
    pub(crate) fn answer(&mut self, took: Duration, answer: Answer) {
        self.so_far.ok += 1;
        self.histogram.add(micros(took));
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(name) = pod_name(&body, &answer.body) {
            match self.so_far.pods.get_mut(name) {
                Some(pod) => pod.answers += 1,
                None => {
                    let first = Pod { answers: 1, first_unix_ms: unix_ms() };
                    self.so_far.pods.insert(name.to_owned(), first);
                }
            }
        }
        self.so_far.sample =
            Some(Sample { status: answer.status, location: answer.location, body });
    }

    /// A failed request, and whether an established connection broke.
    pub(crate) fn failure(&mut self, took: Duration, failure: Failure) {
        self.so_far.failed += 1;
        self.so_far.broken += u64::from(failure.broken);
        if self.so_far.ok == 0 {
            self.histogram.add(micros(took));
        }
        if self.so_far.described.len() < FAILURES_DESCRIBED_MAX {
            self.so_far.described.push(Described {
                at_ms: micros(self.started.elapsed()) / 1000,
                at_unix_ms: unix_ms(),
                after_us: micros(took),
                kind: failure.kind.into(),
                detail: failure.detail,
            });
        }
        *self.so_far.failures.entry(failure.kind.into()).or_default() += 1;
    }

    /// A request that could not be begun.
    pub(crate) fn skip(&mut self) {
        self.so_far.skipped += 1;
    }

    /// So many requests were begun on schedule, in that time.
    pub(crate) fn paced(&mut self, asked: u32, begun: u64, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let (seconds, begun) = (took.as_secs_f64(), begun as f64);
        let is_begun = !took.is_zero();
        self.so_far.pace = is_begun.then(|| Pace { asked, reached: begun / seconds, seconds });
    }

    /// The report at this moment.
    pub(crate) fn report(&self, done: bool) -> Report {
        let latency_us = Latency {
            p50: self.histogram.per_mille(500),
            p90: self.histogram.per_mille(900),
            p99: self.histogram.per_mille(990),
            max: self.histogram.max(),
        };
        let seconds = self.started.elapsed().as_secs_f64();
        Report { done, seconds, latency_us, ..self.so_far.clone() }
    }
}

/// Who answered: the JSON field `pod`, or the whole body of a server that says nothing but its host
/// name.
fn pod_name<'a>(json: &'a Value, body: &'a [u8]) -> Option<&'a str> {
    if let Some(name) = json.get("pod").and_then(Value::as_str) {
        return Some(name);
    }
    let is_host_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let name = std::str::from_utf8(body).ok()?.trim_end();
    let is_name = !name.is_empty() && name.len() <= HOST_NAME_BYTES_MAX;
    (is_name && name.as_bytes().iter().all(is_host_name)).then_some(name)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The machine's clock, comparable between processes.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    micros(since) / 1000
}
