//! Reasons are lines that people read in logs, Events and tables, whatever they repeat of a value and
//! however many there are.

use std::{borrow::Cow, fmt::Display};

/// The text with its control characters escaped: no value can break a line, steer a terminal or have
/// the rest of the line read in another order.
pub fn in_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    Cow::Owned(line)
}

/// The first of them, `max` at most, and how many more there are: `a, b and 40 more`.
pub fn some_of<I>(all: I, max: usize) -> String
where
    I: IntoIterator<Item: Display, IntoIter: ExactSizeIterator>,
{
    let all = all.into_iter();
    let more = all.len().saturating_sub(max);
    let named: Vec<String> = all.take(max).map(|one| one.to_string()).collect();
    let named = named.join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

/// Controls; line and paragraph separators; Unicode's Bidi_Control (UAX 9 2, CVE-2021-42574).
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_escape_sequences_are_shown_not_done() {
        assert_eq!(in_one_line("\u{e4} \"b\""), "\u{e4} \"b\"");
        assert_eq!(in_one_line("a\nb\t\u{1b}[2J"), "a\\nb\\t\\u{1b}[2J");
    }

    #[test]
    fn a_few_are_told_by_name_and_the_rest_by_number() {
        for (count, told) in [
            (0, ""),
            (1, "1"),
            (3, "1, 2, 3"),
            (4, "1, 2, 3 and 1 more"),
            (10_003, "1, 2, 3 and 10000 more"),
        ] {
            let all: Vec<usize> = (1..=count).collect();
            assert_eq!(some_of(&all, 3), told);
        }
    }

    #[test]
    fn cve_2021_42574_what_turns_the_order_of_a_line_is_shown_not_done() {
        for c in ['\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{200e}', '\u{200f}', '\u{61c}']
        {
            let shown = format!("a{}b", c.escape_unicode());
            assert_eq!(in_one_line(&format!("a{c}b")), shown);
        }
        assert_eq!(in_one_line("a\u{2028}b"), "a\\u{2028}b");
        // Letters that are written from the right are letters.
        assert_eq!(in_one_line("\u{5d0}\u{627}"), "\u{5d0}\u{627}");
    }
}
