//! Regular expressions of tenants, whose memory is known once they are compiled.
//!
//! One is its NFA alone, and a thread has one cache for all of them. The regex crate's lazy automata are
//! faster on long texts, but each has caches of its own, for each thread: those of thousands of paths
//! would be gigabytes. What is matched here are paths, names and fields, and most fail at once.

mod beginning;
mod walk;

use std::{cell::RefCell, fmt, ops::Range, sync::Arc};

use regex_automata::{
    Input, PatternID,
    nfa::thompson::{
        self, NFA,
        backtrack::{self, BoundedBacktracker},
        pikevm::{self, PikeVM},
    },
    util::{primitives::NonMaxUsize, syntax},
};

pub(crate) use self::walk::TooCostly;
use self::walk::{Until, Walk};

/// Longest text that is compiled, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Memory of one expression, in bytes: a thousand letters, whatever their case. (PCRE's own limit is 64
/// KiB, of a denser form.)
pub(crate) const EXPRESSION_BYTES_MAX: usize = 128 << 10;
/// Groups of one expression; captures that can be named are nine.
const GROUPS_MAX: usize = 32;
/// The whole match and `$1` to `$9`, by their two ends.
const SLOTS: usize = 20;

/// A compiled expression. Clones share it.
#[derive(Clone)]
pub struct Expression(Arc<Engines>);

/// Two ways to walk through one NFA.
struct Engines {
    /// Remembers each pair of state and place: for short texts.
    backtracker: BoundedBacktracker,
    pikevm: PikeVM,
    /// See [`Expression::said`].
    said: Box<[u8]>,
}

/// Why a text is no expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uncompiled {
    TooLong,
    TooLarge,
    /// Or one with look-around or back references.
    Wrong,
}

/// What groups matched.
#[derive(Debug)]
pub(crate) struct Captures<'t> {
    text: &'t [u8],
    slots: [Option<NonMaxUsize>; SLOTS],
}

/// Of a thread, as large as its largest search needed: an NFA's states by its groups.
#[derive(Default)]
struct Caches {
    backtracker: Option<backtrack::Cache>,
    pikevm: Option<pikevm::Cache>,
    walk: Walk,
}

thread_local! {
    static CACHES: RefCell<Caches> = RefCell::default();
}

impl Expression {
    /// By bytes. Whatever it is, a search's time is in proportion to its size and to the text's length.
    pub(crate) fn compile(text: &str, ignores_case: bool) -> Result<Self, Uncompiled> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Uncompiled::TooLong);
        }
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        let config = thompson::Config::new();
        let nfa = NFA::compiler()
            .syntax(syntax.case_insensitive(ignores_case))
            .configure(config.utf8(false).nfa_size_limit(Some(EXPRESSION_BYTES_MAX)))
            .build(text);
        let nfa = nfa.map_err(|error| match error.size_limit() {
            Some(_) => Uncompiled::TooLarge,
            None => Uncompiled::Wrong,
        })?;
        if nfa.group_info().group_len(PatternID::ZERO) > GROUPS_MAX + 1 {
            return Err(Uncompiled::TooLarge);
        }
        let said = beginning::of(&nfa);
        let backtracker = BoundedBacktracker::new_from_nfa(nfa.clone());
        let pikevm = PikeVM::new_from_nfa(nfa);
        match (backtracker, pikevm) {
            (Ok(backtracker), Ok(pikevm)) => {
                Ok(Self(Arc::new(Engines { backtracker, pikevm, said })))
            }
            _ => Err(Uncompiled::Wrong),
        }
    }

    /// Whether it matches anywhere in a text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.search(&Input::new(text).earliest(true), &mut [])
    }

    /// What its groups match; `None`: it does not match.
    pub(crate) fn captures<'t>(&self, text: &'t [u8]) -> Option<Captures<'t>> {
        let mut slots = [None; SLOTS];
        self.search(&Input::new(text), &mut slots).then_some(Captures { text, slots })
    }

    /// What all texts begin with that it matches, letters of either case being one: in small ones.
    pub(crate) fn said(&self) -> &[u8] {
        &self.0.said
    }

    /// Whether it matches anywhere in a text, in no more than so many steps, of which those that it takes
    /// are taken off. A step is a state of it at a place of the text, and takes some 10 ns.
    pub(crate) fn is_match_within(&self, text: &[u8], steps: &mut u32) -> Result<bool, TooCostly> {
        if !self.may_match(text) {
            return Ok(false);
        }
        self.walk(text, Until::Match, steps)
    }

    /// What its groups match, if that can be found in no more than so many steps, of which those that it takes
    /// are taken off.
    pub(crate) fn captures_within<'t>(
        &self,
        text: &'t [u8],
        steps: &mut u32,
    ) -> Result<Option<Captures<'t>>, TooCostly> {
        if !self.may_match(text) || !self.walk(text, Until::End, steps)? {
            return Ok(None);
        }
        Ok(self.captures(text))
    }

    /// The same in steps that nobody else takes any of: most texts need no walk of their own to see whether
    /// they are enough.
    pub(crate) fn captures_in<'t>(
        &self,
        text: &'t [u8],
        mut steps: u32,
    ) -> Result<Option<Captures<'t>>, TooCostly> {
        if self.steps_at_most(text) <= usize::try_from(steps).unwrap_or(usize::MAX) {
            return Ok(self.captures(text));
        }
        self.captures_within(text, &mut steps)
    }

    /// Whatever searches comes to each state at each place once.
    fn steps_at_most(&self, text: &[u8]) -> usize {
        self.0.pikevm.get_nfa().states().len().saturating_mul(text.len() + 1)
    }

    /// Whether a text begins with what all do that it matches.
    fn may_match(&self, text: &[u8]) -> bool {
        let said = self.said();
        text.get(..said.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(said))
    }

    /// Whether there is anything to capture.
    pub(crate) fn has_groups(&self) -> bool {
        self.0.pikevm.get_nfa().group_info().group_len(PatternID::ZERO) > 1
    }

    fn walk(&self, text: &[u8], until: Until, steps: &mut u32) -> Result<bool, TooCostly> {
        let nfa = self.0.pikevm.get_nfa();
        CACHES.with_borrow_mut(|caches| caches.walk.is_match(nfa, text, until, steps))
    }

    /// Memory it holds, in bytes. It stays the same however it is used.
    pub(crate) fn bytes(&self) -> usize {
        self.0.pikevm.get_nfa().memory_usage() + size_of::<Engines>()
    }

    fn search(&self, input: &Input<'_>, slots: &mut [Option<NonMaxUsize>]) -> bool {
        let Engines { backtracker, pikevm, .. } = &*self.0;
        CACHES.with_borrow_mut(|caches| {
            if input.haystack().len() <= backtracker.max_haystack_len() {
                let cache = caches.backtracker.get_or_insert_with(|| backtracker.create_cache());
                cache.reset(backtracker);
                if let Ok(found) = backtracker.try_search_slots(cache, input, slots) {
                    return found.is_some();
                }
            }
            let cache = caches.pikevm.get_or_insert_with(|| pikevm.create_cache());
            cache.reset(pikevm);
            pikevm.search_slots(cache, input, slots).is_some()
        })
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression of {} bytes", self.bytes())
    }
}

impl<'t> Captures<'t> {
    /// What a group matched; 0: all of it.
    pub(crate) fn get(&self, group: usize) -> Option<&'t [u8]> {
        let end = |slot: usize| self.slots.get(slot).copied().flatten().map(NonMaxUsize::get);
        let range = Range { start: end(group * 2)?, end: end(group * 2 + 1)? };
        self.text.get(range)
    }

    /// Puts what a group matched behind a text.
    pub(crate) fn write(&self, group: usize, out: &mut String) {
        out.push_str(&String::from_utf8_lossy(self.get(group).unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_are_matched_by_bytes_with_case_or_without() {
        for (text, ignores_case, path, groups) in [
            ("^/a(/|$)(.*)", true, "/A/b", Some(&[Some("/A/b"), Some("/"), Some("b")][..])),
            ("^/a(/|$)(.*)", false, "/A/b", None),
            ("^/a(/|$)(.*)", true, "/a", Some(&[Some("/a"), Some(""), Some("")][..])),
            ("(a)|(b)", true, "xb", Some(&[Some("b"), None, Some("b")][..])),
            ("^(?:/a|/b)$", false, "/b", Some(&[Some("/b")][..])),
            ("[0-9]{2,3}$", false, "/12345", Some(&[Some("345")][..])),
            ("", false, "/", Some(&[Some("")][..])),
            ("x*", false, "\u{e4}", Some(&[Some("")][..])),
            ("^/.", false, "/\u{e4}", Some(&[None][..])),
        ] {
            let expression = Expression::compile(text, ignores_case).unwrap();
            assert_eq!(expression.is_match(path.as_bytes()), groups.is_some(), "{text} {path}");
            let captures = expression.captures(path.as_bytes());
            assert_eq!(captures.is_some(), groups.is_some(), "{text} {path}");
            for (i, group) in groups.into_iter().flatten().enumerate() {
                let found = captures.as_ref().and_then(|captures| captures.get(i));
                let found = found.and_then(|bytes| std::str::from_utf8(bytes).ok());
                assert_eq!(found, *group, "{text} {path} {i}");
            }
        }
    }

    #[test]
    fn attack_redos_and_the_largest_expressions_are_refused_or_take_as_long_as_they_are() {
        for (text, expected) in [
            ("(?=x)", Uncompiled::Wrong),
            ("(a)\\1", Uncompiled::Wrong),
            ("(", Uncompiled::Wrong),
            ("(((a{100}){100}){100}){100}", Uncompiled::TooLarge),
            (&"a".repeat(TEXT_BYTES_MAX + 1), Uncompiled::TooLong),
            (&"(a)".repeat(GROUPS_MAX + 1), Uncompiled::TooLarge),
        ] {
            assert_eq!(Expression::compile(text, true).err(), Some(expected), "{text}");
        }
        for text in ["(a+)+$", "(.*)*x", &"a".repeat(TEXT_BYTES_MAX), &"(a)".repeat(GROUPS_MAX)] {
            let expression = Expression::compile(text, true).unwrap();
            assert!(expression.bytes() < 2 * EXPRESSION_BYTES_MAX, "{text}");
            // Longer than the backtracker takes.
            let long = [&b"a".repeat(8 << 10)[..], b"!"].concat();
            assert_eq!(expression.is_match(&long), !text.ends_with(['$', 'x']), "{text}");
        }
    }

    #[test]
    fn attack_a_search_ends_when_its_steps_are_taken() {
        let long = [&b"/"[..], &b"a".repeat(8 << 10)[..]].concat();
        for (text, most) in [
            // As far as it says anything, and as it matches.
            ("^/api(/|$)(.*)", Some(0)),
            ("^/a(/|$)(.*)", Some(20)),
            ("^/a(.*)", Some(20)),
            ("^/.*b$", Some(60_000)),
            ("^/(a|a)*b", Some(150_000)),
            ("^/([a-z]{1,99}a){1,9}x", None),
        ] {
            let expression = Expression::compile(text, true).unwrap();
            let mut steps = 400_000;
            let found = expression.is_match_within(&long, &mut steps);
            let taken = 400_000 - steps;
            match most {
                Some(most) => assert!(found.is_ok() && taken <= most, "{text}: {found:?} {taken}"),
                None => assert!(found == Err(TooCostly), "{text}: {found:?} {taken}"),
            }
            for captured in [
                expression.captures_within(&long, &mut 400_000),
                expression.captures_in(&long, 400_000),
            ] {
                let captured = captured.map(|found| found.is_some());
                assert_eq!(captured.is_err(), most.is_none(), "{text}");
                assert!(captured.is_err() || captured == found, "{text}");
            }
            // The next search is not disturbed by it.
            assert_eq!(expression.is_match_within(b"/", &mut 9_999), Ok(false), "{text}");
        }
    }

    /// Each took as many as it might have, and what came behind was refused.
    #[test]
    fn bug_captures_that_share_their_steps_take_those_they_walk() {
        let cookie = [&b"x".repeat(8_000)[..], b"; tenant=ann"].concat();
        let tenant = Expression::compile("tenant=([^;]+)", false).unwrap();
        let mut steps = u32::MAX;
        assert_eq!(tenant.walk(&cookie, Until::End, &mut steps), Ok(true));
        let walked = u32::MAX - steps;
        assert!(walked < u32::try_from(tenant.steps_at_most(&cookie)).unwrap() / 2, "{walked}");
        let mut shared = 3 * walked;
        for left in [2 * walked, walked, 0] {
            let captures = tenant.captures_within(&cookie, &mut shared).unwrap().unwrap();
            assert_eq!(captures.get(1), Some(&b"ann"[..]));
            assert_eq!(shared, left);
        }
        assert_eq!(tenant.captures_within(&cookie, &mut shared).err(), Some(TooCostly));
        // Nobody shares these.
        assert!(tenant.captures_in(&cookie, walked).unwrap().is_some());
        assert_eq!(tenant.captures_in(&cookie, walked - 1).err(), Some(TooCostly));
        // What cannot match takes none.
        let said = Expression::compile("^tenant=(.*)", false).unwrap();
        assert!(said.captures_within(&cookie, &mut 0).unwrap().is_none());
    }

    proptest! {
        /// The regex crate is what it is compared with.
        #[test]
        fn what_matches_is_what_others_match(
            text in "[ab/.*+?()|^$\\[\\]]{0,12}", path in "/[ab/.]{0,12}"
        ) {
            let other = regex::bytes::RegexBuilder::new(&text).unicode(false).build();
            let expression = Expression::compile(&text, false);
            prop_assert_eq!(other.is_ok(), expression.is_ok(), "{}", text);
            if let (Ok(other), Ok(expression)) = (other, expression) {
                let (path, mut end) = (path.as_bytes(), 0);
                prop_assert_eq!(expression.is_match(path), other.is_match(path));
                let mut steps = u32::MAX;
                let within = expression.is_match_within(path, &mut steps);
                prop_assert_eq!(within, Ok(other.is_match(path)), "{} {:?}", text, path);
                // All of it is no more than each state at each place.
                let (states, mut left) = (expression.0.pikevm.get_nfa().states().len(), u32::MAX);
                let all = expression.walk(path, Until::End, &mut left);
                prop_assert_eq!(all, Ok(other.is_match(path)));
                let taken = usize::try_from(u32::MAX - left).unwrap();
                prop_assert!(u32::MAX - steps <= u32::MAX - left);
                prop_assert!(taken <= 2 * states * (path.len() + 1), "{}: {}", text, taken);
                for captures in [
                    expression.captures_within(path, &mut { u32::MAX }),
                    expression.captures_in(path, u32::MAX),
                    expression.captures_in(path, u32::MAX - left),
                ] {
                    let captures = captures.map(|captures| captures.is_some());
                    prop_assert_eq!(captures, Ok(other.is_match(path)), "{} {:?}", text, path);
                }
                let (ours, theirs) = (expression.captures(path), other.captures(path));
                prop_assert_eq!(ours.is_some(), theirs.is_some());
                if let (Some(ours), Some(theirs)) = (ours, theirs) {
                    while end < 10 {
                        let theirs = theirs.get(end).map(|group| group.as_bytes());
                        prop_assert_eq!(ours.get(end), theirs, "{} {:?} {}", text, path, end);
                        end += 1;
                    }
                }
            }
        }
    }
}
