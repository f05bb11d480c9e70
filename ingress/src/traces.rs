//! Traces of requests, by OpenTelemetry (ingress-nginx: enable-opentelemetry).
//!
//! ```text
//! head -> Context (whether it is sampled is known before anything is allocated) -> last byte sent
//!      -> bounded queue -> the exporting thread -> the collector, by OTLP over gRPC
//! ```
//! A queue that is full costs spans, which are counted, and never a request its time.

mod context;
mod exporter;
mod span;

pub(crate) use self::{
    context::Context,
    exporter::{Queue, export, queue},
    span::{Finished, Place, Span},
};

/// Spans that wait for the collector, at most, whatever is set.
pub(crate) const QUEUE_SPANS_MAX: usize = 65_536;
/// Spans told at a time, at most.
pub(crate) const BATCH_SPANS_MAX: usize = 8_192;

/// Where traces go. The defaults are ingress-nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Whom they are sent to by gRPC: `http://HOST:PORT`.
    pub collector: String,
    /// The service's name in traces.
    pub service_name: String,
    /// Spans that wait; what comes when there are as many is dropped and counted.
    pub queue_spans_max: usize,
    /// Spans told at a time.
    pub batch_spans_max: usize,
    /// Longest wait for a batch to become full.
    pub delay_ms: u64,
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sampler {
    Always,
    Never,
    /// Those whose id, as OpenTelemetry looks at it, is below.
    Below(u64),
}

/// How requests are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    pub(crate) sampler: Sampler,
    /// Who asks decides, if he says anything about it.
    pub(crate) is_parent_based: bool,
}

impl Traces {
    /// To a collector, by its address.
    pub fn to(collector: String) -> Self {
        Self {
            collector,
            service_name: "nginx".to_owned(),
            queue_spans_max: 2_048,
            batch_spans_max: 512,
            delay_ms: 5_000,
        }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self { sampler: Sampler::Always, is_parent_based: true }
    }
}
