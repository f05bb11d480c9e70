//! Options about traces, and what they mean together.

use http::Uri;

use super::super::annotations::{Read, Unread, bad, flag, number};
use crate::traces::{BATCH_SPANS_MAX, QUEUE_SPANS_MAX, Sampler, Sampling, Traces};

/// OTLP over gRPC.
const PORT: u16 = 4317;
/// ingress-nginx's, of TraceIdRatioBased.
const SHARE: f64 = 0.01;
/// Longest wait for a batch.
const DELAY_MS_MAX: u64 = 600_000;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct TracingWish {
    host: Option<Box<str>>,
    port: Option<u16>,
    service_name: Option<Box<str>>,
    sampler: Kind,
    share: Option<f64>,
    is_alone: bool,
    queue_spans_max: Option<usize>,
    batch_spans_max: Option<usize>,
    delay_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    #[default]
    Always,
    Never,
    Share,
}

impl TracingWish {
    /// `None`: no option of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "otlp-collector-host" if value.is_empty() => {
                self.host = None;
                Ok(())
            }
            "otlp-collector-host" => host(value).map(|host| self.host = Some(host)),
            "otlp-collector-port" => number(value).map(|port| self.port = Some(port)),
            "otel-service-name" => {
                self.service_name = Some(value.into());
                Ok(())
            }
            "otel-sampler" => kind(value).map(|kind| self.sampler = kind),
            "otel-sampler-ratio" => share(value).map(|share| self.share = Some(share)),
            "otel-sampler-parent-based" => flag(value).map(|flag| self.is_alone = !flag),
            "otel-max-queuesize" => {
                within(value, QUEUE_SPANS_MAX).map(|n| self.queue_spans_max = Some(n))
            }
            "otel-max-export-batch-size" => {
                within(value, BATCH_SPANS_MAX).map(|n| self.batch_spans_max = Some(n))
            }
            "otel-schedule-delay-millis" => match number(value) {
                Ok(ms @ 1..=DELAY_MS_MAX) => {
                    self.delay_ms = Some(ms);
                    Ok(())
                }
                Ok(_) => bad(format!("is not from 1 to {DELAY_MS_MAX}")),
                Err(unread) => Err(unread),
            },
            _ => return None,
        })
    }

    /// `None`: there is no collector.
    pub(super) fn traces(self) -> Option<(Traces, Sampling)> {
        let collector = format!("http://{}:{}", self.host?, self.port.unwrap_or(PORT));
        let usual = Traces::to(collector);
        let traces = Traces {
            service_name: self.service_name.map_or(usual.service_name, String::from),
            queue_spans_max: self.queue_spans_max.unwrap_or(usual.queue_spans_max),
            batch_spans_max: self.batch_spans_max.unwrap_or(usual.batch_spans_max),
            delay_ms: self.delay_ms.unwrap_or(usual.delay_ms),
            collector: usual.collector,
        };
        let sampler = match self.sampler {
            Kind::Always => Sampler::Always,
            Kind::Never => Sampler::Never,
            Kind::Share => Sampler::share(self.share.unwrap_or(SHARE)),
        };
        Some((traces, Sampling { sampler, is_parent_based: !self.is_alone }))
    }
}

/// A name or an address, and nothing else of a URL.
fn host(value: &str) -> Result<Box<str>, Unread> {
    let host = value.strip_prefix("http://").unwrap_or(value).trim_end_matches('/');
    let uri = format!("http://{host}:{PORT}/").parse::<Uri>().ok();
    match uri.and_then(|uri| Some(uri.host()? == host)) {
        Some(true) if !host.is_empty() => Ok(host.into()),
        _ => bad("is no host (its port is otlp-collector-port)"),
    }
}

fn kind(value: &str) -> Result<Kind, Unread> {
    match value {
        "AlwaysOn" => Ok(Kind::Always),
        "AlwaysOff" => Ok(Kind::Never),
        "TraceIdRatioBased" => Ok(Kind::Share),
        _ => bad("is none of AlwaysOn, AlwaysOff and TraceIdRatioBased"),
    }
}

fn share(value: &str) -> Result<f64, Unread> {
    match value.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => bad("is no share from 0 to 1"),
    }
}

fn within(value: &str, max: usize) -> Result<usize, Unread> {
    match number::<usize>(value)? {
        0 => bad("is none"),
        n if n > max => bad(format!("is above {max}")),
        n => Ok(n),
    }
}
