//! One thread per UDP socket: receive a batch, look each query up, send a batch. No task,
//! allocation or lock per query.

mod backlog;

use std::{
    net::UdpSocket,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Cache};

use self::backlog::Backlog;
use crate::{
    answer::{Outcome, Plain, at_once, rotation},
    clients::Rate,
    counters::{Answered, Book, Counters, DropReason, nanoseconds},
    panics,
    policy::{Asking, Policy, Site},
    slow::{Arrival, SlowPath},
    sys::{Datagram, Inbox, Outbox, Route},
    wire::question::{Question, Shape},
    zone::Zone,
};

/// Batches still answered after the end was announced, while there are any: more than a full
/// receive buffer holds, and an end where the socket could not be retired.
const LAST_BATCHES: usize = 4096;
/// Pause after a receive that failed, usually for want of memory.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// One UDP thread's belongings.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) socket: Arc<UdpSocket>,
    /// Which server blocks are asked through this socket.
    pub(crate) group: usize,
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) zone: Arc<ArcSwap<Zone>>,
    pub(crate) slow: SlowPath,
    pub(crate) counters: Arc<Counters>,
    /// Of each client; `None`: as many as it likes.
    pub(crate) rate: Option<Arc<Rate>>,
    /// Set before the socket is shut down, which wakes the thread.
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Worker {
    /// Answers until the end is announced.
    pub(crate) fn run(self) {
        // The kernel goes on counting over a panic.
        let mut backlog = Backlog::default();
        while catch_unwind(AssertUnwindSafe(|| self.serve(&mut backlog))).is_err() {
            panics::note(&self.counters, "UDP thread");
        }
    }

    fn serve(&self, backlog: &mut Backlog) {
        let mut zones = Cache::new(self.zone.clone());
        let mut policies = Cache::new(self.policy.clone());
        let mut inbox = Inbox::new();
        let mut outbox = Outbox::new();
        let mut question = Question::new();
        let mut turn = 0;
        let mut failing = false;
        let mut last_batches = LAST_BATCHES;
        loop {
            if let Err(error) = inbox.receive(self.socket.as_fd()) {
                if !failing {
                    tracing::error!("DNS: a UDP socket cannot receive; trying on: {error}");
                }
                failing = true;
                if self.stopping.load(Ordering::Relaxed) {
                    return;
                }
                thread::park_timeout(ERROR_PAUSE);
                continue;
            }
            failing = false;
            let zone: &Zone = zones.load();
            let policy: &Policy = policies.load();
            let mut queries = 0;
            let received = Instant::now();
            let mut stopwatch = Stopwatch { begun: received, run: None };
            let lost = backlog.note(&inbox, &self.socket, received);
            if lost > 0 {
                self.counters.dropped(DropReason::QueueFull, lost);
            }
            for datagram in inbox.datagrams() {
                let Some(route) = datagram.route else { continue };
                queries += 1;
                if let Some(reason) = self.unread(backlog, &datagram, route, received) {
                    self.counters.dropped(reason, 1);
                    continue;
                }
                turn += 1;
                let now = (policy, zone);
                let book = self.handle(now, &datagram, route, &mut question, &mut outbox, turn);
                book.into_iter().for_each(|book| stopwatch.count(book));
            }
            self.counters.udp_queries.fetch_add(queries, Ordering::Relaxed);
            let failed = outbox.send(self.socket.as_fd()).failed;
            stopwatch.stop();
            if failed > 0 {
                self.counters.dropped(DropReason::SendFailed, failed as u64);
            }
            if self.stopping.load(Ordering::Relaxed) {
                last_batches -= 1;
                if queries == 0 || last_batches == 0 {
                    return;
                }
            }
        }
    }

    /// Why a datagram is dropped without being read.
    fn unread(
        &self,
        backlog: &Backlog,
        datagram: &Datagram<'_>,
        route: Route,
        received: Instant,
    ) -> Option<DropReason> {
        if backlog.is_late(datagram) {
            return Some(DropReason::TooLate);
        }
        let rate = self.rate.as_ref()?;
        (!rate.admits(route.source().ip(), received)).then_some(DropReason::ClientRate)
    }

    /// Answers a datagram, or leaves it to the slow path. Returns where an answer was counted.
    fn handle<'p>(
        &self,
        (policy, zone): (&'p Policy, &Zone),
        datagram: &Datagram<'_>,
        route: Route,
        question: &mut Question,
        outbox: &mut Outbox,
        turn: u32,
    ) -> Option<Book<'p>> {
        // A reply to port 0 reaches nobody and some stacks reflect it.
        if route.source_port() == 0 {
            self.counters.dropped(DropReason::SourcePortZero, 1);
            return None;
        }
        if datagram.cut {
            self.counters.dropped(DropReason::Oversized, 1);
            return None;
        }
        match question.read(datagram.bytes) {
            Shape::Drop(reason) => {
                self.counters.dropped(reason, 1);
                return None;
            }
            Shape::Odd => {}
            Shape::Plain => {
                let source = route.source();
                let asking = Asking { question, query: datagram.bytes, source, tcp: false };
                let site = policy.site(self.group, asking);
                let book = site.and_then(|site| site.ledger.book(self.counters.slot));
                if let Some(site) = site
                    && self.answer((site, zone), asking, route, outbox, (turn, book))
                {
                    return book;
                }
            }
        }
        let arrival = Arrival { group: self.group, route };
        self.slow.take_datagram(&self.socket, datagram.bytes, arrival, &self.counters);
        None
    }

    /// False if the slow path must look.
    fn answer(
        &self,
        (site, zone): (&Site, &Zone),
        asking: Asking<'_>,
        route: Route,
        outbox: &mut Outbox,
        (turn, book): (u32, Option<Book<'_>>),
    ) -> bool {
        let question = asking.question;
        let limit = question.udp_reply_bytes_max().min(site.udp_bytes_max);
        let plain = Plain { asking, limit, rotation: rotation(turn), book };
        let outcome = at_once(site, zone, plain, outbox.space());
        let (Outcome::Reply(made) | Outcome::Refresh(made)) = outcome else { return false };
        if let Some(book) = book {
            let dnssec_ok = question.edns.is_some_and(|edns| edns.dnssec_ok);
            book.answered(Answered {
                qtype: question.qtype,
                dnssec_ok,
                query_bytes: asking.query.len(),
                by: made.by,
                code: made.code.into(),
                reply_bytes: made.bytes,
            });
        }
        outbox.push(made.bytes, route);
        if matches!(outcome, Outcome::Refresh(_)) {
            self.slow.refresh(self.group, asking, &self.counters);
        }
        true
    }
}

/// The time answers take. Those of a batch leave together, so the clock is read twice a batch.
struct Stopwatch<'p> {
    begun: Instant,
    /// Answers of one server block in a row.
    run: Option<(Book<'p>, u64)>,
}

impl<'p> Stopwatch<'p> {
    fn count(&mut self, book: Book<'p>) {
        match &mut self.run {
            Some((known, answers)) if known.is_same(book) => *answers += 1,
            _ => {
                self.stop();
                self.run = Some((book, 1));
            }
        }
    }

    fn stop(&mut self) {
        if let Some((book, answers)) = self.run.take() {
            book.took(nanoseconds(self.begun.elapsed()), answers);
        }
    }
}
