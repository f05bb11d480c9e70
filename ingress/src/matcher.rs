//! Texts as nginx's `map` compares them.

use crate::{
    expression::Expression,
    routes::{regex, regex_with_case},
};

/// What a text is compared with.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// It is this one, whatever the case.
    Is(Box<str>),
    /// It fits an expression.
    Matches(Expression),
}

impl TextMatch {
    /// `~EXPRESSION`, `~*EXPRESSION` without case, or the text itself, without case.
    ///
    /// # Errors
    /// It is no expression that is served.
    pub fn parse(text: &str) -> Result<Self, String> {
        let compiled = match (text.strip_prefix("~*"), text.strip_prefix('~')) {
            (Some(pattern), _) => regex(pattern),
            (None, Some(pattern)) => regex_with_case(pattern),
            (None, None) => return Ok(Self::Is(text.into())),
        };
        let wrong = |_| format!("{text:?} is no regular expression that is served");
        compiled.map(Self::Matches).map_err(wrong)
    }

    /// Whether it fits.
    pub fn fits(&self, text: &[u8]) -> bool {
        match self {
            // nginx compares strings of a map without case.
            Self::Is(own) => own.as_bytes().eq_ignore_ascii_case(text),
            Self::Matches(regex) => regex.is_match(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_makes_an_expression() {
        for (written, text, fits) in [
            ("/a", "/a", true),
            ("/a", "/A", true),
            ("/a", "/ab", false),
            ("~^/a", "/ab", true),
            ("~^/a", "/Ab", false),
            ("~*^/a", "/Ab", true),
        ] {
            let matcher = TextMatch::parse(written).unwrap();
            assert_eq!(matcher.fits(text.as_bytes()), fits, "{written} {text}");
        }
        assert!(TextMatch::parse("~(").is_err());
    }
}
