//! What all texts that an expression matches begin with. It is asked of the compiled form, as whoever
//! writes one to look like another one knows how brackets are read better than a second reader does.

use regex_automata::{
    nfa::thompson::{NFA, State},
    util::primitives::StateID,
};

/// Longest beginning that is looked for, in bytes: paths of rules are shorter.
const BYTES_MAX: usize = 256;
/// States between two bytes that are looked at; where there are more nothing is said.
const STATES_MAX: usize = 64;

/// The bytes that are the same in all of them, letters of either case being one, as small ones.
pub(super) fn of(nfa: &NFA) -> Box<[u8]> {
    let mut said = Vec::new();
    if !nfa.is_always_start_anchored() {
        return said.into();
    }
    let mut at = vec![nfa.start_anchored()];
    while said.len() < BYTES_MAX
        && let Some((byte, next)) = step(nfa, at)
    {
        said.push(byte);
        at = next;
    }
    said.into()
}

/// The one byte that may come next, and where it leads; `None`: there are several, or nothing need come.
fn step(nfa: &NFA, from: Vec<StateID>) -> Option<(u8, Vec<StateID>)> {
    let (mut open, mut seen, mut next) = (from, Vec::new(), Vec::new());
    let mut only = None;
    let mut take = |start: u8, end: u8, to: StateID| {
        let byte = start.to_ascii_lowercase();
        if !next.contains(&to) {
            next.push(to);
        }
        start == end && *only.get_or_insert(byte) == byte
    };
    while let Some(id) = open.pop() {
        if seen.contains(&id) {
            continue;
        }
        if seen.len() == STATES_MAX {
            return None;
        }
        seen.push(id);
        match nfa.state(id) {
            State::ByteRange { trans } if take(trans.start, trans.end, trans.next) => {}
            State::Sparse(sparse) => {
                if !sparse.transitions.iter().all(|t| take(t.start, t.end, t.next)) {
                    return None;
                }
            }
            // Whether what is looked for is there is not asked: more may match than does.
            State::Look { next, .. } | State::Capture { next, .. } => open.push(*next),
            State::Union { alternates } => open.extend(&**alternates),
            State::BinaryUnion { alt1, alt2 } => open.extend([alt1, alt2]),
            State::Fail => {}
            State::ByteRange { .. } | State::Dense(_) | State::Match { .. } => return None,
        }
    }
    Some((only?, next))
}

#[cfg(test)]
mod tests {
    use super::super::Expression;

    #[test]
    fn what_an_expression_says_of_a_beginning_is_what_all_it_matches_begin_with() {
        for (text, said) in [
            ("^/api", "/api"),
            ("^/api(/|$)(.*)", "/api"),
            ("^/API/v[12]", "/api/v"),
            ("^/ab*", "/a"),
            ("^/ab+", "/ab"),
            ("^/ab{2}c", "/abbc"),
            ("^/v1\\.0/(.*)", "/v1.0/"),
            ("^/(a|ab)c", "/a"),
            ("^(/a|/A)b", "/ab"),
            ("^/(?:%C3%BC)x", "/%c3%bcx"),
            ("^/.*", "/"),
            ("^", ""),
            ("^/a$", "/a"),
            // Not at the beginning alone.
            ("/api", ""),
            ("^/api|x", ""),
            // Each looks as if it said more.
            ("^/long[[](]]|/.*", ""),
            ("^/long[]|/(]|/.*", ""),
            ("^/long(?x)#(\n|/.*", ""),
            ("^(?:/long[[](]]|/.*)", "/"),
            ("^(?:/long|/)", "/"),
            ("^/lo(ng)?", "/lo"),
            ("^/long{0}", "/lon"),
        ] {
            let expression = Expression::compile(text, true);
            let found = expression.as_ref().map_or(&[][..], Expression::said);
            let expected = if expression.is_ok() { said.as_bytes() } else { &[] };
            assert_eq!(found, expected, "{text}");
        }
        let longest = format!("^/{}", "a".repeat(999));
        assert_eq!(Expression::compile(&longest, false).unwrap().said().len(), super::BYTES_MAX);
    }
}
