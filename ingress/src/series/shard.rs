//! One thread's part of a route's series.

use std::{
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use http::Method;

use super::{
    REST, RequestKind, RouteCounters,
    histogram::{Buckets, DURATION_BOUNDS_US, LENGTH_BOUNDS, SENT_BOUNDS},
};

/// Kinds of requests a route tells apart; of the rest only the class of the status is known.
const KINDS_MAX: usize = 16;
/// By the first of a status code's three digits (RFC 9110 §15); 0 is of no class.
const CLASSES: usize = 10;
/// The names of [`method_slot`]s.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", REST];

/// A request, once it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) status: u16,
    /// By [`method_slot`].
    pub(crate) method: u8,
    pub(crate) is_canary: bool,
    pub(crate) took: Duration,
    /// `None`: no endpoint answered.
    pub(crate) asked: Option<Asked>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

/// How long the endpoint took that answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) connect: Duration,
    pub(crate) header: Duration,
    pub(crate) response: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    kinds: [Kind; KINDS_MAX],
    /// Beyond that: a client that chooses methods and paths shall hide no failure.
    rest: [Buckets<{ DURATION_BOUNDS_US.len() + 1 }>; CLASSES],
    connect: Buckets<{ DURATION_BOUNDS_US.len() + 1 }>,
    header: Buckets<{ DURATION_BOUNDS_US.len() + 1 }>,
    response: Buckets<{ DURATION_BOUNDS_US.len() + 1 }>,
    received: Buckets<{ LENGTH_BOUNDS.len() + 1 }>,
    sent: Buckets<{ SENT_BOUNDS.len() + 1 }>,
}

#[derive(Debug, Default)]
struct Kind {
    /// Status, method and canary in one; 0: not taken yet.
    key: AtomicU32,
    durations: Buckets<{ DURATION_BOUNDS_US.len() + 1 }>,
}

const METHOD_SHIFT: u32 = 16;
const CANARY: u32 = 1 << 24;
const TAKEN: u32 = 1 << 25;

/// Any other method is the last one.
pub(crate) fn method_slot(method: &Method) -> u8 {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::PATCH => 5,
        Method::OPTIONS => 6,
        Method::CONNECT => 7,
        Method::TRACE => 8,
        _ => 9,
    }
}

/// `None`: nobody registered it, and there may be any number of its like.
pub(crate) fn method_name(method: &Method) -> Option<&'static str> {
    METHODS.get(usize::from(method_slot(method))).copied().filter(|name| *name != REST)
}

fn pack(sample: &Sample) -> u32 {
    let canary = if sample.is_canary { CANARY } else { 0 };
    TAKEN | canary | (u32::from(sample.method) << METHOD_SHIFT) | u32::from(sample.status)
}

fn unpack(key: u32) -> RequestKind {
    let [_, method, high, low] = key.to_be_bytes();
    RequestKind {
        status: u16::from_be_bytes([high, low]),
        method: METHODS.get(usize::from(method)).unwrap_or(&REST),
        is_canary: key & CANARY != 0,
    }
}

impl Shard {
    pub(super) fn count(&self, sample: &Sample) {
        self.durations(sample).count(&DURATION_BOUNDS_US, micros(sample.took));
        if let Some(asked) = &sample.asked {
            self.connect.count(&DURATION_BOUNDS_US, micros(asked.connect));
            self.header.count(&DURATION_BOUNDS_US, micros(asked.header));
            self.response.count(&DURATION_BOUNDS_US, micros(asked.response));
        }
        self.received.count(&LENGTH_BOUNDS, sample.received_bytes);
        self.sent.count(&SENT_BOUNDS, sample.sent_bytes);
    }

    /// Nearly always among the first: kinds are in the order in which they came.
    fn durations(&self, sample: &Sample) -> &Buckets<{ DURATION_BOUNDS_US.len() + 1 }> {
        let key = pack(sample);
        for kind in &self.kinds {
            match kind.key.load(Relaxed) {
                taken if taken == key => return &kind.durations,
                0 => {
                    kind.key.store(key, Release);
                    return &kind.durations;
                }
                _ => {}
            }
        }
        let [classless, ..] = &self.rest;
        self.rest.get(usize::from(class(sample.status))).unwrap_or(classless)
    }

    pub(super) fn add_to(&self, sum: &mut RouteCounters) {
        let bounds = &DURATION_BOUNDS_US;
        for kind in &self.kinds {
            let key = kind.key.load(Acquire);
            if key != 0 {
                sum.requests.entry(unpack(key)).or_default().add(&kind.durations.read(bounds));
            }
        }
        for (class, rest) in (0..).zip(&self.rest) {
            let rest = rest.read(bounds);
            if rest.count() > 0 {
                let kind = RequestKind { status: class, method: REST, is_canary: false };
                sum.requests.entry(kind).or_default().add(&rest);
            }
        }
        sum.connect.add(&self.connect.read(bounds));
        sum.header.add(&self.header.read(bounds));
        sum.response.add(&self.response.read(bounds));
        sum.request_bytes.add(&self.received.read(&LENGTH_BOUNDS));
        sum.response_bytes.add(&self.sent.read(&SENT_BOUNDS));
    }
}

fn class(status: u16) -> u16 {
    status / 100
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
