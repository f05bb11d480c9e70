//! The connection to one upstream: all who ask at a time ask by the same one, whether it is being made, is open, has just
//! been closed, or says nothing any more.
//!
//! hickory makes one for each question that finds none, and a connection that was closed meanwhile costs whoever asks
//! by it first his answer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, Shared},
    stream::FuturesUnordered,
};
use hickory_proto::op::DnsRequest;
use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::{ConnectionConfig, NameServerConfig, ProtocolConfig},
    net::{
        DnsMultiplexer, NetError,
        runtime::{RuntimeProvider, Spawn, TokioRuntimeProvider},
        tls::tls_client_connect,
        xfer::{DnsExchange, DnsHandle},
    },
};
use rustls_pki_types::ServerName;
use tokio::time::timeout;

use super::watch::{Answer, Watch, to_it};

/// One upstream, by one protocol.
pub(super) struct Line {
    /// Tasks of connections end with the last of its clones.
    runtime: TokioRuntimeProvider,
    ip: IpAddr,
    config: ConnectionConfig,
    context: Arc<PoolContext>,
    current: Mutex<Option<Connection>>,
}

/// One that is being made or has been.
#[derive(Clone)]
struct Connection {
    made: Shared<BoxFuture<'static, Result<DnsExchange<TokioRuntimeProvider>, NetError>>>,
    watch: Watch,
}

impl Line {
    /// `None` where no protocol is given.
    pub(super) fn new(server: &NameServerConfig, context: &Arc<PoolContext>) -> Option<Self> {
        let config = server.connections.first()?.clone();
        let (runtime, ip, context) = (TokioRuntimeProvider::default(), server.ip, context.clone());
        Some(Self { runtime, ip, config, context, current: Mutex::default() })
    }

    /// What the upstream says; by another connection if this one is silent, was closed or has no room.
    pub(super) async fn ask(&self, request: DnsRequest) -> Option<Answer> {
        let connection = self.current();
        let silent = connection.watch.silent();
        let mut asking = FuturesUnordered::new();
        asking.push(self.ask_by(connection, request.clone()));
        let answer = tokio::select! {
            answer = asking.next() => answer.flatten(),
            // It may be slow only, so that it is still waited for.
            () = silent => {
                asking.push(self.ask_by(self.current(), request.clone()));
                first(asking).await
            }
        };
        match &answer {
            Some(Err(error)) if error.is_connection_closed() || is_without_room(error) => {
                self.ask_by(self.current(), request).await
            }
            _ => answer,
        }
    }

    async fn ask_by(&self, connection: Connection, request: DnsRequest) -> Option<Answer> {
        let answer = match connection.made.clone().await {
            Ok(exchange) => {
                let is_to_it = to_it(&request);
                connection.watch.clone().first(exchange.send(request), is_to_it).await
            }
            Err(error) => Some(Err(error)),
        };
        if matches!(answer, Some(Err(_))) {
            self.leave(&connection);
        }
        answer
    }

    fn current(&self) -> Connection {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let speaks = current.take().filter(|current| !current.watch.is_silent());
        current.insert(speaks.unwrap_or_else(|| self.open())).clone()
    }

    /// The next question opens another one; who waits on this one still may.
    fn leave(&self, connection: &Connection) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| current.made.ptr_eq(&connection.made)) {
            *current = None;
        }
    }

    /// A task of its own: who asked first may be gone before it is open, and others wait for it.
    fn open(&self) -> Connection {
        let (runtime, config) = (self.runtime.clone(), self.config.clone());
        let connecting = tokio::spawn(connect(runtime, self.ip, config, self.context.clone()));
        let made = connecting.map(|made| {
            made.unwrap_or_else(|_| Err(NetError::from("connecting to an upstream has panicked")))
        });
        Connection { made: made.boxed().shared(), watch: Watch::default() }
    }
}

/// The first reply of some, else the last error.
async fn first(mut asking: impl Stream<Item = Option<Answer>> + Unpin) -> Option<Answer> {
    let mut last = None;
    while let Some(answer) = asking.next().await {
        if matches!(answer, Some(Ok(_))) {
            return answer;
        }
        last = answer.or(last);
    }
    last
}

/// As many questions wait on it as may; or hickory's task that it belonged to has ended with it.
fn is_without_room(error: &NetError) -> bool {
    matches!(error, NetError::Busy)
}

/// Over TLS the server's name is told (SNI), as by CoreDNS: hickory leaves it out (RFC 7858 needs none), and then servers
/// that have several names, or tell their customers apart by them, show the wrong certificate or none.
async fn connect(
    runtime: TokioRuntimeProvider,
    ip: IpAddr,
    config: ConnectionConfig,
    context: Arc<PoolContext>,
) -> Result<DnsExchange<TokioRuntimeProvider>, NetError> {
    let ProtocolConfig::Tls { server_name } = &config.protocol else {
        return runtime.new_connection(ip, &config, &context)?.await;
    };
    let name = ServerName::try_from(server_name.to_string())
        .map_err(|_| NetError::from(format!("{server_name:?} is no server's name")))?;
    let server = SocketAddr::new(ip, config.port);
    let limit = context.options.timeout;
    let tls = Arc::new(context.tls.clone());
    let (connecting, sender) = tls_client_connect(server, name, tls, runtime.clone());
    let stream = timeout(limit, connecting).await.map_err(|_| NetError::Timeout)??;
    let multiplexer = DnsMultiplexer::new(stream, sender)
        .with_timeout(limit)
        .with_max_active_requests(context.options.max_active_requests);
    let (exchange, background) = DnsExchange::from_stream(multiplexer);
    runtime.create_handle().spawn_bg(background);
    Ok(exchange)
}
