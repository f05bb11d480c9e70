//! Server blocks and their lines, with snippets and imports put in.

use std::{
    collections::BTreeMap,
    fs,
    iter::Peekable,
    path::{Path, PathBuf},
    sync::Arc,
    vec::IntoIter,
};

use super::{
    CorefileError, Environment, read_text,
    tokens::{Token, tokens},
};

/// Imports within imports; a file that imports itself ends here.
const IMPORT_DEPTH_MAX: usize = 8;
/// Imports of a whole Corefile, as CoreDNS has them of snippets: eight of eight of eight are many.
const IMPORTS_MAX: usize = 10_000;
/// Braces within braces.
const BRACE_DEPTH_MAX: usize = 8;
/// Words after all imports.
const TOKENS_MAX: usize = 100_000;

/// A line, and the lines in its braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: Token,
    pub(super) args: Vec<Token>,
    pub(super) body: Vec<Directive>,
}

/// A server block before its plugins are understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// `.:53`, `example.org`: never empty.
    pub(super) keys: Vec<Token>,
    pub(super) body: Vec<Directive>,
}

type Words = Peekable<IntoIter<Token>>;

/// Parses a text and what it imports; adds every file read to `files`.
pub(super) fn parse(
    path: &Path,
    text: &str,
    environment: Environment<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<Vec<Block>, CorefileError> {
    let file: Arc<str> = path.display().to_string().into();
    let all = tokens(&file, text, environment)?;
    let mut imports = Imports { environment, files, snippets: BTreeMap::new(), count: 0 };
    let all = imports.expand(all, 0, false)?;
    let mut words = all.into_iter().peekable();
    let mut blocks = vec![];
    while words.peek().is_some() {
        blocks.push(block(&mut words)?);
    }
    if blocks.is_empty() {
        let reason = "no server block: write one, such as `.:53 { ... }`".to_owned();
        return Err(CorefileError { file, line: 0, reason });
    }
    Ok(blocks)
}

struct Imports<'i> {
    environment: Environment<'i>,
    files: &'i mut Vec<PathBuf>,
    /// As they are written: what they import is looked for where they are imported.
    snippets: BTreeMap<String, Vec<Token>>,
    count: usize,
}

impl Imports<'_> {
    /// Takes snippets out, where servers may stand and no plugins, and puts imported words in.
    fn expand(
        &mut self,
        words: Vec<Token>,
        depth: usize,
        is_within: bool,
    ) -> Result<Vec<Token>, CorefileError> {
        let mut words = words.into_iter().peekable();
        let mut out: Vec<Token> = vec![];
        let mut braces = 0_usize;
        while let Some(word) = words.next() {
            let begins_line = out.last().is_none_or(|last| {
                last.line != word.line || last.file != word.file || last.opens()
            });
            // As in Caddy: in the place of a server's keys, not any word in parentheses.
            if braces == 0
                && !is_within
                && begins_line
                && let Some(name) = snippet_name(&word)
            {
                let body = snippet_body(&word, &mut words)?;
                if self.snippets.insert(name.to_owned(), body).is_some() {
                    return Err(
                        word.error(format!("a second snippet ({name}): rename one of them"))
                    );
                }
            } else if begins_line && !word.quoted && word.text == "import" {
                let is_within = is_within || braces > 0;
                let imported = self.import(&word, &mut words, depth, is_within)?;
                out.extend(imported);
            } else {
                braces = if word.opens() {
                    braces + 1
                } else {
                    braces.saturating_sub(usize::from(word.closes()))
                };
                out.push(word);
            }
            if out.len() > TOKENS_MAX {
                let reason = format!("more than {TOKENS_MAX} words: import less");
                return Err(out
                    .last()
                    .map_or_else(|| unreachable_error(&reason), |w| w.error(&reason)));
            }
        }
        Ok(out)
    }

    fn import(
        &mut self,
        import: &Token,
        words: &mut Words,
        depth: usize,
        is_within: bool,
    ) -> Result<Vec<Token>, CorefileError> {
        self.count += 1;
        if depth >= IMPORT_DEPTH_MAX || self.count > IMPORTS_MAX {
            return Err(import.error("imports within imports without end: does it import itself?"));
        }
        let same_line = |word: &Token| word.line == import.line && word.file == import.file;
        let what = words
            .next_if(|word| same_line(word))
            .ok_or_else(|| import.error("import what? Name a snippet or a file"))?;
        if let Some(more) = words.next_if(|word| same_line(word) && !word.closes()) {
            return Err(more.error("import takes one snippet or file, without arguments"));
        }
        if let Some(body) = self.snippets.get(&what.text) {
            return self.expand(body.clone(), depth + 1, is_within);
        }
        let mut out = vec![];
        for path in matching(&what)? {
            let text = read_text(&path).map_err(|error| what.error(error.to_string()))?;
            self.files.push(path.clone());
            let file: Arc<str> = path.display().to_string().into();
            let words = tokens(&file, &text, self.environment)?;
            out.extend(self.expand(words, depth + 1, is_within)?);
        }
        Ok(out)
    }
}

/// What is between the braces.
fn snippet_body(name: &Token, words: &mut Words) -> Result<Vec<Token>, CorefileError> {
    words.next_if(Token::opens).ok_or_else(|| name.error("a snippet needs `{` behind its name"))?;
    let mut open = 1_usize;
    let mut body = vec![];
    for word in words.by_ref() {
        open = if word.opens() { open + 1 } else { open - usize::from(word.closes()) };
        if open == 0 {
            return Ok(body);
        }
        body.push(word);
    }
    Err(name.error("a snippet without its end: add `}`"))
}

pub(super) fn unreachable_error(reason: &str) -> CorefileError {
    CorefileError { file: "Corefile".into(), line: 0, reason: reason.to_owned() }
}

fn snippet_name(word: &Token) -> Option<&str> {
    if word.quoted { None } else { word.text.strip_prefix('(')?.strip_suffix(')') }
}

/// Files a pattern names, seen from the file it is written in, as in Caddy: `*` in the last part stands
/// for anything. None is no error for a pattern, and one for a name.
fn matching(what: &Token) -> Result<Vec<PathBuf>, CorefileError> {
    let folder = Path::new(&*what.file).parent().filter(|folder| *folder != Path::new(""));
    let path = folder.unwrap_or(Path::new(".")).join(&what.text);
    let pattern = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !pattern.contains('*') {
        if path.is_file() {
            return Ok(vec![path]);
        }
        let reason = format!("no snippet ({}) above and no file {}", what.text, path.display());
        return Err(what.error(reason));
    }
    let entries = path.parent().map(fs::read_dir);
    let Some(Ok(entries)) = entries else { return Ok(vec![]) };
    let mut found: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| fits(pattern, name)))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    Ok(found)
}

/// Whether a name fits a pattern of parts and `*`.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.is_empty()
}

/// Keys, then lines in braces; a file that is one block may do without the braces.
fn block(words: &mut Words) -> Result<Block, CorefileError> {
    let mut keys: Vec<Token> = vec![];
    let mut continues = false;
    while let Some(word) = words.peek() {
        if word.closes() {
            return Err(word.error("`}` without its `{`: remove it"));
        }
        let new_line =
            keys.last().is_some_and(|last| last.line != word.line || last.file != word.file);
        if word.opens() || (new_line && !continues) {
            break;
        }
        let Some(word) = words.next() else { break };
        continues = word.text.ends_with(',');
        keys.extend(
            word.text
                .split(',')
                .filter(|key| !key.is_empty())
                .map(|key| Token { text: key.to_owned(), ..word.clone() }),
        );
    }
    let Some(last) = keys.last().cloned() else {
        let at = words.next();
        let reason = "a server block without a zone: write one in front, such as `.:53 {`";
        return Err(at.map_or_else(|| unreachable_error(reason), |word| word.error(reason)));
    };
    if let Some(open) = words.next_if(Token::opens) {
        return Ok(Block { keys, body: body(words, &open, 1)? });
    }
    let mut lines = vec![];
    while words.peek().is_some() {
        if let Some(stray) = words.next_if(|word| word.opens() || word.closes()) {
            return Err(stray.error("a brace where a plugin's name should be"));
        }
        lines.push(directive(words, 1)?);
    }
    if lines.is_empty() {
        return Err(last.error("a server block without content: add `{ ... }`"));
    }
    Ok(Block { keys, body: lines })
}

/// Lines up to the closing brace.
fn body(words: &mut Words, open: &Token, depth: usize) -> Result<Vec<Directive>, CorefileError> {
    if depth > BRACE_DEPTH_MAX {
        return Err(open.error(format!("more than {BRACE_DEPTH_MAX} braces within each other")));
    }
    let mut lines = vec![];
    loop {
        match words.peek() {
            None => return Err(open.error("`{` without its `}`: close it")),
            Some(word) if word.closes() => {
                words.next();
                return Ok(lines);
            }
            Some(word) if word.opens() => {
                return Err(word.error("`{` belongs at the end of the line it continues"));
            }
            Some(_) => lines.push(directive(words, depth)?),
        }
    }
}

fn directive(words: &mut Words, depth: usize) -> Result<Directive, CorefileError> {
    let Some(name) = words.next() else { return Err(unreachable_error("a line is missing")) };
    let mut args: Vec<Token> = vec![];
    let same_line = |word: &Token| word.line == name.line && word.file == name.file;
    while let Some(word) = words.next_if(|word| same_line(word) && !word.opens() && !word.closes())
    {
        args.push(word);
    }
    let body = match words.next_if(|word| same_line(word) && word.opens()) {
        Some(open) => body(words, &open, depth + 1)?,
        None => vec![],
    };
    Ok(Directive { name, args, body })
}

#[cfg(test)]
mod tests;
