//! The thread that tells the collector: whatever it waits for, no request does.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fairlead_state::in_one_line;
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Finished, QUEUE_SPANS_MAX, Traces};
use crate::config::IngressConfig;

/// A collector that takes longer has lost the batch, whether it is connected or not.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// What the end of the role waits for a collector.
const FAREWELL: Duration = Duration::from_secs(1);
const SCOPE: &str = "fairlead";

/// Where threads send spans.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    sender: Sender<Finished>,
    /// Says that there is no sender any more to who does not look at the queue.
    _end: Arc<DropGuard>,
}

/// Its other end.
#[derive(Debug)]
pub(crate) struct Spans {
    receiver: Receiver<Finished>,
    ended: CancellationToken,
}

/// A queue, and its other end.
pub(crate) fn queue() -> (Queue, Spans) {
    let (sender, receiver) = channel(QUEUE_SPANS_MAX);
    let ended = CancellationToken::new();
    let end = Arc::new(ended.clone().drop_guard());
    (Queue { sender, _end: end }, Spans { receiver, ended })
}

impl Queue {
    /// False if there is no room: `spans_max` wait already.
    pub(crate) fn send(&self, span: Finished, spans_max: usize) -> bool {
        let waiting = self.sender.max_capacity() - self.sender.capacity();
        waiting < spans_max && self.sender.try_send(span).is_ok()
    }
}

/// Tells the collector of the settings in force until all senders are gone, and a moment longer.
/// Spans it does not take are counted.
///
/// # Errors
/// If the thread's runtime cannot be made.
pub(crate) fn export(
    spans: Spans,
    settings: &ArcSwap<IngressConfig>,
    lost: &AtomicU64,
) -> io::Result<()> {
    let Spans { mut receiver, ended } = spans;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let farewell = async {
            ended.cancelled().await;
            sleep(FAREWELL).await;
        };
        tokio::select! {
            () = tell_all(&mut receiver, settings, lost) => {}
            () = farewell => {}
        }
    });
    lost.fetch_add(receiver.len() as u64, Relaxed);
    // A name that is still being looked up is waited for by nobody.
    runtime.shutdown_background();
    Ok(())
}

/// Spans that are lost when this is dropped.
struct Untold<'a> {
    count: u64,
    lost: &'a AtomicU64,
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        self.lost.fetch_add(self.count, Relaxed);
    }
}

async fn tell_all(
    receiver: &mut Receiver<Finished>,
    settings: &ArcSwap<IngressConfig>,
    lost: &AtomicU64,
) {
    let scope = InstrumentationScope::builder(SCOPE).build();
    let (mut open, mut is_failing, mut batch) = (None, false, Vec::new());
    while gather(receiver, &mut batch, settings).await {
        let mut untold = Untold { count: batch.len() as u64, lost };
        let spans = batch.drain(..).map(|span| span.data(&scope)).collect();
        let Some(traces) = settings.load().traces.clone() else {
            // They have just been turned off.
            open = None;
            continue;
        };
        match tell(&mut open, &traces, spans).await {
            Ok(()) => {
                if is_failing {
                    tracing::info!("collector {} takes traces again", traces.collector);
                }
                (untold.count, is_failing) = (0, false);
            }
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(
                    error = %in_one_line(&error),
                    "collector {} takes no traces; they are lost until it does", traces.collector
                );
            }
            Err(_) => {}
        }
    }
}

/// A collector, and the settings it is spoken to by.
struct Collector {
    settings: Arc<Traces>,
    exporter: SpanExporter,
}

impl Collector {
    fn new(settings: Arc<Traces>) -> Result<Self, String> {
        let built = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(settings.collector.clone())
            .with_protocol(Protocol::Grpc)
            .with_timeout(EXPORT_TIMEOUT)
            .build();
        let mut exporter = built.map_err(|error| error.to_string())?;
        let name = settings.service_name.clone();
        exporter.set_resource(&Resource::builder_empty().with_service_name(name).build());
        Ok(Self { settings, exporter })
    }
}

/// Tells a batch to the collector of these settings.
async fn tell(
    open: &mut Option<Collector>,
    settings: &Arc<Traces>,
    spans: Vec<SpanData>,
) -> Result<(), String> {
    let collector = match open.take() {
        Some(collector) if collector.settings == *settings => collector,
        _ => Collector::new(settings.clone())?,
    };
    let exporter = &open.insert(collector).exporter;
    // The exporter's own limit begins only once it is connected.
    match timeout(EXPORT_TIMEOUT, exporter.export(spans)).await {
        Ok(told) => told.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {EXPORT_TIMEOUT:?}")),
    }
}

/// Waits for a batch, from its first span no longer than is set; false: there will be none.
async fn gather(
    receiver: &mut Receiver<Finished>,
    batch: &mut Vec<Finished>,
    settings: &ArcSwap<IngressConfig>,
) -> bool {
    let Some(first) = receiver.recv().await else { return false };
    batch.push(first);
    let Some(traces) = settings.load().traces.clone() else { return true };
    let deadline = Instant::now() + Duration::from_millis(traces.delay_ms);
    while batch.len() < traces.batch_spans_max {
        let room = traces.batch_spans_max - batch.len();
        match timeout_at(deadline, receiver.recv_many(batch, room)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::{HeaderMap, Request};

    use super::{
        super::{Context, Sampling, Span},
        *,
    };

    fn span() -> Finished {
        let context = Context::begin(&HeaderMap::new(), true, Sampling::default());
        let (head, ()) = Request::new(()).into_parts();
        let client = [192, 0, 2, 1].into();
        Finished {
            span: Span::new(context, "GET /", &head, "a.example", "http", client),
            end: SystemTime::UNIX_EPOCH,
            took: Duration::from_millis(5),
            status: 502,
            endpoint: None,
            place: None,
        }
    }

    #[test]
    fn a_full_queue_takes_no_span_until_one_was_taken_out_and_its_end_is_told() {
        let (queue, mut spans) = queue();
        assert!(queue.send(span(), 2) && queue.send(span(), 2));
        assert!(!queue.send(span(), 2));
        spans.receiver.try_recv().unwrap();
        assert!(queue.send(span(), 2));
        drop(queue.clone());
        assert!(!spans.ended.is_cancelled());
        drop(queue);
        assert!(spans.ended.is_cancelled(), "the last one says that it is");
    }

    #[test]
    fn an_error_is_one_and_a_span_that_began_before_time_does_is_one() {
        let data = span().data(&InstrumentationScope::builder(SCOPE).build());
        assert!(matches!(data.status, opentelemetry::trace::Status::Error { .. }), "{data:?}");
        let has = |name: &str| data.attributes.iter().any(|a| a.key.as_str() == name);
        assert!(has("error.type") && !has("http.route"), "{data:?}");
        assert!(data.start_time <= data.end_time);
    }
}
