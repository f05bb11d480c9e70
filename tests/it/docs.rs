//! Documentation is held to what it says: commands print what stands below them, links lead somewhere, tests it names exist.

mod blocks;
mod commands;
mod named;
mod room;

use std::{
    fs,
    path::{Path, PathBuf},
};

use blocks::{Block, commands_in};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn both_languages_show_the_same_commands_and_what_they_print() {
    for (english, chinese) in
        [("docs/quickstart.md", "docs/quickstart.zh-CN.md"), ("README.md", "README.zh-CN.md")]
    {
        let said = |page: &str| {
            let blocks = blocks::blocks(Path::new(page), &read(&Path::new(ROOT).join(page)));
            let all = blocks.iter().flat_map(|block: &Block| commands_in(block));
            all.map(|command| (command.words, command.prints)).collect::<Vec<_>>()
        };
        assert_eq!(said(english), said(chinese), "{english}, {chinese}");
        assert!(!said(english).is_empty(), "{english}");
    }
}

#[test]
fn both_languages_count_annotations_as_their_page_does() {
    let numbers = |page: &str, is_row: fn(&&str) -> bool| {
        let text = read(&Path::new(ROOT).join(page));
        let row = text.lines().find(is_row).unwrap_or_else(|| panic!("{page}: no count"));
        let words = row.split(|c: char| !c.is_ascii_digit());
        let mut all: Vec<u32> = words.filter_map(|word| word.parse().ok()).collect();
        all.sort_unstable();
        all
    };
    let counted = numbers("docs/annotations.md", |row| row.starts_with("works "));
    for page in ["README.md", "README.zh-CN.md"] {
        assert_eq!(numbers(page, |row| row.contains("(docs/annotations.md)")), counted, "{page}");
    }
}

/// Pages below a folder, but for what was built or fetched.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    files(folder, "md", found);
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            let is_ours = name != "target" && !name.to_string_lossy().starts_with('.');
            if is_ours {
                files(&path, ending, found);
            }
        } else if path.extension().is_some_and(|kind| kind == ending) {
            found.push(path);
        }
    }
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.is_empty()).collect()
}

/// Whether a page has the heading that forges and the book give this anchor.
fn has_heading(page: &Path, anchor: &str) -> bool {
    let text = read(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let mut anchors = headings.map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().replace(' ', "-")
    });
    anchors.any(|heading| heading == anchor)
}

#[test]
fn links_lead_to_files_and_every_page_is_in_the_book() {
    let docs = Path::new(ROOT).join("docs");
    let mut all = vec![];
    pages(Path::new(ROOT), &mut all);
    for page in &all {
        let folder = page.parent().expect("a folder");
        for link in links(&read(page)) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { page.clone() } else { folder.join(path) };
            let is_there = path.exists() && (anchor.is_empty() || has_heading(&path, anchor));
            assert!(is_there, "{}: {link} leads nowhere", page.display());
        }
    }
    let book = read(&docs.join("SUMMARY.md"));
    let listed: Vec<PathBuf> = links(&book).iter().map(|link| docs.join(link)).collect();
    for page in all.iter().filter(|page| page.starts_with(&docs)) {
        let is_listed = listed.contains(page) || page.ends_with("SUMMARY.md");
        assert!(is_listed, "{} is not in docs/SUMMARY.md", page.display());
    }
}

#[test]
fn every_picture_is_shown_by_a_page() {
    let docs = Path::new(ROOT).join("docs");
    let mut all = vec![];
    pages(&docs, &mut all);
    let shown = |page: &PathBuf| {
        let folder = page.parent().expect("a folder").to_owned();
        links(&read(page)).into_iter().map(|link| folder.join(link)).collect::<Vec<_>>()
    };
    let shown: Vec<PathBuf> = all.iter().flat_map(shown).collect();
    for folder in ["pictures", "results"] {
        for entry in fs::read_dir(docs.join(folder)).expect("readable").flatten() {
            let path = entry.path();
            let is_picture = path.extension().is_some_and(|kind| kind == "png" || kind == "svg");
            assert!(!is_picture || shown.contains(&path), "{} is shown nowhere", path.display());
        }
    }
}

/// The differential test lets nothing pass that its page does not say.
#[test]
fn every_difference_from_coredns_that_a_test_allows_is_a_rule_of_its_page() {
    let root = Path::new(ROOT);
    let (allows, page) = (
        read(&root.join("tests/differential/compare/rules.rs")),
        read(&root.join("docs/dns-differences.md")),
    );
    // `("RULE", ...)`, `Some("RULE")`.
    let rules = allows.split("(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let rules: Vec<&str> = rules.collect();
    assert!(rules.len() > 15, "{rules:?}");
    for rule in rules {
        let is_row = page.lines().any(|line| line.starts_with(&format!("| `{rule}` |")));
        assert!(is_row, "docs/dns-differences.md has no rule {rule}");
    }
}
