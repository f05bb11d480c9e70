//! What is put in where something is imported.

use std::{fs, path::Path};

use super::super::{Corefile, CorefileError, To};

fn parse(text: &str) -> Result<Corefile, CorefileError> {
    Corefile::parse(Path::new("Corefile"), text, &|_| None)
}

#[test]
fn files_are_imported_by_pattern() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("Corefile", ".:53 {\n  import plugins.conf\n}\nimport *.server\n");
    write("plugins.conf", "errors\nforward . 10.0.0.1\n");
    write("b.server", "b.example:53 {\n  forward . 10.0.0.2\n}\n");
    write("a.server", "a.example:53 {\n  forward . 10.0.0.3\n}\n");
    let corefile = Corefile::read(&dir.path().join("Corefile")).unwrap();
    let zones: Vec<_> = corefile.blocks.iter().map(|b| b.zones[0].zone.as_str()).collect();
    assert_eq!(zones, [".", "a.example", "b.example"]);
    assert_eq!(corefile.files.len(), 4);
    write("a.server", "a.example:53 {\n  forwrd . 10.0.0.3\n}\n");
    let error = Corefile::read(&dir.path().join("Corefile")).unwrap_err();
    assert!(error.file.ends_with("a.server") && error.line == 2, "{error}");
    write("plugins.conf", "import plugins.conf\n");
    let error = Corefile::read(&dir.path().join("Corefile")).unwrap_err();
    assert!(
        error.reason.contains("imports itself") || error.reason.contains("import itself"),
        "{error}"
    );
}

/// They were looked for beside the Corefile.
#[test]
fn what_an_imported_file_imports_is_beside_that_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("Corefile", "import conf.d/*.server\n");
    write("conf.d/a.server", "a.example:53 {\n  import upstreams.conf\n}\n");
    write("conf.d/upstreams.conf", "forward . 10.0.0.1\n");
    write("upstreams.conf", "forward . 10.0.0.2\n");
    let corefile = Corefile::read(&dir.path().join("Corefile")).unwrap();
    let to = &corefile.blocks[0].forwards[0].to;
    assert_eq!(*to, [To::Server("10.0.0.1:53".parse().unwrap())]);
}

#[test]
fn a_snippet_may_import_one_that_is_defined_below_it_and_none_is_defined_twice() {
    let snippets = "(outer) {\n import inner\n}\n(inner) {\n forward . 10.0.0.1\n}\n";
    let corefile = parse(&format!("{snippets}.:53 {{\n import outer\n}}\n")).unwrap();
    assert_eq!(corefile.blocks[0].forwards.len(), 1);
    let twice = parse(&format!("{snippets}(inner) {{\n errors\n}}\n.:53 {{\n errors\n}}\n"));
    let error = twice.unwrap_err();
    assert!(error.reason.contains("second snippet (inner)") && error.line == 7, "{error}");
    let early = parse(".:53 {\n import late\n}\n(late) {\n errors\n}\n").unwrap_err();
    assert!(early.reason.contains("no snippet (late) above"), "as in Caddy: {early}");
    for around in [
        "(a) {\n import a\n}\n.:53 {\n import a\n}\n".to_owned(),
        // Nothing at all, ever so many times.
        (0..8_u8)
            .map(|n| format!("(s{n}) {{\n{}}}\n", format!(" import s{}\n", n + 1).repeat(99)))
            .collect::<String>()
            + "(s8) {\n}\n.:53 {\n import s1\n}\n",
    ] {
        let error = parse(&around).unwrap_err();
        assert!(error.reason.contains("without end"), "{error}");
    }
}

#[test]
fn bug_a_regex_in_parentheses_is_no_snippet_where_plugins_stand() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let line = r"rewrite name regex (.*)\.my\.(com|net) {1}.default.svc.cluster.local";
    write("custom.override", &format!("{line}\n"));
    for (case, text) in [
        ("in a snippet", format!("(aliases) {{\n {line}\n}}\n.:53 {{\n import aliases\n}}\n")),
        ("in an imported file", ".:53 {\n import *.override\n}\n".to_owned()),
        ("without braces", format!(".:53\n{line}\n")),
        ("imported without braces", ".:53\nimport custom.override\n".to_owned()),
        ("written there", format!(".:53 {{\n {line}\n}}\n")),
    ] {
        write("Corefile", &text);
        let corefile = Corefile::read(&dir.path().join("Corefile"));
        let corefile = corefile.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(corefile.blocks[0].rewrites.len(), 1, "{case}");
    }
    let error = parse("(a)\n.:53 {\n errors\n}\n").unwrap_err();
    assert!(error.reason.contains("a snippet needs `{`") && error.line == 1, "{error}");
}
