//! Tests that pages name are there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{ROOT, blocks, files, pages, read};

/// Behaviours of kube-proxy in docs/conformance.md, numbered from 1.
const ROWS: usize = 35;

/// All of the source, each file without its ending and with its text.
struct Sources(Vec<(PathBuf, String)>);

impl Sources {
    fn all() -> Self {
        let mut found = vec![];
        files(Path::new(ROOT), "rs", &mut found);
        let with_text = found.into_iter().map(|path| (path.with_extension(""), read(&path)));
        Self(with_text.collect())
    }

    /// Texts that belong to a module: of its file, of those below it, or around it.
    fn within(&self, module: &str) -> impl Iterator<Item = &str> {
        let inline = format!("mod {module} {{");
        let texts = self.0.iter().filter(move |(path, text)| {
            path.iter().any(|part| part == module) || text.contains(&inline)
        });
        texts.map(|(_, text)| text.as_str())
    }

    /// Whether a module has a function of this name, or one that begins so if it ends with `*`.
    fn has(&self, module: &str, test: &str) -> bool {
        let function = match test.strip_suffix('*') {
            Some(beginning) => format!("fn {beginning}"),
            None => format!("fn {test}("),
        };
        self.within(module).any(|text| text.contains(&function))
    }

    /// Whether tests are in a module, or in a file whose path ends so.
    fn has_tests_in(&self, module: &str) -> bool {
        let is_test = |text: &str| text.contains("#[test]") || text.contains("#[tokio::test");
        let file = Path::new(module.trim_end_matches(".rs"));
        self.within(module).any(is_test)
            || self.0.iter().any(|(path, text)| path.ends_with(file) && is_test(text))
            || Path::new(ROOT).join(module).is_dir()
    }
}

/// `MODULE::TEST` in running text, as the tables of what is proved have it.
#[test]
fn tests_that_pages_name_exist() {
    let mut all = vec![];
    pages(Path::new(ROOT), &mut all);
    let sources = Sources::all();
    let mut count = 0;
    for page in &all {
        for span in blocks::spans(&read(page)) {
            let is_path = span.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | ':'));
            // Other paths are of modules and crates: tests are named by sentences.
            let named = span.rsplit_once("::").filter(|(_, test)| is_path && test.contains('_'));
            let Some((path, test)) = named else { continue };
            let module = path.rsplit("::").next().unwrap_or_default();
            assert!(sources.has(module, test), "{}: there is no test {span}", page.display());
            count += 1;
        }
    }
    assert!(count > 100, "{count} tests are named");
}

/// Rows of a page's tables that have a column `Test`, cell by cell, and which cell that is.
fn rows_with_tests(page: &str) -> Vec<(Vec<String>, usize)> {
    let mut found = vec![];
    let mut tests_at = None;
    for line in page.lines() {
        let Some(row) = line.strip_prefix('|') else {
            tests_at = None;
            continue;
        };
        let row = row.replace("\\|", "/");
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        match tests_at {
            None => tests_at = Some(cells.iter().position(|cell| cell == "Test")),
            Some(Some(at)) if !line.starts_with("|-") => found.push((cells, at)),
            Some(_) => {}
        }
    }
    found
}

/// Whether there is a scenario of this name, or one that begins so if it ends with `*`.
fn is_scenario(name: &str) -> bool {
    let folder = Path::new(ROOT).join("tests/fixtures/scenarios");
    let files = fs::read_dir(folder).expect("readable").flatten();
    files.map(|file| file.file_name().to_string_lossy().into_owned()).any(|file| {
        let stem = file.split('.').next().unwrap_or_default();
        match name.strip_suffix('*') {
            Some(beginning) => stem.starts_with(beginning),
            None => stem == name,
        }
    })
}

/// What a cell names that is not there.
fn missing(sources: &Sources, cell: &str) -> Vec<String> {
    let contract = read(&Path::new(ROOT).join("proxy/tests/contract.rs"));
    let mut missing = vec![];
    let mut pieces = cell.split('`').skip(1);
    while let (Some(span), prose) = (pieces.next(), pieces.next().unwrap_or_default()) {
        let is_there = match span.rsplit_once("::") {
            Some((path, "tests" | "*")) => {
                sources.has_tests_in(path.rsplit("::").next().unwrap_or_default())
            }
            Some((path, test)) => sources.has(path.rsplit("::").next().unwrap_or_default(), test),
            None => is_scenario(span) || sources.has_tests_in(span),
        };
        if !is_there {
            missing.push(span.to_owned());
        }
        // Behind it, which of kube-proxy's tables.
        let tables = prose.split([' ', ',', ';', '(']).filter(|_| span == "contract");
        let tables = tables.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
        let unknown = tables.filter(|table| !contract.contains(&format!("\"{table}")));
        missing.extend(unknown.map(|table| format!("contract {table}")));
    }
    missing
}

/// Each of the contract's rows is there, in order, and whatever any row's test is called can be run.
#[test]
fn every_row_of_the_conformance_tables_names_tests_that_exist() {
    let page = read(&Path::new(ROOT).join("docs/conformance.md"));
    let sources = Sources::all();
    let mut numbers = vec![];
    for (cells, at) in rows_with_tests(&page) {
        let (row, tests) = (&cells[0], &cells[at]);
        assert!(!tests.is_empty(), "{row}: no test");
        assert_eq!(missing(&sources, tests), Vec::<String>::new(), "{row}: {tests}");
        if let Ok(number) = row.parse::<usize>() {
            assert!(tests.contains('`'), "row {row} names no test: {tests}");
            numbers.push(number);
        }
    }
    assert_eq!(numbers, (1..=ROWS).collect::<Vec<_>>());
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    let sources = Sources::all();
    for (cell, expected) in [
        ("`named::every_row_of_*`, `contract` NodePorts", &[][..]),
        ("`named::no_row_*`", &["named::no_row_*"]),
        ("`contract` ClusterIPGeneral, NothingSuch", &["contract NothingSuch"]),
        ("scenario `affinity`, `infinity`", &["infinity"]),
        ("`src/nowhere.rs` and `nobody::tests`", &["src/nowhere.rs", "nobody::tests"]),
    ] {
        assert_eq!(missing(&sources, cell), expected, "{cell}");
    }
}
