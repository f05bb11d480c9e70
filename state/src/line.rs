//! Reasons are lines that people read in logs, Events and tables, whatever they repeat of a value.

use std::borrow::Cow;

/// The text with its control characters escaped: no value can break a line or steer a terminal.
pub fn in_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_escape_sequences_are_shown_not_done() {
        assert_eq!(in_one_line("\u{e4} \"b\""), "\u{e4} \"b\"");
        assert_eq!(in_one_line("a\nb\t\u{1b}[2J"), "a\\nb\\t\\u{1b}[2J");
    }
}
