//! Fenced blocks of the documentation, and the commands in them.

use std::path::{Path, PathBuf};

/// What a block may be: commands, commands with what they print, and what is no command at all.
const KINDS: [&str; 5] = ["sh", "console", "text", "yaml", "rust"];

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    /// The page it stands in, below the repository.
    pub(crate) page: PathBuf,
    /// Of its first fence, from 1.
    pub(crate) line: usize,
    pub(crate) kind: String,
    /// What stands as `<!-- run: NAME -->` in the line before.
    pub(crate) mark: Option<String>,
    pub(crate) text: String,
}

/// A command, and what stands below it, if it is shown.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) place: String,
    /// Without comment.
    pub(crate) words: String,
    pub(crate) mark: Option<String>,
    pub(crate) prints: Option<String>,
}

/// The blocks of a page.
///
/// # Panics
/// A fence without a kind, for then nobody knows whether it holds commands; a fence that stays open.
pub(crate) fn blocks(page: &Path, text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = vec![];
    let (mut open, mut before) = (None::<Block>, "");
    for (line, number) in text.lines().zip(1..) {
        let bare = line.trim_start();
        match (bare.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (Some(kind), None) => {
                let place = format!("{}:{number}", page.display());
                assert!(
                    KINDS.contains(&kind),
                    "{place}: a block is one of {KINDS:?}, not {kind:?}"
                );
                let mark = before.strip_prefix("<!-- run: ").and_then(|m| m.strip_suffix(" -->"));
                open = Some(Block {
                    page: page.to_owned(),
                    line: number,
                    kind: kind.to_owned(),
                    mark: mark.map(str::to_owned),
                    text: String::new(),
                });
            }
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
        before = line;
    }
    assert!(open.is_none(), "{}: a block stays open", page.display());
    found
}

/// The commands of a block: each line with those that continue it, a block with a mark as a whole.
pub(crate) fn commands_in(block: &Block) -> Vec<Command> {
    let place = |line: usize| format!("{}:{}", block.page.display(), block.line + line);
    let command = |line, words: &str, prints| Command {
        place: place(line),
        words: words.to_owned(),
        mark: block.mark.clone(),
        prints,
    };
    match &*block.kind {
        "sh" if block.mark.is_some() => vec![command(0, &block.text, None)],
        "sh" => {
            let (mut found, mut begun) = (vec![], String::new());
            for (line, number) in block.text.lines().zip(1..) {
                begun.push_str(line.trim_start());
                if begun.ends_with('\\') {
                    begun.pop();
                } else {
                    let words = without_comment(&begun);
                    found.extend((!words.is_empty()).then(|| command(number, words, None)));
                    begun.clear();
                }
            }
            found
        }
        "console" => {
            let mut found: Vec<Command> = vec![];
            for (line, number) in block.text.lines().zip(1..) {
                if let Some(words) = line.strip_prefix("$ ") {
                    found.push(command(number, words, Some(String::new())));
                } else if let Some(prints) = found.last_mut().and_then(|last| last.prints.as_mut())
                {
                    prints.push_str(line);
                    prints.push('\n');
                }
            }
            found
        }
        _ => vec![],
    }
}

/// A `#` begins a comment at the beginning and behind a blank.
fn without_comment(line: &str) -> &str {
    let line = if line.starts_with('#') { "" } else { line };
    line.split(" #").next().unwrap_or_default().trim_end()
}

/// Code in running text: `` `CODE` ``.
pub(crate) fn spans(text: &str) -> Vec<String> {
    let mut found = vec![];
    let mut is_fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        if !is_fenced && !is_fence {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    // Paragraphs, rows and items: a span does not reach beyond.
    for part in prose.split("\n\n").flat_map(|part| part.split("\n|")).flat_map(|p| p.split("\n- "))
    {
        let pieces: Vec<&str> = part.split('`').collect();
        // What is not closed is no code.
        let codes = pieces.iter().skip(1).step_by(2).take((pieces.len() - 1) / 2);
        found.extend(codes.map(|code| code.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    found
}

#[test]
fn a_block_is_found_with_its_kind_its_mark_and_its_commands() {
    let text = "a\n\n<!-- run: there -->\n```sh\none \\\n  two\nthree\n```\n\n- b:\n\n  ```sh\n  # no\n  \
                four --x \\\n    5  # why\n  ```\n```console\n$ six\nout\n\nmore\n$ seven\n```\n```text\n$ no\n```\n";
    let found = blocks(Path::new("page.md"), text);
    let kinds: Vec<&str> = found.iter().map(|block| &*block.kind).collect();
    assert_eq!(kinds, ["sh", "sh", "console", "text"]);
    let all: Vec<Command> = found.iter().flat_map(commands_in).collect();
    let words: Vec<&str> = all.iter().map(|command| &*command.words).collect();
    assert_eq!(words, ["one \\\n  two\nthree\n", "four --x 5", "six", "seven"]);
    assert_eq!(all[0].mark.as_deref(), Some("there"));
    assert_eq!(all[1].place, "page.md:15");
    assert_eq!(all[2].prints.as_deref(), Some("out\n\nmore\n"));
    assert_eq!(spans("a `b  c` d\n```sh\n`e`\n```\n| `f` | `g\n|h` |\n"), ["b c", "f"]);
}

#[test]
#[should_panic(expected = "page.md:2: a block is one of")]
fn a_block_without_a_kind_may_hide_a_command_and_is_refused() {
    blocks(Path::new("page.md"), "a\n```\nfairlead nonsense\n```\n");
}
