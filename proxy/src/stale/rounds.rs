//! Which stale notes are looked into when, and which go.
//!
//! A search that meets a socket in no namespace proves nothing where not every namespace was seen, and one
//! whose socket the kernel did not end is to be ended still. Such notes wait, each with pauses of its own
//! that grow, for a search; one that is made for others takes them along. There are no more of them than the
//! map has notes, and one whose socket is closed is gone.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::PeerKey;

use super::diag::Found;

/// First pause before a search is repeated; doubled up to [`PAUSE_LAST`].
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// Longest pause: each search goes through every socket of the node.
const PAUSE_LAST: Duration = Duration::from_secs(600);

/// Stale notes that were looked into before.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// Notes of an earlier agent are where they belong.
    pub(super) has_taken_over: bool,
    /// To be taken away next time, if they are still stale.
    due: HashSet<PeerKey>,
    /// Their sockets were met in no namespace, and not every one was seen, or could not be ended.
    waiting: HashMap<PeerKey, Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Instant,
    pause: Duration,
}

/// What a search came to.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) found: Found,
    pub(super) is_all_seen: bool,
    pub(super) closed_namespaces: usize,
}

impl Rounds {
    /// Notes whose sockets are to be looked for now; none, if there is no news and nobody has waited long enough.
    pub(super) fn wanted(&mut self, stale: &HashSet<PeerKey>, now: Instant) -> Vec<PeerKey> {
        self.waiting.retain(|key, _| stale.contains(key));
        self.due.retain(|key| stale.contains(key));
        let is_new = |key: &&PeerKey| !self.due.contains(*key) && !self.waiting.contains_key(*key);
        let mut wanted: Vec<PeerKey> = stale.iter().filter(is_new).copied().collect();
        if !wanted.is_empty() || self.next().is_some_and(|at| at <= now) {
            wanted.extend(self.waiting.keys());
        }
        wanted
    }

    /// Which notes go now; the others are remembered.
    pub(super) fn sort(
        &mut self,
        wanted: &[PeerKey],
        Search { found, is_all_seen, .. }: &Search,
        now: Instant,
    ) -> Vec<PeerKey> {
        let mut over: Vec<PeerKey> = std::mem::take(&mut self.due).into_iter().collect();
        for key in wanted {
            let before = self.waiting.remove(key);
            if found.ended.contains(&key.socket) {
                over.push(*key);
            } else if found.others.contains(&key.socket)
                || (*is_all_seen && !found.refused.contains(&key.socket))
            {
                self.due.insert(*key);
            } else {
                self.waiting.insert(*key, Wait::after(before, now));
            }
        }
        over
    }

    /// How many notes wait for another search.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the first of them has waited long enough.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|wait| wait.until).min()
    }
}

impl Wait {
    /// Whoever was taken along before its time waits no longer for it.
    fn after(before: Option<Self>, now: Instant) -> Self {
        match before {
            Some(wait) if wait.until > now => wait,
            Some(Self { pause, .. }) => Self::new((pause * 2).min(PAUSE_LAST), now),
            None => Self::new(PAUSE_FIRST, now),
        }
    }

    fn new(pause: Duration, now: Instant) -> Self {
        Self { until: now + pause, pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(socket: u64) -> PeerKey {
        PeerKey { socket, backend: [7; 16], backend_port: [0, 53], zero: [0; 6] }
    }

    /// What a search meets: sockets that are ended, that are connected to something else, that cannot be ended.
    #[derive(Clone, Copy, Default)]
    struct Met<'a> {
        ended: &'a [u64],
        others: &'a [u64],
        refused: &'a [u64],
        is_all_seen: bool,
    }

    const ALL: Met<'_> = Met { ended: &[], others: &[], refused: &[], is_all_seen: true };
    const PART: Met<'_> = Met { is_all_seen: false, ..ALL };

    /// A round after so many seconds: notes that are stale, and what a search meets; then notes that are
    /// looked for, and that go.
    type Round<'a> = (u64, &'a [u64], Met<'a>, &'a [u64], &'a [u64]);

    fn assert_rounds(of: &str, table: &[Round<'_>]) {
        let begun = Instant::now();
        let sorted = |mut keys: Vec<PeerKey>| {
            keys.sort_unstable_by_key(|key| key.socket);
            keys.iter().map(|key| key.socket).collect::<Vec<_>>()
        };
        let mut rounds = Rounds::default();
        for (seconds, stale, met, looked_for, gone) in table {
            let now = begun + Duration::from_secs(*seconds);
            let stale: HashSet<PeerKey> = stale.iter().map(|socket| note(*socket)).collect();
            let wanted = rounds.wanted(&stale, now);
            assert_eq!(sorted(wanted.clone()), *looked_for, "{of}, after {seconds} s");
            let set = |sockets: &[u64]| sockets.iter().copied().collect();
            let (ended, others) = (set(met.ended), set(met.others));
            let found = Found { ended, others, refused: set(met.refused) };
            let search = Search { found, is_all_seen: met.is_all_seen, closed_namespaces: 0 };
            let over = rounds.sort(&wanted, &search, now);
            assert_eq!(sorted(over), *gone, "{of}, after {seconds} s");
        }
    }

    #[test]
    fn a_note_goes_with_its_socket_or_a_round_later() {
        assert_rounds(
            "ended, not connected, and closed",
            &[
                (0, &[1, 2, 3], Met { ended: &[1], others: &[2], ..ALL }, &[1, 2, 3], &[1]),
                (1, &[2, 3, 4], Met { others: &[4], ..ALL }, &[4], &[2, 3]),
                (2, &[4], ALL, &[], &[4]),
            ],
        );
        assert_rounds(
            "its backend has come back between",
            &[
                (0, &[1], Met { others: &[1], ..ALL }, &[1], &[]),
                (1, &[], ALL, &[], &[]),
                (2, &[1], Met { others: &[1], ..ALL }, &[1], &[]),
            ],
        );
    }

    /// Their sockets were never looked for again.
    #[test]
    fn a_note_whose_socket_was_not_met_stays_and_is_looked_for_again() {
        assert_rounds(
            "one here, two elsewhere, of which one is met later",
            &[
                (0, &[1, 2, 3], Met { ended: &[1], ..PART }, &[1, 2, 3], &[1]),
                (4, &[2, 3], PART, &[], &[]),
                (5, &[2, 3], PART, &[2, 3], &[]),
                (14, &[2, 3], PART, &[], &[]),
                (15, &[2, 3], Met { ended: &[2], ..PART }, &[2, 3], &[2]),
                (34, &[3], PART, &[], &[]),
                (35, &[3], ALL, &[3], &[]),
                (36, &[3], ALL, &[], &[3]),
            ],
        );
        assert_rounds(
            "a search for others takes it along, and does not make it wait longer",
            &[
                (0, &[1], PART, &[1], &[]),
                (1, &[1, 2], Met { others: &[2], ..PART }, &[1, 2], &[]),
                (5, &[1, 2], Met { ended: &[1], ..PART }, &[1], &[1, 2]),
            ],
        );
        assert_rounds(
            "its backend has come back between, and gone again",
            &[(0, &[1], PART, &[1], &[]), (1, &[], PART, &[], &[]), (2, &[1], PART, &[1], &[])],
        );
    }

    /// It counted as closed, and its note went where every namespace was seen.
    #[test]
    fn a_socket_that_cannot_be_ended_is_tried_again_wherever_it_is() {
        assert_rounds(
            "of two the first is refused once",
            &[
                (0, &[1, 2], Met { ended: &[2], refused: &[1], ..ALL }, &[1, 2], &[2]),
                (4, &[1], ALL, &[], &[]),
                (5, &[1], Met { ended: &[1], ..ALL }, &[1], &[1]),
            ],
        );
    }

    #[test]
    fn pauses_grow_to_ten_minutes_and_are_told() {
        let (begun, stale) = (Instant::now(), [note(1)].into());
        let search = Search { found: Found::default(), is_all_seen: false, closed_namespaces: 1 };
        let (mut rounds, mut now, mut pauses) = (Rounds::default(), begun, vec![]);
        assert_eq!((rounds.next(), rounds.waiting()), (None, 0));
        for _ in 0..10 {
            let wanted = rounds.wanted(&stale, now);
            rounds.sort(&wanted, &search, now);
            let next = rounds.next().expect("one waits");
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(rounds.waiting(), 1);
        rounds.wanted(&HashSet::new(), now);
        assert_eq!((rounds.next(), rounds.waiting()), (None, 0));
    }
}
