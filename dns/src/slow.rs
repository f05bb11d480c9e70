//! The slow path: queries that are not plain, aliases, and names of others. Complete parsing and
//! encoding are hickory's.
//!
//! Bounded by permits: what finds none is dropped and counted, never queued without end.

mod asking;
mod chain;
mod message;
mod rewritten;
pub(crate) mod upstreams;
mod wrapped;

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use hickory_server::{net::xfer::Protocol, server::Request};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;

use self::chain::Resolution;
pub(crate) use self::{
    chain::{in_hosts, plain_query},
    upstreams::Wishes,
};

use crate::{
    counters::{Counters, DropReason},
    policy::{Asking, Policy},
    sys::{self, Route},
    wire::{
        question::Question,
        rcode,
        reply::{bare, code},
    },
    zone::Zone,
};

/// Queries in the slow path at one time, those waiting for upstreams included (CoreDNS'
/// `max_concurrent` in kubeadm).
const IN_FLIGHT_MAX: usize = 1000;

/// The slow path; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SlowPath(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtime: Handle,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    policy: Arc<ArcSwap<Policy>>,
    zone: Arc<ArcSwap<Zone>>,
}

/// A query with its way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'q> {
    pub(crate) query: &'q [u8],
    pub(crate) source: SocketAddr,
    pub(crate) transport: Protocol,
    /// Which server blocks are asked.
    pub(crate) group: usize,
    /// How many questions this one is asked because of.
    pub(crate) depth: u8,
}

impl<'q> Asked<'q> {
    /// As a client's message.
    pub(crate) fn new(query: &'q [u8], source: SocketAddr, tcp: bool, group: usize) -> Self {
        let transport = if tcp { Protocol::Tcp } else { Protocol::Udp };
        Self { query, source, transport, group, depth: 0 }
    }

    /// What server blocks are chosen by.
    fn asking<'a>(&self, question: &'a Question) -> Asking<'a>
    where
        'q: 'a,
    {
        let tcp = self.transport != Protocol::Udp;
        Asking { question, query: self.query, source: self.source, tcp }
    }
}

/// How a datagram came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) group: usize,
    pub(crate) route: Route,
}

/// The right to use the slow path for one query.
pub(crate) type Permit = OwnedSemaphorePermit;

impl SlowPath {
    pub(crate) fn new(
        runtime: Handle,
        tasks: TaskTracker,
        policy: Arc<ArcSwap<Policy>>,
        zone: Arc<ArcSwap<Zone>>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        Self(Arc::new(Inner { runtime, tasks, permits, policy, zone }))
    }

    /// A place for one query; `None`, and counted, when all are taken.
    pub(crate) fn permit(&self, counters: &Counters) -> Option<Permit> {
        let permit = self.0.permits.clone().try_acquire_owned().ok();
        if permit.is_none() {
            counters.dropped(DropReason::SlowPathFull, 1);
        }
        permit
    }

    /// Takes a datagram over from a UDP thread; the reply leaves by the socket it came to.
    pub(crate) fn take_datagram(
        &self,
        socket: &Arc<UdpSocket>,
        query: &[u8],
        Arrival { group, route }: Arrival,
        counters: &Arc<Counters>,
    ) {
        let Some(permit) = self.permit(counters) else { return };
        let (slow, socket, counters) = (self.clone(), socket.clone(), counters.clone());
        let query = query.to_vec();
        self.0.tasks.spawn_on(
            async move {
                let asked = Asked::new(&query, route.source(), false, group);
                if let Some(reply) = slow.reply(asked, &permit, &counters).await {
                    let sent = sys::send_one(socket.as_fd(), &reply, &route);
                    counters.dropped(DropReason::SendFailed, sent.failed as u64);
                }
            },
            &self.0.runtime,
        );
    }

    /// Asks the upstreams again for what was answered from the cache.
    pub(crate) fn refresh(&self, group: usize, asking: Asking<'_>, counters: &Arc<Counters>) {
        let Asking { query, source, tcp, .. } = asking;
        let (slow, counters, query) = (self.clone(), counters.clone(), query.to_vec());
        let permit = self.0.permits.clone().try_acquire_owned().ok();
        self.0.tasks.spawn_on(
            async move {
                // Without a place nothing is asked, and the next question tries again.
                let asked = Asked::new(&query, source, tcp, group);
                slow.ask_again(asked, permit, &counters).await;
            },
            &self.0.runtime,
        );
    }

    /// The reply to any query at all; `None` when it deserves none.
    pub(crate) async fn reply(
        &self,
        asked: Asked<'_>,
        _permit: &Permit,
        counters: &Counters,
    ) -> Option<Vec<u8>> {
        let begun = Instant::now();
        counters.slow_queries.fetch_add(1, Ordering::Relaxed);
        let Ok(request) = Request::from_bytes(asked.query.to_vec(), asked.source, asked.transport)
        else {
            counters.reply(rcode::FORMAT_ERROR.into());
            return bare(asked.query, rcode::FORMAT_ERROR).map(Vec::from);
        };
        let (reply, code) = match message::verdict(&request) {
            message::Verdict::Error(code) => {
                let available = self.recursion_available(&request, asked);
                (message::error(&request, code, available), code.into())
            }
            message::Verdict::Resolve => match self.resolve(&request, asked, counters).await {
                Resolution::Drop => {
                    counters.dropped(DropReason::Policy, 1);
                    return None;
                }
                Resolution::Reply(reply) => {
                    let code = reply.as_deref().map_or(rcode::SERVER_FAILURE, code);
                    (reply, code.into())
                }
            },
        };
        counters.reply(code);
        let reply = reply.or_else(|| bare(asked.query, rcode::SERVER_FAILURE).map(Vec::from));
        if let Some(reply) = &reply {
            self.log(&request, asked, reply, code, begun.elapsed());
        }
        reply
    }

    /// Writes a reply down if `log` wants it, in CoreDNS's common format.
    fn log(&self, request: &Request, asked: Asked<'_>, reply: &[u8], code: u16, took: Duration) {
        let policy = self.0.policy.load();
        let Some(question) = request.queries.queries().first() else { return };
        let Some((_, plain)) = chain::seen(request) else { return };
        let site = policy.site(asked.group, asked.asking(&plain));
        let answers = reply.get(6..8).and_then(|count| count.first_chunk().copied());
        let answers = answers.map_or(0, u16::from_be_bytes);
        if !site.is_some_and(|site| site.logs(&plain.name, code, answers)) {
            return;
        }
        let proto = if asked.transport == Protocol::Udp { "udp" } else { "tcp" };
        let edns = request.edns.as_ref();
        tracing::info!(
            "{source} - {id} \"{qtype} {class} {qname} {proto} {size} {dnssec_ok} {payload}\" {rcode} \
             {flags} {reply_size} {seconds:.9}s",
            source = asked.source,
            id = request.metadata.id,
            qtype = question.query_type(),
            class = question.query_class(),
            qname = question.original().name(),
            size = asked.query.len(),
            dnssec_ok = edns.is_some_and(|edns| edns.flags().dnssec_ok),
            payload = edns.map_or(512, hickory_proto::op::Edns::max_payload),
            rcode = message::code_name(code),
            flags = message::flag_names(reply),
            reply_size = reply.len(),
            seconds = took.as_secs_f64(),
        );
    }
}
