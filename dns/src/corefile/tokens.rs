//! Words of a Corefile, with their places. Rules of the Caddyfile CoreDNS is read with (caddyfile/lexer.go):
//! words end at white space, `"` at a word's beginning joins and only quotes are escaped, `#` comments out
//! the rest of the line, or within a word the rest of what is without white space.

use std::sync::Arc;

use super::{CorefileError, Environment};

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) file: Arc<str>,
    /// From 1.
    pub(super) line: u32,
    /// Written in quotes: braces in it are no braces.
    pub(super) quoted: bool,
}

impl Token {
    pub(super) fn error(&self, reason: impl Into<String>) -> CorefileError {
        CorefileError { file: self.file.clone(), line: self.line, reason: reason.into() }
    }

    pub(super) fn opens(&self) -> bool {
        !self.quoted && self.text == "{"
    }

    pub(super) fn closes(&self) -> bool {
        !self.quoted && self.text == "}"
    }
}

/// Splits a text into words and puts in environment variables (`{$NAME}`, `{%NAME%}`).
pub(super) fn tokens(
    file: &Arc<str>,
    text: &str,
    environment: Environment<'_>,
) -> Result<Vec<Token>, CorefileError> {
    let mut tokens = vec![];
    let mut line = 1;
    let mut characters = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(first) = characters.next() {
        match first {
            '\n' => line += 1,
            space if space.is_whitespace() => {}
            '#' => while characters.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                let begin = line;
                let mut word = String::new();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => {
                            // Whatever comes next ends no word, another backslash least of all.
                            let escaped = characters.next();
                            if escaped != Some('"') {
                                word.push('\\');
                            }
                            word.extend(escaped);
                            line += u32::from(escaped == Some('\n'));
                        }
                        Some(character) => {
                            line += u32::from(character == '\n');
                            word.push(character);
                        }
                        None => {
                            let reason = "a quotation mark without its end: add a closing \"";
                            let file = file.clone();
                            return Err(CorefileError { file, line: begin, reason: reason.into() });
                        }
                    }
                }
                let text = with_environment(&word, environment);
                tokens.push(Token { text, file: file.clone(), line: begin, quoted: true });
            }
            first => {
                let mut word = String::from(first);
                let mut is_comment = false;
                while let Some(next) = characters.next_if(|c| !c.is_whitespace()) {
                    is_comment |= next == '#';
                    if !is_comment {
                        word.push(next);
                    }
                }
                let text = with_environment(&word, environment);
                tokens.push(Token { text, file: file.clone(), line, quoted: false });
            }
        }
    }
    Ok(tokens)
}

/// Variables that are not set are empty, as in CoreDNS.
fn with_environment(word: &str, environment: Environment<'_>) -> String {
    let mut text = word.to_owned();
    for (open, close) in [("{$", "}"), ("{%", "%}")] {
        let mut from = 0;
        while let Some(start) = text.get(from..).and_then(|t| t.find(open)).map(|at| from + at) {
            let name_at = start + open.len();
            let Some(length) = text.get(name_at..).and_then(|t| t.find(close)) else { break };
            let name = text.get(name_at..name_at + length).unwrap_or_default();
            let value = environment(name).unwrap_or_default();
            text.replace_range(start..name_at + length + close.len(), &value);
            // What a variable holds is not read for variables again.
            from = start + value.len();
        }
    }
    text
}
