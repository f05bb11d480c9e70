//! One upstream: asked by UDP where it may be, and over connections where it may not, or where a datagram has not
//! said all.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, stream::FuturesUnordered};
use hickory_proto::op::ResponseCode;
use hickory_resolver::{
    NameServerPool, PoolContext,
    config::NameServerConfig,
    net::{
        NetError,
        xfer::{DnsHandle, FirstAnswer},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    connections::Connections,
    line::Line,
    question::{Question, Reply},
};

/// One server, with its connections; equal questions to it that are under way are one.
type NameServer = NameServerPool<Connections>;

/// One upstream.
pub(super) struct Upstream {
    with_edns: Ways,
    /// Apart, since questions that differ in their OPT record alone are equal to hickory.
    without: Ways,
}

/// The ways to it.
struct Ways {
    /// `None`: it is asked over connections alone.
    udp: Option<NameServer>,
    streams: Streams,
}

/// Connections to it, all of which are left alone once one of them is silent.
struct Streams {
    server: NameServerConfig,
    context: Arc<PoolContext>,
    current: Mutex<Stream>,
}

#[derive(Clone)]
struct Stream {
    name_server: NameServer,
    silent: CancellationToken,
}

impl Upstream {
    /// By these protocols; connections are made as they are needed.
    pub(super) fn new(
        udp: Option<&NameServerConfig>,
        stream: &NameServerConfig,
        context: &Arc<PoolContext>,
    ) -> Self {
        let ways = || Ways {
            udp: udp.map(|udp| {
                NameServer::from_config([udp.clone()], context.clone(), Connections::default())
            }),
            streams: Streams {
                server: stream.clone(),
                context: context.clone(),
                current: Mutex::new(Stream::new(stream, context)),
            },
        };
        Self { with_edns: ways(), without: ways() }
    }

    /// What it says; `None`: nothing that could be used.
    pub(super) async fn ask(&self, question: &Question) -> Option<Reply> {
        let said = self.with_edns.ask(question, true).await;
        // It may know no OPT record (RFC 6891 §7).
        if matches!(said, Some(Err(ResponseCode::FormErr | ResponseCode::NotImp))) {
            return self.without.ask(question, false).await.or(said);
        }
        said
    }
}

impl Ways {
    async fn ask(&self, question: &Question, with_edns: bool) -> Option<Reply> {
        if let Some(udp) = &self.udp {
            let asked = udp.send(question.request(with_edns)).first_answer().await;
            if !asked.as_ref().is_err_and(is_cut) {
                return question.understood(asked);
            }
        }
        self.streams.ask(question, with_edns).await
    }
}

/// Whether a connection may say more than a datagram did: that has TC; or cannot be read, as one that is larger
/// than we said we take, without TC (coredns#5953); or has another letter case, after which hickory has no
/// connection left where UDP is all there is.
fn is_cut(error: &NetError) -> bool {
    matches!(error, NetError::Truncated | NetError::Proto(_) | NetError::NoConnections)
}

impl Streams {
    /// What it says over a connection, or over a new one where that is silent.
    async fn ask(&self, question: &Question, with_edns: bool) -> Option<Reply> {
        let ask = |Stream { name_server, .. }: Stream| async move {
            let asked = name_server.send(question.request(with_edns)).first_answer().await;
            question.understood(asked)
        };
        let stream = self.current();
        let silent = stream.silent.clone();
        let mut asking = FuturesUnordered::new();
        asking.push(ask(stream));
        tokio::select! {
            said = asking.next() => return said.flatten(),
            // It may be slow only, so that it is still waited for.
            () = silent.cancelled() => asking.push(ask(self.current())),
        }
        while let Some(said) = asking.next().await {
            if said.is_some() {
                return said;
            }
        }
        None
    }

    fn current(&self) -> Stream {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.silent.is_cancelled() {
            *current = Stream::new(&self.server, &self.context);
        }
        current.clone()
    }
}

impl Stream {
    fn new(server: &NameServerConfig, context: &Arc<PoolContext>) -> Self {
        let silent = CancellationToken::new();
        let connections = Connections::by(Line::new(server, context, silent.clone()));
        let name_server = NameServer::from_config([server.clone()], context.clone(), connections);
        Self { name_server, silent }
    }
}
