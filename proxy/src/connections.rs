//! The connection table, seen from the agent: what is over leaves it.
//!
//! The programs write when an entry was last met and what became of its connection; which limits
//! hold is [`fairlead_ebpf::connection`]'s matter. Entries leave in twos: one direction may be silent
//! for long while the other speaks. One whose last word was a reset that its receiver must have believed takes the other
//! along: what that met since was on its way (netfilter: CLOSE).

use std::{io, path::Path};

use fairlead_ebpf::{
    abi::{Connection, TCP, Tuple, name},
    connection::{TICK_SHIFT, is_twin, twin},
};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    error::{KernelError, Step},
    maps::kernel::open_map,
    sys::Table,
};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Entries that leave at once: what is held of them is a few megabytes, also after a flood of millions.
const LEAVING_MAX: usize = 16_384;

/// The table.
#[derive(Debug)]
pub struct Connections {
    settled: Table<Tuple, Connection>,
    openings: Table<Tuple, Connection>,
}

/// What is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Connections of which no packet is to be expected any more.
    Over,
    /// Also those that nobody would miss for long: closed ones, and flows of datagrams, which have
    /// been silent for two ticks. For who hands over to another proxy: its packets must not be
    /// taken for those of connections that are no more.
    Loose,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries before.
    pub entries: usize,
    /// Entries that left.
    pub removed: usize,
    /// Entries that stay of connections that are open; what begins or has ended is not among them.
    pub settled: usize,
}

impl Connections {
    pub(crate) fn new(
        settled: Table<Tuple, Connection>,
        openings: Table<Tuple, Connection>,
    ) -> Self {
        Self { settled, openings }
    }

    /// The table pinned below `bpffs`.
    ///
    /// # Errors
    /// There is none of this version, or this process may not open it.
    pub fn open_pinned(bpffs: &Path) -> Result<Self, KernelError> {
        let maps = bpffs.join("fairlead/maps");
        let open = |name| open_map::<Tuple, Connection>(&maps.join(name));
        let (settled, openings) = (open(name::CONNECTIONS)?.0, open(name::OPENINGS)?.0);
        Ok(Self::new(Table::new(settled), Table::new(openings)))
    }

    /// Removes what is over.
    ///
    /// # Errors
    /// The table cannot be read or written. Part of it may be done.
    pub fn sweep(&self, what: Sweep) -> Result<Swept, KernelError> {
        self.sweep_at(what, now()).map_err(|error| KernelError::system(Step::Sweep, error))
    }

    fn sweep_at(&self, what: Sweep, now: u32) -> io::Result<Swept> {
        let openings = self.sweep_table(&self.openings, what, now)?;
        let settled = self.sweep_table(&self.settled, what, now)?;
        let entries = openings.0 + settled.0;
        let removed = openings.1 + settled.1;
        Ok(Swept { entries, removed, settled: settled.0.saturating_sub(settled.1) })
    }

    /// How many entries there were, and how many left.
    fn sweep_table(
        &self,
        table: &Table<Tuple, Connection>,
        what: Sweep,
        now: u32,
    ) -> io::Result<(usize, usize)> {
        let (mut first, mut removed) = (None, 0);
        loop {
            let (mut entries, mut ended) = (0, Vec::new());
            table.each(|key, value| {
                entries += 1;
                if ended.len() < LEAVING_MAX && what.takes(key, value, now) {
                    ended.push((*key, *value));
                }
            })?;
            let is_all = ended.len() < LEAVING_MAX;
            let (mut keys, mut taken_along) = (Vec::new(), Vec::new());
            for (key, value) in ended {
                if what == Sweep::Over && value.is_broken_off() {
                    taken_along.push(twin(&key, &value));
                } else if !self.is_ended(&key, &value, what, now)? {
                    continue;
                }
                keys.push(key);
            }
            table.delete(&keys)?;
            self.openings.delete(&taken_along)?;
            self.settled.delete(&taken_along)?;
            removed += keys.len();
            let entries = *first.get_or_insert(entries);
            if is_all || keys.is_empty() {
                return Ok((entries, removed));
            }
        }
    }

    /// An entry leaves when the other direction's has nothing against it, either.
    fn is_ended(&self, key: &Tuple, value: &Connection, what: Sweep, now: u32) -> io::Result<bool> {
        let other_key = twin(key, value);
        let other = match self.settled.get(&other_key)? {
            Some(other) => Some(other),
            None => self.openings.get(&other_key)?,
        };
        let Some(other) = other else { return Ok(true) };
        Ok(!is_twin(key, &other) || what.takes(&other_key, &other, now))
    }
}

impl Sweep {
    fn takes(self, key: &Tuple, value: &Connection, now: u32) -> bool {
        match self {
            Self::Over => value.is_over(key.protocol, now),
            Self::Loose if key.protocol == TCP => value.is_free(key.protocol, now),
            Self::Loose => value.is_silent(now),
        }
    }
}

/// The programs' clock, in ticks.
pub(crate) fn now() -> u32 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let [seconds, nanos] = [time.tv_sec, time.tv_nsec].map(i64::unsigned_abs);
    let ticks = seconds.wrapping_mul(NANOS_PER_SECOND).wrapping_add(nanos) >> TICK_SHIFT;
    u32::try_from(ticks & u64::from(u32::MAX)).unwrap_or_default()
}
