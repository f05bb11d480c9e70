//! Connections to upstreams: hickory's, but over TLS the server's name is told (SNI).
//!
//! hickory leaves it out (RFC 7858 needs none), and then servers that have several names, or tell their
//! customers apart by them, show the wrong certificate or none. CoreDNS tells it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures::future::BoxFuture;
use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::{ConnectionConfig, ProtocolConfig},
    net::{
        DnsMultiplexer, NetError,
        runtime::{RuntimeProvider, Spawn, TokioRuntimeProvider},
        tls::tls_client_connect,
        xfer::DnsExchange,
    },
};
use rustls_pki_types::ServerName;
use tokio::time::timeout;

/// Makes connections.
#[derive(Clone, Default)]
pub(super) struct Connections(TokioRuntimeProvider);

impl ConnectionProvider for Connections {
    type Conn = DnsExchange<TokioRuntimeProvider>;
    type FutureConn = BoxFuture<'static, Result<Self::Conn, NetError>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let ProtocolConfig::Tls { server_name } = &config.protocol else {
            return self.0.new_connection(ip, config, context);
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
            Ok(exchange)
        }))
    }

    fn runtime_provider(&self) -> &Self::RuntimeProvider {
        &self.0
    }
}
