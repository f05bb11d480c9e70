//! Which name is asked for next.
//!
//! Names that nobody answers must not keep others from being asked for: what takes long has places of its
//! own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fairlead_state::Name;
use tokio::time::Instant;

/// What is not answered within this takes long. Most answers come within milliseconds.
const PROMPT_MAX: Duration = Duration::from_millis(500);

/// How many names are asked for at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Names that were answered soon the last time, or were never asked for; they leave these places when
    /// they take long, while there are others.
    pub(super) prompt: usize,
    /// Names that take long, or did the last time.
    pub(super) late: usize,
}

impl Places {
    pub(super) const fn all(self) -> usize {
        self.prompt + self.late
    }
}

/// Of all names that are wanted, when they were asked for and shall be again. What ends and what comes next is
/// found without going through all of them.
#[derive(Debug)]
pub(super) struct Turns {
    places: Places,
    names: BTreeMap<Name, Turn>,
    /// No more than there are places.
    asked_for: BTreeSet<Name>,
    /// Each from when it is to be asked for.
    waiting: BTreeSet<(Instant, Name)>,
    /// Those to be asked for, each since when it waits.
    due: Due,
}

/// By the places they take.
#[derive(Debug, Default)]
struct Due {
    prompt: BTreeSet<(Instant, Name)>,
    late: BTreeSet<(Instant, Name)>,
}

#[derive(Debug)]
struct Turn {
    /// When it was asked for last, or first wanted.
    waits_since: Instant,
    /// `None` while it is asked for.
    due: Option<Instant>,
    /// It took long the last time.
    was_late: bool,
    /// Else it is forgotten, once nobody asks for it.
    is_wanted: bool,
}

impl Turn {
    fn is_late(&self, now: Instant) -> bool {
        self.was_late || self.late_at() <= now
    }

    /// When it takes long, if it is asked for.
    fn late_at(&self) -> Instant {
        self.waits_since + PROMPT_MAX
    }
}

impl Due {
    fn of(&mut self, was_late: bool) -> &mut BTreeSet<(Instant, Name)> {
        if was_late { &mut self.late } else { &mut self.prompt }
    }
}

impl Turns {
    pub(super) fn new(places: Places) -> Self {
        Self {
            places,
            names: BTreeMap::new(),
            asked_for: BTreeSet::new(),
            waiting: BTreeSet::new(),
            due: Due::default(),
        }
    }

    /// What is wanted for the first time is due now. Others are forgotten, once nobody asks for them.
    pub(super) fn want(&mut self, wanted: &BTreeSet<Name>, now: Instant) {
        let Self { names, waiting, due, .. } = self;
        names.retain(|name, turn| {
            turn.is_wanted = wanted.contains(name);
            let Some(at) = turn.due.filter(|_| !turn.is_wanted) else { return true };
            if !waiting.remove(&(at, name.clone())) {
                due.of(turn.was_late).remove(&(turn.waits_since, name.clone()));
            }
            false
        });
        for name in wanted {
            self.names.entry(name.clone()).or_insert_with(|| {
                self.waiting.insert((now, name.clone()));
                Turn { waits_since: now, due: Some(now), was_late: false, is_wanted: true }
            });
        }
    }

    /// Those to ask for now, as many as there are places for, beginning with who waits longest.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Name> {
        while let Some((due, _)) = self.waiting.first()
            && *due <= now
            && let Some((_, name)) = self.waiting.pop_first()
        {
            if let Some(turn) = self.names.get(&name) {
                self.due.of(turn.was_late).insert((turn.waits_since, name));
            }
        }
        let free = self.free(now);
        let mut taken = Vec::new();
        for (was_late, free) in [(false, free.prompt), (true, free.late)] {
            let due = self.due.of(was_late);
            taken.extend(std::iter::from_fn(|| due.pop_first()).take(free));
        }
        taken.sort_unstable();
        for (_, name) in &taken {
            if let Some(turn) = self.names.get_mut(name) {
                turn.waits_since = now;
                turn.due = None;
                self.asked_for.insert(name.clone());
            }
        }
        taken.into_iter().map(|(_, name)| name).collect()
    }

    fn free(&self, now: Instant) -> Places {
        let turns = self.asked_for.iter().filter_map(|name| self.names.get(name));
        let (late, prompt): (Vec<_>, Vec<_>) = turns.partition(|turn| turn.is_late(now));
        // Those for which there is no place among the late ones stay where they are.
        let staying = late.len().saturating_sub(self.places.late);
        Places {
            prompt: self.places.prompt.saturating_sub(prompt.len() + staying),
            late: self.places.late.saturating_sub(late.len()),
        }
    }

    /// It is not asked for any more, and shall be at `due`.
    pub(super) fn put_back(&mut self, name: &Name, now: Instant, due: Instant) {
        let Some(turn) = self.names.get_mut(name) else { return };
        self.asked_for.remove(name);
        if !turn.is_wanted {
            self.names.remove(name);
            return;
        }
        turn.was_late = turn.late_at() <= now;
        turn.due = Some(due);
        self.waiting.insert((due, name.clone()));
    }

    /// When the next one's turn comes that is not due at `now` already, or a place is left because somebody
    /// takes long.
    pub(super) fn next_after(&self, now: Instant) -> Option<Instant> {
        // Those that are due were taken from the front already.
        let due = self.waiting.iter().map(|(due, _)| *due).find(|due| *due > now);
        let turns = self.asked_for.iter().filter_map(|name| self.names.get(name));
        let late = turns.map(Turn::late_at).filter(|late| *late > now).min();
        due.into_iter().chain(late).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{FIRST_LOOKUPS_MAX, PLACES};

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Want(&'static [&'static str]),
        Take(&'static [&'static str]),
        /// Until that millisecond.
        PutBack(&'static str, u64),
        Next(Option<u64>),
    }
    use Step::*;

    fn names(texts: &[&str]) -> BTreeSet<Name> {
        texts.iter().map(|text| Name::from(*text)).collect()
    }

    /// Each at its millisecond.
    fn follow(places: Places, steps: &[(u64, Step)]) {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut turns = Turns::new(places);
        for (i, (now, step)) in steps.iter().enumerate() {
            let now = at(*now);
            match step {
                Want(wanted) => turns.want(&names(wanted), now),
                PutBack(name, due) => turns.put_back(&(*name).into(), now, at(*due)),
                Take(taken) => assert_eq!(turns.take(now), *taken, "step {i}"),
                Next(next) => assert_eq!(turns.next_after(now), next.map(at), "step {i}"),
            }
        }
    }

    #[test]
    fn who_waits_longest_is_asked_for_first_whatever_its_name() {
        let steps = [
            (0, Take(&[])),
            (0, Next(None)),
            (0, Want(&["c", "d"])),
            (1, Want(&["a", "b", "c", "d"])),
            (1, Take(&["c", "d"])),
            (1, Take(&[])),
            // `a` would be taken again and again, before the others ever are.
            (2, PutBack("c", 2)),
            (2, Take(&["a"])),
            (3, PutBack("a", 3)),
            (3, Take(&["b"])),
            (4, PutBack("d", 9000)),
            (4, Take(&["c"])),
            (5, PutBack("c", 14)),
            (5, Take(&["a"])),
            (6, PutBack("b", 15)),
            (6, Next(Some(14))),
            (6, Take(&[])),
            (14, Take(&["c"])),
            (14, PutBack("a", 14)),
            (15, Take(&["b"])),
            (15, Next(Some(514))),
        ];
        follow(Places { prompt: 2, late: 0 }, &steps);
    }

    #[test]
    fn a_name_nobody_wants_is_forgotten_and_never_asked_for_twice_at_the_same_time() {
        let steps = [
            (0, Want(&["a", "b"])),
            (0, Take(&["a", "b"])),
            (1, Want(&["b"])),
            (1, Want(&["a", "b"])),
            (1, Take(&[])),
            (2, Want(&["b"])),
            (2, PutBack("a", 3)),
            (2, Want(&["b"])),
            (3, Take(&[])),
            (3, PutBack("a", 4)),
            (3, Next(Some(500))),
            (4, PutBack("b", 14)),
            (4, Next(Some(14))),
            (14, Take(&["b"])),
        ];
        follow(Places { prompt: 9, late: 9 }, &steps);
    }

    #[test]
    fn names_that_take_long_have_places_of_their_own() {
        let steps = [
            (0, Want(&["d1", "d2", "d3", "d4", "d5", "ok"])),
            (0, Take(&["d1", "d2"])),
            (0, Next(Some(500))),
            (499, Take(&[])),
            (500, Take(&["d3", "d4"])),
            (500, Next(Some(1000))),
            // No more than all places, however long.
            (1000, Take(&[])),
            (1000, Next(None)),
            (1100, PutBack("d1", 2100)),
            (1100, Take(&["d5"])),
            (1600, Take(&[])),
            (1700, PutBack("d2", 2700)),
            (1700, Take(&["ok"])),
            (1710, PutBack("ok", 11_710)),
            // The one that is left is not for those who took long.
            (2100, Take(&[])),
            (2200, Want(&["d1", "d2", "d3", "d4", "d5", "new", "ok"])),
            (2200, Take(&["new"])),
            (2210, PutBack("new", 12_210)),
            (2300, PutBack("d3", 9000)),
            (2300, Take(&[])),
            (2400, PutBack("d4", 9000)),
            (2400, Take(&["d1"])),
            (2700, Take(&[])),
            // Who is answered soon again is as good as the others.
            (2800, PutBack("d1", 3800)),
            (2800, Take(&["d2"])),
            (3800, Take(&["d1"])),
        ];
        follow(Places { prompt: 2, late: 2 }, &steps);
    }

    #[test]
    fn attack_names_that_nobody_answers_let_the_last_one_through_in_time() {
        let start = Instant::now();
        let mut turns = Turns::new(PLACES);
        let dead = (1..PLACES.all()).map(|i| format!("dead-{i}.example").into());
        let last = Name::from("last.example");
        turns.want(&dead.chain([last.clone()]).collect(), start);
        let mut now = start;
        while !turns.take(now).contains(&last) {
            now = turns.next_after(now).unwrap();
        }
        assert!(now - start < FIRST_LOOKUPS_MAX, "{:?}", now - start);
    }
}
