//! Documentation is held to what it says: commands print what stands below them, links lead somewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::support::world::FAIRLEAD;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Blocks of a kind: ```` ```KIND ````.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let mut parts = text.split("```");
    let mut found = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        if let Some(rest) = block.strip_prefix(kind).and_then(|rest| rest.strip_prefix('\n')) {
            found.push(rest.to_owned());
        }
    }
    found
}

#[test]
fn the_quick_starts_commands_print_what_stands_below_them() {
    let english = read(&Path::new(ROOT).join("docs/quickstart.md"));
    let chinese = read(&Path::new(ROOT).join("docs/quickstart.zh-CN.md"));
    let shown = blocks(&english, "console");
    assert!(shown.len() >= 3, "{shown:?}");
    assert_eq!(shown, blocks(&chinese, "console"), "both languages show the same");
    let code = |text: &str| {
        let lines = blocks(text, "");
        let lines = lines.iter().flat_map(|block| block.lines());
        lines
            .map(|line| line.split(" #").next().unwrap_or_default().trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(code(&english), code(&chinese), "but for comments");
    for block in shown {
        let (command, expected) = block.split_once('\n').expect("a command and its output");
        let words: Vec<&str> = command.trim_start_matches("$ fairlead ").split(' ').collect();
        let output = Command::new(FAIRLEAD).args(&words).current_dir(ROOT).output();
        let printed = String::from_utf8_lossy(&output.expect("it starts").stdout).into_owned();
        assert_eq!(printed, expected, "{command}");
    }
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "md") {
            found.push(path);
        }
    }
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.is_empty()).collect()
}

#[test]
fn links_lead_to_files_and_every_page_is_in_the_book() {
    let docs = Path::new(ROOT).join("docs");
    let mut all = vec![Path::new(ROOT).join("README.md"), Path::new(ROOT).join("CHANGELOG.md")];
    pages(&docs, &mut all);
    for page in &all {
        let folder = page.parent().expect("a folder");
        for link in links(&read(page)) {
            let path = link.split('#').next().unwrap_or_default();
            let exists = path.is_empty() || folder.join(path).exists();
            assert!(exists, "{}: {link} leads nowhere", page.display());
        }
    }
    let book = read(&docs.join("SUMMARY.md"));
    let listed: Vec<PathBuf> = links(&book).iter().map(|link| docs.join(link)).collect();
    for page in all.iter().filter(|page| page.starts_with(&docs)) {
        let is_listed = listed.contains(page) || page.ends_with("SUMMARY.md");
        assert!(is_listed, "{} is not in docs/SUMMARY.md", page.display());
    }
}
