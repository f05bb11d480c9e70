//! Whether an expression matches, in counted steps: a tenant's expressions are compared with paths of
//! others, and their time is bounded by what is done, not by how they look.

use regex_automata::{
    nfa::thompson::{NFA, State},
    util::primitives::StateID,
};

/// Transitions of one state that are looked through in one step.
const TRANSITIONS_A_STEP: usize = 8;

/// More steps were needed than there were left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooCostly;

/// How far a search may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// It is known that something matches.
    Match,
    /// All is seen that any search can see.
    End,
}

/// States that are reached at one place of a text. Of a thread, as large as its largest NFA.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Those that take a byte.
    now: Vec<StateID>,
    next: Vec<StateID>,
    open: Vec<StateID>,
    /// The round in which a state was reached last.
    reached: Vec<u64>,
    round: u64,
}

impl Walk {
    /// Takes a step of `steps` for each state it comes to.
    pub(super) fn is_match(
        &mut self,
        nfa: &NFA,
        text: &[u8],
        until: Until,
        steps: &mut u32,
    ) -> Result<bool, TooCostly> {
        if self.reached.len() < nfa.states().len() {
            self.reached.resize(nfa.states().len(), 0);
        }
        let start = match nfa.is_always_start_anchored() {
            true => nfa.start_anchored(),
            false => nfa.start_unanchored(),
        };
        self.next.clear();
        self.round += 1;
        let mut is_match = self.reach(nfa, text, 0, start, steps)?;
        for (at, byte) in text.iter().enumerate() {
            std::mem::swap(&mut self.now, &mut self.next);
            if self.now.is_empty() || (is_match && until == Until::Match) {
                break;
            }
            self.next.clear();
            self.round += 1;
            for place in 0..self.now.len() {
                let Some(&id) = self.now.get(place) else { break };
                let to = match nfa.state(id) {
                    State::ByteRange { trans } => trans.matches_byte(*byte).then_some(trans.next),
                    State::Sparse(sparse) => {
                        pay(steps, sparse.transitions.len() / TRANSITIONS_A_STEP)?;
                        sparse.matches_byte(*byte)
                    }
                    State::Dense(dense) => dense.matches_byte(*byte),
                    _ => None,
                };
                if let Some(to) = to {
                    is_match |= self.reach(nfa, text, at + 1, to, steps)?;
                }
            }
        }
        Ok(is_match)
    }

    /// Everything that is reached from a state without another byte; whether that is a match.
    fn reach(
        &mut self,
        nfa: &NFA,
        text: &[u8],
        at: usize,
        from: StateID,
        steps: &mut u32,
    ) -> Result<bool, TooCostly> {
        let mut is_match = false;
        self.open.push(from);
        while let Some(id) = self.open.pop() {
            let Some(reached) = self.reached.get_mut(id.as_usize()) else { continue };
            if std::mem::replace(reached, self.round) == self.round {
                continue;
            }
            if let Err(costly) = pay(steps, 1) {
                self.open.clear();
                return Err(costly);
            }
            match nfa.state(id) {
                State::Look { look, next } => {
                    if nfa.look_matcher().matches(*look, text, at) {
                        self.open.push(*next);
                    }
                }
                State::Capture { next, .. } => self.open.push(*next),
                State::Union { alternates } => self.open.extend(&**alternates),
                State::BinaryUnion { alt1, alt2 } => self.open.extend([*alt1, *alt2]),
                State::Match { .. } => is_match = true,
                State::Fail => {}
                State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) => self.next.push(id),
            }
        }
        Ok(is_match)
    }
}

fn pay(steps: &mut u32, cost: usize) -> Result<(), TooCostly> {
    let cost = u32::try_from(cost).map_err(|_| TooCostly)?;
    *steps = steps.checked_sub(cost).ok_or(TooCostly)?;
    Ok(())
}
