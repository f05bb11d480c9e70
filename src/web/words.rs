//! Numbers and marks as the page writes them.

use maud::{Markup, html};

use crate::table::Tone;

/// `12 345`: thousands apart by a narrow space.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `3.5/s`; a dot as long as it is not known.
pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "·".to_owned(),
        Some(0.0) => "0/s".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}/s"),
        Some(rate) => format!("{rate:.0}/s"),
    }
}

/// The class of a tone.
pub(super) fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Good => "good",
        Tone::Attention => "attention",
        Tone::Bad => "bad",
        Tone::Dim => "dim",
    }
}

/// A word in a coloured pill.
pub(super) fn pill(text: &str, tone: Tone) -> Markup {
    html! { span.pill.(class(tone)) { (text) } }
}

/// The head of a table; `#` before a word: its column is one of numbers.
pub(super) fn head(words: &[&str]) -> Markup {
    html! {
        thead { tr {
            @for word in words {
                @if let Some(word) = word.strip_prefix('#') { th.number { (word) } }
                @else { th { (word) } }
            }
        } }
    }
}

/// How many of how many are ready.
pub(super) fn ready(ready: usize, all: usize) -> Markup {
    let tone = match ready {
        0 => Tone::Bad,
        ready if ready < all => Tone::Attention,
        _ => Tone::Good,
    };
    pill(&format!("{ready}/{all}"), tone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        for (given, expected) in
            [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567"), (12_345, "12 345")]
        {
            assert_eq!(number(given).replace('\u{202f}', " "), expected);
        }
        for (given, expected) in [
            (None, "·"),
            (Some(0.0), "0/s"),
            (Some(0.25), "0.2/s"),
            (Some(9.94), "9.9/s"),
            (Some(1234.6), "1235/s"),
        ] {
            assert_eq!(rate(given), expected);
        }
    }
}
