//! The slow path: queries that are not plain, aliases, and names of others. Complete parsing and
//! encoding are hickory's.
//!
//! Bounded by permits: what finds none is dropped and counted, never queued without end.

mod chain;
mod message;
pub(crate) mod upstreams;

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
};

use arc_swap::ArcSwap;
use hickory_server::{net::xfer::Protocol, server::Request};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;
use upstreams::UpstreamPool;

use crate::{
    config::Upstreams,
    counters::{Counters, DropReason},
    error::DnsError,
    sys::{self, Route},
    wire::{
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
    zone: Arc<ArcSwap<Zone>>,
    upstreams: UpstreamPool,
}

/// A query with its way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'q> {
    pub(crate) query: &'q [u8],
    pub(crate) source: SocketAddr,
    pub(crate) transport: Protocol,
}

/// The right to use the slow path for one query.
pub(crate) type Permit = OwnedSemaphorePermit;

impl SlowPath {
    pub(crate) fn new(
        runtime: Handle,
        tasks: TaskTracker,
        zone: Arc<ArcSwap<Zone>>,
        upstreams: UpstreamPool,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        Self(Arc::new(Inner { runtime, tasks, permits, zone, upstreams }))
    }

    /// Whether names outside the zone are forwarded.
    pub(crate) fn has_upstreams(&self) -> bool {
        self.0.upstreams.any()
    }

    /// Asks others from now on.
    pub(crate) fn retarget(&self, upstreams: &Upstreams) -> Result<(), DnsError> {
        self.0.upstreams.retarget(upstreams)
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
        route: Route,
        counters: &Arc<Counters>,
    ) {
        let Some(permit) = self.permit(counters) else { return };
        let (slow, socket, counters) = (self.clone(), socket.clone(), counters.clone());
        let query = query.to_vec();
        self.0.tasks.spawn_on(
            async move {
                let asked =
                    Asked { query: &query, source: route.source(), transport: Protocol::Udp };
                if let Some(reply) = slow.reply(asked, &permit, &counters).await {
                    let sent = sys::send_one(socket.as_fd(), &reply, &route);
                    counters.dropped(DropReason::SendFailed, sent.failed as u64);
                }
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
        counters.slow_queries.fetch_add(1, Ordering::Relaxed);
        let Ok(request) = Request::from_bytes(asked.query.to_vec(), asked.source, asked.transport)
        else {
            counters.reply(rcode::FORMAT_ERROR.into());
            return bare(asked.query, rcode::FORMAT_ERROR).map(Vec::from);
        };
        let (reply, code) = match message::verdict(&request) {
            message::Verdict::Error(code) => {
                (message::error(&request, code, self.has_upstreams()), code.into())
            }
            message::Verdict::Resolve => {
                let reply = self.resolve(&request, asked.transport, counters).await;
                let code = reply.as_deref().map_or(rcode::SERVER_FAILURE, code);
                (reply, code.into())
            }
        };
        counters.reply(code);
        reply.or_else(|| bare(asked.query, rcode::SERVER_FAILURE).map(Vec::from))
    }
}
