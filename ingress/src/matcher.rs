//! Texts as nginx's `map` compares them.

use std::sync::Arc;

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
}

/// A list of them: how many texts there are is nothing to a request, expressions are asked one by one.
#[derive(Clone, Debug, Default)]
pub struct TextMatches {
    /// In lower case, in order.
    is: Arc<[Box<str>]>,
    matches: Arc<[Expression]>,
}

impl TextMatches {
    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.is.is_empty() && self.matches.is_empty()
    }

    /// Whether one of them fits.
    pub fn fits(&self, text: &[u8]) -> bool {
        let lower = || text.iter().map(u8::to_ascii_lowercase);
        // nginx compares strings of a map without case.
        self.is.binary_search_by(|own| own.bytes().cmp(lower())).is_ok()
            || self.matches.iter().any(|expression| expression.is_match(text))
    }
}

impl FromIterator<TextMatch> for TextMatches {
    fn from_iter<I: IntoIterator<Item = TextMatch>>(list: I) -> Self {
        let (mut is, mut matches) = (Vec::new(), Vec::new());
        for text in list {
            match text {
                TextMatch::Is(text) => is.push(text.to_ascii_lowercase().into_boxed_str()),
                TextMatch::Matches(expression) => matches.push(expression),
            }
        }
        is.sort_unstable();
        Self { is: is.into(), matches: matches.into() }
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
            let list: TextMatches = ["/0", written, "~^/z", "/zz"]
                .into_iter()
                .map(|text| TextMatch::parse(text).unwrap())
                .collect();
            assert_eq!(list.fits(text.as_bytes()), fits, "{written} {text}");
        }
        assert!(TextMatch::parse("~(").is_err());
    }
}
