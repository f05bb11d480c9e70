//! One upstream: asked by UDP where it may be, and over connections where it may not, or where a datagram has not
//! said all.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_resolver::{
    NameServerPool, PoolContext,
    config::NameServerConfig,
    net::{
        NetError,
        xfer::{DnsHandle, FirstAnswer},
    },
};

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
    stream: NameServer,
}

impl Upstream {
    /// By these protocols; connections are made as they are needed.
    pub(super) fn new(
        udp: Option<&NameServerConfig>,
        stream: &NameServerConfig,
        context: &Arc<PoolContext>,
    ) -> Self {
        let by = |server: &NameServerConfig, connections| {
            NameServer::from_config([server.clone()], context.clone(), connections)
        };
        let ways = || Ways {
            udp: udp.map(|udp| by(udp, Connections::default())),
            stream: by(stream, Connections::by(Line::new(stream, context))),
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
        question.understood(self.stream.send(question.request(with_edns)).first_answer().await)
    }
}

/// Whether a connection may say more than a datagram did: that has TC; or cannot be read, as one that is larger
/// than we said we take, without TC (coredns#5953); or has another letter case, after which hickory has no
/// connection left where UDP is all there is.
fn is_cut(error: &NetError) -> bool {
    matches!(error, NetError::Truncated | NetError::Proto(_) | NetError::NoConnections)
}
