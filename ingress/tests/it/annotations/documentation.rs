//! docs/annotations.md is the list the parsers go by.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use fairlead_ingress::{ANNOTATIONS, Annotation, Support};

use super::site;
use crate::support::{
    World,
    client::get,
    objects::{IngressExt, backend},
    page_ends_with,
    upstream::Upstream,
};

const PREFIX: &str = "nginx.ingress.kubernetes.io";

fn file_of(row: &Annotation) -> PathBuf {
    let (module, _) = row.test.rsplit_once("::").unwrap();
    let file = format!("tests/it/{}.rs", module.replace("::", "/"));
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn table() -> String {
    let mut table = String::new();
    for support in [Support::Works, Support::Differs, Support::Refused] {
        let count = ANNOTATIONS.iter().filter(|row| row.support == support).count();
        let _ = write!(table, "{} {count}, ", support.as_str());
    }
    let _ = writeln!(table, "of {}.\n", ANNOTATIONS.len());
    table.push_str("| annotation | support | what differs, why not | test |\n|---|---|---|---|\n");
    for row in &*ANNOTATIONS {
        let note = row.note.replace('|', "\\|");
        let support = row.support.as_str();
        let _ = writeln!(table, "| `{}` | {support} | {note} | `{}` |", row.name, row.test);
    }
    table
}

#[test]
fn the_documentation_is_up_to_date() {
    page_ends_with("annotations.md", "annotations", &table());
}

#[test]
fn every_test_that_is_named_is_there() {
    for row in &*ANNOTATIONS {
        let (_, test) = row.test.rsplit_once("::").unwrap();
        let text = fs::read_to_string(file_of(row)).unwrap_or_default();
        assert!(text.contains(&format!("fn {test}(")), "{}: {}", row.name, row.test);
    }
}

/// What is refused is asked for by the list itself.
#[test]
fn a_test_that_is_named_sets_the_annotation() {
    for row in ANNOTATIONS.iter().filter(|row| row.support != Support::Refused) {
        let text = fs::read_to_string(file_of(row)).unwrap();
        let is_set = [format!("\"{}\"", row.name), format!("{}/{}\"", PREFIX, row.name)]
            .iter()
            .any(|name| text.contains(name));
        assert!(is_set, "{} is nowhere in the file of {}", row.name, row.test);
    }
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let refused = || ANNOTATIONS.iter().filter(|row| row.support == Support::Refused);
    objects.extend(refused().map(|row| site(row.name, &[(row.name, row.example)]).object()));
    let world = World::new(objects).await;
    for row in refused() {
        let reasons = world.reasons(row.name);
        assert!(reasons.iter().any(|reason| reason.contains(row.name)), "{}", row.name);
        let answer = get(world.http(), &format!("{}.example", row.name), "/").await;
        // What guards lets nobody in, everything else disturbs nothing.
        let status = if row.note.ends_with("paths answer 503") { 503 } else { 200 };
        assert_eq!(answer.status, status, "{}", row.name);
    }
}
