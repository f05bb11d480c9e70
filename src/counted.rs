//! Numbers with the word for what they count.

use std::fmt::Display;

/// `1 host`, `2 hosts`; `one` is a word that takes an s.
pub(crate) fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, one: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {one}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural_and_none_is() {
        let cases = [(0u8, "0 hosts"), (1, "1 host"), (2, "2 hosts"), (21, "21 hosts")];
        for (number, expected) in cases {
            assert_eq!(counted(u64::from(number), "host"), expected);
            assert_eq!(counted(usize::from(number), "host"), expected);
        }
    }
}
