//! One thread's lines on their way to the queue.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::writer::{Block, Queue};
use crate::{config::IngressConfig, counters::ThreadCounters};

/// A block goes on when it has as much.
const BLOCK_BYTES: usize = 32 << 10;
/// Buffers of requests kept for the next ones, and how large they may have become.
const KEPT_MAX: usize = 64;
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Lines that were not sent on yet, and buffers for those to come.
#[derive(Debug)]
pub(crate) struct Lines {
    queue: Queue,
    block: RefCell<Open>,
    clock: RefCell<Clock>,
    kept: RefCell<Vec<(Vec<u8>, Vec<usize>)>>,
}

/// A block that is being filled.
#[derive(Debug, Default)]
struct Open {
    /// Whose lines they are.
    config: Option<Rc<IngressConfig>>,
    bytes: Vec<u8>,
    lines: u64,
}

/// The time of a line.
pub(super) struct Now<'a> {
    pub(super) instant: Instant,
    pub(super) since_epoch: Duration,
    /// `27/Nov/2026:02:00:00 +0000`.
    pub(super) local: &'a str,
    /// `2026-11-27T02:00:00+00:00`.
    pub(super) iso8601: &'a str,
}

/// The wall clock as of the last tick, and the texts of the last second.
#[derive(Debug)]
struct Clock {
    instant: Instant,
    since_epoch: Duration,
    second: u64,
    local: String,
    iso8601: String,
}

impl Lines {
    pub(crate) fn new(queue: Queue) -> Self {
        let (block, kept) = Default::default();
        Self { queue, block, clock: RefCell::new(Clock::new()), kept }
    }

    /// Adds a line.
    pub(super) fn add(
        &self,
        config: &Rc<IngressConfig>,
        counters: &ThreadCounters,
        instant: Instant,
        push: impl FnOnce(&Now<'_>, &mut Vec<u8>),
    ) {
        let mut block = self.block.borrow_mut();
        if !block.config.as_ref().is_some_and(|of| Rc::ptr_eq(of, config)) {
            self.send(&mut block, counters);
            block.config = Some(config.clone());
        }
        let mut clock = self.clock.borrow_mut();
        push(&clock.now(instant), &mut block.bytes);
        block.lines += 1;
        counters.log_lines.add();
        if block.bytes.len() >= BLOCK_BYTES {
            self.send(&mut block, counters);
        }
    }

    /// Once a tick: nobody waits longer for a line.
    pub(crate) fn flush(&self, counters: &ThreadCounters) {
        self.send(&mut self.block.borrow_mut(), counters);
        self.clock.borrow_mut().set();
    }

    fn send(&self, open: &mut Open, counters: &ThreadCounters) {
        let lines = std::mem::take(&mut open.lines);
        if lines == 0 {
            return;
        }
        let Some(log) = open.config.as_ref().and_then(|config| config.access_log.as_ref()) else {
            return open.bytes.clear();
        };
        let bytes = std::mem::replace(&mut open.bytes, Vec::with_capacity(BLOCK_BYTES));
        let block = Block { target: log.target.clone(), bytes, lines };
        if !self.queue.send(block) {
            counters.log_dropped.add_all(lines);
        }
    }

    pub(crate) fn take_buffers(&self) -> (Vec<u8>, Vec<usize>) {
        self.kept.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut text: Vec<u8>, mut ends: Vec<usize>) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < KEPT_MAX && text.capacity() <= KEPT_BYTES_MAX {
            text.clear();
            ends.clear();
            kept.push((text, ends));
        }
    }
}

impl Clock {
    fn new() -> Self {
        let mut clock = Self {
            instant: Instant::now(),
            since_epoch: Duration::ZERO,
            second: u64::MAX,
            local: String::new(),
            iso8601: String::new(),
        };
        clock.set();
        clock
    }

    /// By the wall clock, which may be put forward and back.
    fn set(&mut self) {
        self.instant = Instant::now();
        self.since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    }

    fn now(&mut self, instant: Instant) -> Now<'_> {
        let since_epoch = self.since_epoch + instant.duration_since(self.instant);
        if since_epoch.as_secs() != self.second {
            self.second = since_epoch.as_secs();
            self.write();
        }
        Now { instant, since_epoch, local: &self.local, iso8601: &self.iso8601 }
    }

    fn write(&mut self) {
        let second = i64::try_from(self.second).unwrap_or_default();
        let time = jiff::Timestamp::from_second(second).unwrap_or_default();
        self.local = time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
        self.iso8601 = time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_nginxs_in_utc() {
        let mut clock = Clock::new();
        clock.since_epoch = Duration::from_millis(1_795_744_799_500);
        let now = clock.now(clock.instant);
        assert_eq!(now.local, "27/Nov/2026:01:59:59 +0000");
        assert_eq!(now.iso8601, "2026-11-27T01:59:59+00:00");
    }
}
