//! How a plugin's rule fits names: whole, by a part of them, by a regular expression.

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::{CorefileError, tokens::Token};

/// Longest regular expression, as CoreDNS.
const PATTERN_BYTES_MAX: usize = 10_000;
/// Largest compiled regular expression, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A regular expression; equal if written the same.
#[derive(Clone)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_str().fmt(f)
    }
}

impl std::ops::Deref for Pattern {
    type Target = Regex;

    fn deref(&self) -> &Regex {
        &self.0
    }
}

impl Pattern {
    pub(super) fn read(word: &Token) -> Result<Self, CorefileError> {
        if word.text.len() > PATTERN_BYTES_MAX {
            let reason = format!("a pattern of more than {PATTERN_BYTES_MAX} bytes: shorten it");
            return Err(word.error(reason));
        }
        let built = RegexBuilder::new(&word.text).size_limit(COMPILED_BYTES_MAX).build();
        built.map(Self).map_err(|error| {
            let last = error.to_string();
            let last = last.lines().last().unwrap_or_default().trim_start_matches("error: ");
            word.error(format!("{:?} is no regular expression: {last}", word.text))
        })
    }

    /// `replacement` with `{0}`, `{1}`... as they were found; `None` if the text does not fit.
    pub(crate) fn replaced(&self, text: &str, replacement: &str) -> Option<String> {
        let groups = self.0.captures(text)?;
        let mut out = replacement.to_owned();
        for (index, group) in groups.iter().enumerate() {
            let found = group.map_or("", |group| group.as_str());
            out = out.replace(&format!("{{{index}}}"), found);
        }
        Some(out)
    }
}

/// Names a rule is for. Texts are lower case and end in a dot, as CoreDNS makes them: `prefix a`
/// means names that begin with the label `a`.
#[derive(Clone, Debug, PartialEq)]
pub enum NameMatch {
    /// This name.
    Exact(String),
    /// Names that begin so.
    Prefix(String),
    /// Names that end so, within a label too.
    Suffix(String),
    /// Names with this in them.
    Substring(String),
    /// Names this fits somewhere.
    Regex(Pattern),
}

impl NameMatch {
    /// `KIND TEXT`; `None` if `kind` is none of CoreDNS's words.
    pub(super) fn read(kind: &str, text: &Token) -> Result<Option<Self>, CorefileError> {
        let name = || absolute(&text.text);
        Ok(Some(match kind {
            "exact" => Self::Exact(name()),
            "prefix" => Self::Prefix(name()),
            "suffix" => Self::Suffix(name()),
            "substring" => Self::Substring(name()),
            "regex" => Self::Regex(Pattern::read(text)?),
            _ => return Ok(None),
        }))
    }

    /// As [`NameMatch::read`], but a part of a name is only made lower case.
    pub(super) fn read_as_written(kind: &str, text: &Token) -> Result<Option<Self>, CorefileError> {
        let lower = || text.text.to_ascii_lowercase();
        Ok(Some(match kind {
            "prefix" => Self::Prefix(lower()),
            "suffix" => Self::Suffix(lower()),
            "substring" => Self::Substring(lower()),
            kind => return Self::read(kind, text),
        }))
    }

    /// Whether a name (text, lower case, with the final dot) fits.
    pub(crate) fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == text,
            Self::Prefix(text) => name.starts_with(text.as_str()),
            Self::Suffix(text) => name.ends_with(text.as_str()),
            Self::Substring(text) => name.contains(text.as_str()),
            Self::Regex(pattern) => pattern.is_match(name),
        }
    }

    /// A name that fits with the part that does replaced.
    pub(crate) fn replaced(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Self::Exact(text) => (name == text).then(|| to.to_owned()),
            Self::Prefix(text) => {
                name.strip_prefix(text.as_str()).map(|rest| format!("{to}{rest}"))
            }
            Self::Suffix(text) => {
                name.strip_suffix(text.as_str()).map(|rest| format!("{rest}{to}"))
            }
            Self::Substring(text) => {
                name.contains(text.as_str()).then(|| name.replace(text.as_str(), to))
            }
            Self::Regex(pattern) => pattern.replaced(name, to),
        }
    }
}

/// Lower case, with the final dot.
pub(super) fn absolute(text: &str) -> String {
    let dot = if text.ends_with('.') { "" } else { "." };
    format!("{}{dot}", text.to_ascii_lowercase())
}
