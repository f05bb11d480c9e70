//! Connections to upstreams: hickory's, but over TLS the server's name is told (SNI), and replies are held
//! against the question.
//!
//! hickory leaves the name out (RFC 7858 needs none), and then servers that have several names, or tell their
//! customers apart by them, show the wrong certificate or none. CoreDNS tells it.
//!
//! Of replies by TCP and TLS hickory looks at the id alone, and gives the id of a question that nobody waits
//! for any more to another one, which then got the late reply as its own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures::{
    FutureExt, StreamExt, TryFutureExt,
    future::{BoxFuture, ready},
    stream::BoxStream,
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

/// Makes connections.
#[derive(Clone, Default)]
pub(super) struct Connections(TokioRuntimeProvider);

/// A connection that waits past replies to other questions (RFC 5452 §9.1).
#[derive(Clone)]
pub(super) struct Held(DnsExchange<TokioRuntimeProvider>);

impl DnsHandle for Held {
    type Response = BoxStream<'static, Result<DnsResponse, NetError>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let asked = request.queries.clone();
        let is_to_it = move |reply: &Result<DnsResponse, NetError>| {
            ready(reply.as_ref().map_or(true, |reply| reply.queries == asked))
        };
        self.0.send(request).filter(is_to_it).boxed()
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
            return Ok(self.0.new_connection(ip, config, context)?.map_ok(Held).boxed());
        };
        let name = ServerName::try_from(server_name.to_string())
            .map_err(|_| NetError::from(format!("{server_name:?} is no server's name")))?;
        let server = SocketAddr::new(ip, config.port);
        let tls = Arc::new(context.tls.clone());
        let provider = self.0.clone();
        let (limit, requests_max) = (context.options.timeout, context.options.max_active_requests);
        let (connecting, sender) = tls_client_connect(server, name, tls, provider.clone());
        Ok(Box::pin(async move {
            let stream = timeout(limit, connecting).await.map_err(|_| NetError::Timeout)??;
            let multiplexer = DnsMultiplexer::new(stream, sender)
                .with_timeout(limit)
                .with_max_active_requests(requests_max);
            let (exchange, background) = DnsExchange::from_stream(multiplexer);
            provider.create_handle().spawn_bg(background);
            Ok(Held(exchange))
        }))
    }

    fn runtime_provider(&self) -> &Self::RuntimeProvider {
        &self.0
    }
}
