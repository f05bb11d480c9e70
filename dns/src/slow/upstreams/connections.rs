//! Connections to upstreams: hickory's, but over TLS the server's name is told (SNI), and replies are held
//! against the question.
//!
//! hickory leaves the name out (RFC 7858 needs none), and then servers that have several names, or tell their
//! customers apart by them, show the wrong certificate or none. CoreDNS tells it.
//!
//! Of replies by TCP and TLS hickory looks at the id alone, and gives the id of a question that nobody waits
//! for any more to another one, which then got the late reply as its own.
//!
//! hickory asks by a connection until that is closed, or a question has waited on it to the end of its own time,
//! which ours do not: one that had died without a word was asked for ever.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt, Stream, StreamExt, TryFutureExt,
    future::{BoxFuture, ready},
    stream::{BoxStream, once},
};
use hickory_proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::{ConnectionConfig, ProtocolConfig},
    net::{
        DnsMultiplexer, NetError,
        runtime::{RuntimeProvider, Spawn, TokioRuntimeProvider},
        tls::tls_client_connect,
        xfer::{DnsExchange, DnsHandle},
    },
};
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Silence of a connection after which it is no longer asked by: half of CoreDNS's read timeout, so that the
/// question can be asked anew before the next upstream is.
const SILENCE: Duration = Duration::from_secs(1);
/// The same for a question that is given up before, since something else has answered it.
const SILENCE_GIVEN_UP: Duration = Duration::from_millis(500);

/// What hickory says of a question.
type Answer = Result<DnsResponse, NetError>;

/// Makes connections.
#[derive(Clone, Default)]
pub(super) struct Connections {
    runtime: TokioRuntimeProvider,
    /// Cancelled when one of them is silent.
    silent: CancellationToken,
}

/// A connection that waits past replies to other questions (RFC 5452 §9.1).
#[derive(Clone)]
pub(super) struct Held {
    exchange: DnsExchange<TokioRuntimeProvider>,
    /// `None`: by UDP, where each question has a socket of its own.
    watch: Option<Watch>,
}

/// Whether a connection says anything.
#[derive(Clone, Debug, Default)]
struct Watch {
    replies: Arc<AtomicU64>,
    silent: CancellationToken,
}

/// A question that waits.
#[derive(Debug)]
struct Waiting {
    watch: Watch,
    /// Replies that had come before it.
    before: u64,
    since: Instant,
}

impl Connections {
    pub(super) fn new(silent: CancellationToken) -> Self {
        Self { runtime: TokioRuntimeProvider::default(), silent }
    }

    fn held(&self, exchange: DnsExchange<TokioRuntimeProvider>, protocol: &ProtocolConfig) -> Held {
        let silent = self.silent.clone();
        let is_udp = matches!(protocol, ProtocolConfig::Udp);
        Held { exchange, watch: (!is_udp).then(|| Watch { silent, ..Watch::default() }) }
    }
}

impl Watch {
    /// The first answer of some, with an eye on the connection.
    async fn first(self, answers: impl Stream<Item = Answer>) -> Option<Answer> {
        let waiting = self.wait();
        let mut answers = pin!(answers);
        let first = match timeout(SILENCE, answers.next()).await {
            Ok(first) => first,
            Err(_) => {
                waiting.look(SILENCE);
                answers.next().await
            }
        };
        self.replies.fetch_add(1, Relaxed);
        first
    }

    fn wait(&self) -> Waiting {
        let before = self.replies.load(Relaxed);
        Waiting { watch: self.clone(), before, since: Instant::now() }
    }
}

impl Waiting {
    /// Says that the connection is silent, if nothing at all has come while this has waited for long.
    fn look(&self, waited: Duration) {
        if waited >= SILENCE_GIVEN_UP && self.watch.replies.load(Relaxed) == self.before {
            self.watch.silent.cancel();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.look(self.since.elapsed());
    }
}

impl DnsHandle for Held {
    type Response = BoxStream<'static, Answer>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let asked = request.queries.clone();
        let is_to_it = move |reply: &Answer| {
            ready(reply.as_ref().map_or(true, |reply| reply.queries == asked))
        };
        let answers = self.exchange.send(request).filter(is_to_it);
        match self.watch.clone() {
            Some(watch) => once(watch.first(answers)).filter_map(ready).boxed(),
            None => answers.boxed(),
        }
    }
}

impl ConnectionProvider for Connections {
    type Conn = Held;
    type FutureConn = BoxFuture<'static, Result<Self::Conn, NetError>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let ProtocolConfig::Tls { server_name } = &config.protocol else {
            let (own, protocol) = (self.clone(), config.protocol.clone());
            let connecting = self.runtime.new_connection(ip, config, context)?;
            return Ok(connecting.map_ok(move |exchange| own.held(exchange, &protocol)).boxed());
        };
        let name = ServerName::try_from(server_name.to_string())
            .map_err(|_| NetError::from(format!("{server_name:?} is no server's name")))?;
        let server = SocketAddr::new(ip, config.port);
        let tls = Arc::new(context.tls.clone());
        let (own, protocol) = (self.clone(), config.protocol.clone());
        let (limit, requests_max) = (context.options.timeout, context.options.max_active_requests);
        let (connecting, sender) = tls_client_connect(server, name, tls, self.runtime.clone());
        Ok(Box::pin(async move {
            let stream = timeout(limit, connecting).await.map_err(|_| NetError::Timeout)??;
            let multiplexer = DnsMultiplexer::new(stream, sender)
                .with_timeout(limit)
                .with_max_active_requests(requests_max);
            let (exchange, background) = DnsExchange::from_stream(multiplexer);
            own.runtime.create_handle().spawn_bg(background);
            Ok(own.held(exchange, &protocol))
        }))
    }

    fn runtime_provider(&self) -> &Self::RuntimeProvider {
        &self.runtime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_silent_when_nothing_comes_while_a_question_waits_for_long() {
        for (waited_ms, comes, is_silent) in
            [(0, false, false), (499, false, false), (500, false, true), (1000, true, false)]
        {
            let watch = Watch::default();
            let waiting = watch.wait();
            if comes {
                watch.replies.fetch_add(1, Relaxed);
            }
            waiting.look(Duration::from_millis(waited_ms));
            assert_eq!(watch.silent.is_cancelled(), is_silent, "{waited_ms} ms, {comes}");
        }
    }
}
