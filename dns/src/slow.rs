//! The slow path: queries that are not plain, aliases, and names of others. Complete parsing and
//! encoding are hickory's.
//!
//! Bounded: what finds no place is dropped, or refused where upstreams had to be asked, and counted; never
//! queued without end.

pub(crate) mod alias;
mod asking;
mod chain;
mod kind;
mod log;
mod message;
mod place;
mod rewritten;
pub(crate) mod upstreams;
mod walk;
mod wrapped;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_server::{net::xfer::Protocol, server::Request};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use self::{
    chain::{Course, Resolution, seen},
    place::Places,
};
pub(crate) use self::{
    chain::{in_hosts, plain_query},
    place::Place,
    upstreams::Wishes,
};

use crate::{
    counters::{Answered, Book, Counters, DropReason, Ledger, Plugin, nanoseconds},
    panics::caught,
    policy::{Asking, Policy, Site},
    sys::{self, Route},
    wire::{
        question::{Question, has_cut_option, with_family},
        rcode,
        reply::{bare, code, failure},
    },
    zone::Zone,
};

/// Questions asked because of one of a client's: rules and aliases may lead to each other.
const ASKS_MAX: u8 = 64;

/// The slow path; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SlowPath(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtime: Handle,
    tasks: TaskTracker,
    places: Places,
    policy: Arc<ArcSwap<Policy>>,
    zone: Arc<ArcSwap<Zone>>,
}

/// A query with its way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'q> {
    pub(crate) query: &'q [u8],
    pub(crate) source: SocketAddr,
    /// The address that was asked, where it is known.
    pub(crate) local: Option<IpAddr>,
    pub(crate) transport: Protocol,
    /// Which server blocks are asked.
    pub(crate) group: usize,
    /// How many questions this one is asked because of.
    pub(crate) depth: u8,
    /// How many aliases have led to it.
    pub(crate) aliases: u8,
}

impl<'q> Asked<'q> {
    /// As a client's message.
    pub(crate) fn new(query: &'q [u8], source: SocketAddr, tcp: bool, group: usize) -> Self {
        let transport = if tcp { Protocol::Tcp } else { Protocol::Udp };
        Self { query, source, local: None, transport, group, depth: 0, aliases: 0 }
    }

    /// The same, asked at this address.
    pub(crate) fn at(self, local: Option<IpAddr>) -> Self {
        Self { local, ..self }
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

impl SlowPath {
    pub(crate) fn new(
        runtime: Handle,
        tasks: TaskTracker,
        policy: Arc<ArcSwap<Policy>>,
        zone: Arc<ArcSwap<Zone>>,
    ) -> Self {
        Self(Arc::new(Inner { runtime, tasks, places: Places::new(), policy, zone }))
    }

    /// A place for one query of a client; `None`, and counted, when all are taken.
    pub(crate) fn place(&self, client: IpAddr, counters: &Counters) -> Option<Place> {
        let place = self.0.places.place(client);
        if place.is_none() {
            counters.dropped(DropReason::SlowPathFull, 1);
        }
        place
    }

    /// Takes a datagram over from a UDP thread; the reply leaves by the socket it came to.
    pub(crate) fn take_datagram(
        &self,
        socket: &Arc<UdpSocket>,
        query: &[u8],
        Arrival { group, route }: Arrival,
        counters: &Arc<Counters>,
    ) {
        let Some(place) = self.place(route.source().ip(), counters) else { return };
        let (slow, socket, counters) = (self.clone(), socket.clone(), counters.clone());
        let query = query.to_vec();
        self.0.tasks.spawn_on(
            async move {
                let own = || socket.local_addr().ok().map(|own| own.ip());
                let local = route.local().or_else(own);
                let asked = Asked::new(&query, route.source(), false, group).at(local);
                if let Some(reply) = slow.reply(asked, &place, &counters).await {
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
        let place = self.0.places.place(source.ip());
        self.0.tasks.spawn_on(
            async move {
                // Without a place nothing is asked, and the next question tries again.
                let asked = Asked::new(&query, source, tcp, group);
                caught(&counters, slow.ask_again(asked, place, &counters)).await;
            },
            &self.0.runtime,
        );
    }

    /// The reply to any query at all; `None` when it deserves none.
    pub(crate) async fn reply(
        &self,
        asked: Asked<'_>,
        place: &Place,
        counters: &Arc<Counters>,
    ) -> Option<Vec<u8>> {
        let made = caught(counters, self.made(asked, place, counters)).await;
        made.unwrap_or_else(|| failure(asked.query))
    }

    async fn made(
        &self,
        asked: Asked<'_>,
        place: &Place,
        counters: &Arc<Counters>,
    ) -> Option<Vec<u8>> {
        let begun = Instant::now();
        let query = with_family(asked.query);
        let asked = Asked { query: &query, ..asked };
        counters.slow_queries.fetch_add(1, Ordering::Relaxed);
        let (policy, zone) = (self.0.policy.load_full(), self.0.zone.load_full());
        let count = |ledger: Option<&Ledger>, (qtype, dnssec_ok), by, code, reply: &[u8]| {
            let book = ledger.and_then(|ledger| ledger.book(counters.shared));
            if let Some(book) = book {
                let (query_bytes, reply_bytes) = (asked.query.len(), reply.len());
                book.answered(Answered { qtype, dnssec_ok, query_bytes, by, code, reply_bytes });
                book.took(nanoseconds(begun.elapsed()), 1);
            }
        };
        let strays = policy.strays(asked.group);
        let read = || Request::from_bytes(asked.query.to_vec(), asked.source, asked.transport).ok();
        let Some(request) = (!has_cut_option(asked.query)).then(read).flatten() else {
            let reply = bare(asked.query, rcode::FORMAT_ERROR).map(Vec::from)?;
            count(strays, (0, false), Plugin::None, rcode::FORMAT_ERROR.into(), &reply);
            return Some(reply);
        };
        let plain = seen(&request).map(|(_, plain)| plain);
        let site = plain.as_ref().and_then(|plain| policy.site(asked.group, asked.asking(plain)));
        let is_probe = plain.as_ref().is_some_and(|p| policy.is_probe(&p.name, p.qtype));
        let (reply, by, code) = match message::not_a_query(&request) {
            Some(code) => {
                let available = site.is_some_and(Site::has_upstreams);
                (message::error(&request, code, available), Plugin::None, code.into())
            }
            // It has shown what it had to.
            None if is_probe => {
                let code = ResponseCode::Refused;
                (message::error(&request, code, false), Plugin::None, code.into())
            }
            None => {
                let (policy, zone, group) = (&*policy, &*zone, asked.group);
                let course = Course {
                    policy,
                    zone,
                    request: &request,
                    group,
                    subnet: None,
                    place,
                    counters,
                    rotated: false,
                    is_inner: false,
                    asks_left: &AtomicU8::new(ASKS_MAX),
                };
                match self.resolve(&course, asked).await {
                    Resolution::Drop => {
                        counters.dropped(DropReason::Policy, 1);
                        let book = site.and_then(|site| site.ledger.book(counters.shared));
                        book.into_iter().for_each(Book::dropped);
                        if let (Some(site), Some(plain)) = (site, &plain) {
                            let (code, took) = (0, begun.elapsed());
                            log::Logged { request: &request, asked, plain, reply: &[], code, took }
                                .write(site);
                        }
                        return None;
                    }
                    Resolution::Reply(reply, by) => {
                        let code = reply.as_deref().map_or(rcode::SERVER_FAILURE, code);
                        (reply, by, code.into())
                    }
                }
            }
        };
        let reply = match reply {
            Some(reply) => reply,
            None => bare(asked.query, rcode::SERVER_FAILURE).map(Vec::from)?,
        };
        let question = plain.as_ref().map_or((0, false), |plain| {
            (plain.qtype, plain.edns.is_some_and(|edns| edns.dnssec_ok))
        });
        count(site.map(|site| &*site.ledger).or(strays), question, by, code, &reply);
        if let (Some(site), Some(plain)) = (site, &plain) {
            let took = begun.elapsed();
            log::Logged { request: &request, asked, plain, reply: &reply, code, took }.write(site);
        }
        Some(reply)
    }
}

#[cfg(test)]
mod tests;
