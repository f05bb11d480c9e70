//! Which name is asked for next.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_state::Name;
use tokio::time::Instant;

/// Of all names that are wanted, when they were asked for and shall be again.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Name, Turn>);

#[derive(Debug)]
struct Turn {
    /// When it was asked for last, or first wanted.
    waits_since: Instant,
    /// `None` while it is asked for.
    due: Option<Instant>,
}

impl Turns {
    /// What is wanted for the first time is due now. Others are forgotten, once nobody asks for them.
    pub(super) fn want(&mut self, wanted: &BTreeSet<Name>, now: Instant) {
        self.0.retain(|name, turn| turn.due.is_none() || wanted.contains(name));
        for name in wanted {
            let first = Turn { waits_since: now, due: Some(now) };
            self.0.entry(name.clone()).or_insert(first);
        }
    }

    /// Those to ask for now, `free` at most, beginning with who waits longest.
    pub(super) fn take(&mut self, free: usize, now: Instant) -> Vec<Name> {
        let due = self.0.iter().filter(|(_, turn)| turn.due.is_some_and(|due| due <= now));
        let mut due: Vec<(Instant, Name)> =
            due.map(|(name, turn)| (turn.waits_since, name.clone())).collect();
        due.sort_unstable();
        due.truncate(free);
        let taken: Vec<Name> = due.into_iter().map(|(_, name)| name).collect();
        for name in &taken {
            self.0.insert(name.clone(), Turn { waits_since: now, due: None });
        }
        taken
    }

    /// It is not asked for any more, and shall be at `due`.
    pub(super) fn put_back(&mut self, name: &Name, due: Instant) {
        if let Some(turn) = self.0.get_mut(name) {
            turn.due = Some(due);
        }
    }

    /// When the next one's turn comes that is not due at `now` already.
    pub(super) fn next_after(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter_map(|turn| turn.due).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(texts: &[&str]) -> BTreeSet<Name> {
        texts.iter().map(|text| Name::from(*text)).collect()
    }

    #[test]
    fn who_waits_longest_is_asked_for_first_whatever_its_name() {
        enum Step {
            Want(&'static [&'static str]),
            Take(usize, &'static [&'static str]),
            PutBack(&'static str, u64),
            Next(Option<u64>),
        }
        use Step::*;
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut turns = Turns::default();
        for (i, (now, step)) in [
            (0, Take(2, &[])),
            (0, Next(None)),
            (0, Want(&["c", "d"])),
            (1, Want(&["a", "b", "c", "d"])),
            (1, Take(2, &["c", "d"])),
            (1, Take(0, &[])),
            (1, Next(None)),
            // `a` would be taken again and again, before the others ever are.
            (2, PutBack("c", 2)),
            (2, Take(1, &["a"])),
            (3, PutBack("a", 3)),
            (3, Take(1, &["b"])),
            (3, Take(9, &["c", "a"])),
            (4, PutBack("b", 14)),
            (4, PutBack("a", 5)),
            (4, Next(Some(5))),
            (4, Take(9, &[])),
            (5, Take(9, &["a"])),
            (5, Next(Some(14))),
            // Nobody wants it, and it is not asked for twice at the same time.
            (6, Want(&["b"])),
            (6, Want(&["a", "b"])),
            (6, Take(9, &[])),
            (7, Want(&["b"])),
            (7, PutBack("a", 8)),
            (7, PutBack("c", 8)),
            (7, PutBack("d", 8)),
            (7, Want(&["b"])),
            (8, Take(9, &[])),
            (8, PutBack("a", 9)),
            (8, Next(Some(14))),
            (14, Take(9, &["b"])),
        ]
        .into_iter()
        .enumerate()
        {
            match step {
                Want(wanted) => turns.want(&names(wanted), at(now)),
                PutBack(name, due) => turns.put_back(&name.into(), at(due)),
                Take(free, taken) => assert_eq!(turns.take(free, at(now)), taken, "step {i}"),
                Next(next) => assert_eq!(turns.next_after(at(now)), next.map(at), "step {i}"),
            }
        }
    }
}
