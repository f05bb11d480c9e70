//! Which name is asked for next.
//!
//! Names that nobody answers must not keep others from being asked for: what takes long has places of its
//! own, and namespaces share both kinds of places.

mod due;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fairlead_state::Name;
use tokio::time::Instant;

use self::due::Due;
use crate::{fair::Shares, routes::Wanted};

/// What is not answered within this takes long. Most answers come within milliseconds.
const PROMPT_MAX: Duration = Duration::from_millis(500);

/// How many names are asked for at once. One namespace's take half of them at most ([`Shares`]).
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
    names: BTreeMap<Name, Turn>,
    /// No more than there are places.
    asked_for: BTreeMap<Name, Asked>,
    /// Each from when it is to be asked for.
    waiting: BTreeSet<(Instant, Name)>,
    prompt: Kind,
    late: Kind,
}

/// Places of one kind, and those to be asked for there.
#[derive(Debug)]
struct Kind {
    shares: Shares,
    due: Due,
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
    namespaces: Arc<[Name]>,
}

/// Which place a name has.
#[derive(Debug)]
struct Asked {
    /// In whose turn it came.
    namespace: Name,
    is_late: bool,
}

impl Turn {
    /// When it takes long, if it is asked for.
    fn late_at(&self) -> Instant {
        self.waits_since + PROMPT_MAX
    }
}

impl Kind {
    fn new(places: usize) -> Self {
        Self { shares: Shares::new(places), due: Due::default() }
    }

    /// The next name to ask for, and in whose turn, if there is a place for it.
    fn take(&mut self) -> Option<(Name, Name)> {
        let (namespace, name) = self.due.next(&self.shares)?;
        self.shares.take(1, &namespace);
        Some((namespace, name))
    }
}

impl Turns {
    pub(super) fn new(places: Places) -> Self {
        Self {
            names: BTreeMap::new(),
            asked_for: BTreeMap::new(),
            waiting: BTreeSet::new(),
            prompt: Kind::new(places.prompt),
            late: Kind::new(places.late),
        }
    }

    fn of(&mut self, is_late: bool) -> &mut Kind {
        if is_late { &mut self.late } else { &mut self.prompt }
    }

    /// What is wanted for the first time, or again, is due now. Others are forgotten, once nobody asks for
    /// them.
    pub(super) fn want(&mut self, wanted: &BTreeMap<Name, Wanted>, now: Instant) {
        let unwanted: Vec<Name> =
            self.names.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in unwanted {
            self.unwant(&name);
        }
        for (name, Wanted { namespaces, is_unknown }) in wanted {
            let Some(turn) = self.names.get(name) else {
                self.waiting.insert((now, name.clone()));
                let turn = Turn {
                    waits_since: now,
                    due: Some(now),
                    was_late: false,
                    is_wanted: true,
                    namespaces: namespaces.clone(),
                };
                self.names.insert(name.clone(), turn);
                continue;
            };
            // A Service that was made anew between two turns has lost what was found.
            let due = turn.due.map(|due| if *is_unknown { due.min(now) } else { due });
            if due == turn.due && turn.namespaces == *namespaces && turn.is_wanted {
                continue;
            }
            self.leave_queue(name);
            let Some(turn) = self.names.get_mut(name) else { continue };
            (turn.due, turn.is_wanted, turn.namespaces) = (due, true, namespaces.clone());
            self.waiting.extend(due.map(|due| (due, name.clone())));
        }
    }

    fn unwant(&mut self, name: &Name) {
        self.leave_queue(name);
        let Some(turn) = self.names.get_mut(name) else { return };
        turn.is_wanted = false;
        if turn.due.is_some() {
            self.names.remove(name);
        }
    }

    /// It is neither waiting nor to be asked for.
    fn leave_queue(&mut self, name: &Name) {
        let Some(turn) = self.names.get(name) else { return };
        let Some(at) = turn.due else { return };
        if !self.waiting.remove(&(at, name.clone())) {
            let kind = if turn.was_late { &mut self.late } else { &mut self.prompt };
            kind.due.remove(&turn.namespaces, turn.waits_since, name);
        }
    }

    /// Those to ask for now, as many as there are places for: by turns of namespaces, and of each beginning
    /// with what waits longest.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Name> {
        while let Some((due, _)) = self.waiting.first()
            && *due <= now
            && let Some((_, name)) = self.waiting.pop_first()
        {
            if let Some(turn) = self.names.get(&name) {
                let kind = if turn.was_late { &mut self.late } else { &mut self.prompt };
                kind.due.insert(&turn.namespaces, turn.waits_since, &name);
            }
        }
        self.make_room(now);
        let mut taken = Vec::new();
        for is_late in [false, true] {
            while let Some((namespace, name)) = self.of(is_late).take() {
                // Always there: what is forgotten is not to be asked for either.
                let Some(turn) = self.names.get_mut(&name) else { break };
                let due = if is_late { &mut self.late.due } else { &mut self.prompt.due };
                due.remove(&turn.namespaces, turn.waits_since, &name);
                taken.push((turn.waits_since, name.clone()));
                (turn.waits_since, turn.due) = (now, None);
                self.asked_for.insert(name, Asked { namespace, is_late });
            }
        }
        taken.sort_unstable();
        taken.into_iter().map(|(_, name)| name).collect()
    }

    /// What takes long goes where such names are. Those for which there is no place stay where they are.
    fn make_room(&mut self, now: Instant) {
        let Self { names, asked_for, prompt, late, .. } = self;
        let turns =
            asked_for.iter_mut().filter_map(|(name, asked)| Some((names.get(name)?, asked)));
        let staying = turns.filter(|(turn, asked)| !asked.is_late && turn.late_at() <= now);
        let mut staying: Vec<_> = staying.collect();
        staying.sort_by_key(|(turn, _)| turn.waits_since);
        for (_, asked) in staying {
            let namespace = &asked.namespace;
            if late.shares.has(1, late.shares.held(namespace)) {
                prompt.shares.give_back(1, namespace);
                late.shares.take(1, namespace);
                asked.is_late = true;
            }
        }
    }

    /// It is not asked for any more, and shall be at `due`.
    pub(super) fn put_back(&mut self, name: &Name, now: Instant, due: Instant) {
        let Some(Asked { namespace, is_late }) = self.asked_for.remove(name) else { return };
        self.of(is_late).shares.give_back(1, &namespace);
        let Some(turn) = self.names.get_mut(name) else { return };
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
        let turns = self.asked_for.keys().filter_map(|name| self.names.get(name));
        let late = turns.map(Turn::late_at).filter(|late| *late > now).min();
        due.into_iter().chain(late).min()
    }
}

#[cfg(test)]
mod tests;
