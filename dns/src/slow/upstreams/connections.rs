//! Ways to ask upstreams: hickory's by UDP, a line by TCP and TLS.

use std::{net::IpAddr, sync::Arc};

use futures::{
    FutureExt, StreamExt, TryFutureExt,
    future::{BoxFuture, ready},
    stream::{BoxStream, once},
};
use hickory_proto::op::DnsRequest;
use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::ConnectionConfig,
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsExchange, DnsHandle},
    },
};

use super::{
    line::Line,
    watch::{Answer, to_it},
};

/// Makes connections.
#[derive(Clone, Default)]
pub(super) struct Connections {
    runtime: TokioRuntimeProvider,
    /// `None`: by UDP, where each question has a socket of its own.
    line: Option<Arc<Line>>,
}

/// A way to ask that waits past replies to other questions (RFC 5452 §9.1).
#[derive(Clone)]
pub(super) enum Held {
    Datagrams(DnsExchange<TokioRuntimeProvider>),
    Line(Arc<Line>),
}

impl Connections {
    pub(super) fn by(line: Option<Line>) -> Self {
        Self { runtime: TokioRuntimeProvider::default(), line: line.map(Arc::new) }
    }
}

impl DnsHandle for Held {
    type Response = BoxStream<'static, Answer>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        match self {
            Self::Datagrams(exchange) => {
                let is_to_it = to_it(&request);
                exchange.send(request).filter(move |answer| ready(is_to_it(answer))).boxed()
            }
            Self::Line(line) => {
                let line = line.clone();
                once(async move { line.ask(request).await }).filter_map(ready).boxed()
            }
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
        match &self.line {
            Some(line) => Ok(ready(Ok(Held::Line(line.clone()))).boxed()),
            None => {
                let connecting = self.runtime.new_connection(ip, config, context)?;
                Ok(connecting.map_ok(Held::Datagrams).boxed())
            }
        }
    }

    fn runtime_provider(&self) -> &Self::RuntimeProvider {
        &self.runtime
    }
}
