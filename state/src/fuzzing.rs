//! What fuzz targets do with bytes; a test does it with everything that was ever found.

use std::sync::Arc;

use crate::{
    change::Change,
    decode::{Decoded, Decoder},
    model::Kind,
    snapshot::Snapshot,
    source::directory::file,
    store::Store,
};

/// A little cluster for the targets of other crates, of good documents.
pub fn cluster(documents: &[(Kind, &str)]) -> Arc<Snapshot> {
    let mut decoder = Decoder::default();
    let objects = documents.iter().map(|(kind, document)| {
        match decoder.json(*kind, document, &"fuzz".into()).map(|item| item.decoded) {
            Ok(Decoded::Object(object)) => Change::Upsert(object),
            other => unreachable!("{document}: {other:?}"),
        }
    });
    let (mut store, snapshots) = Store::new([]);
    store.apply(objects);
    let newest = snapshots.borrow().clone();
    newest.unwrap_or_default()
}

/// `KIND DOCUMENT`, as the API server sends it: one verdict, whatever it holds, and the same twice.
pub fn objects(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((word, document)) = text.split_once(' ') else { return };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == word) else { return };
    let mut decoder = Decoder::default();
    let Ok(item) = decoder.json(kind, document, &"fuzz".into()) else { return };
    let again = decoder.json(kind, document, &"fuzz".into()).map(|item| item.decoded);
    let named = Decoder::reference(kind, document).map(|(object, _)| object);
    match (item.decoded, again) {
        (Decoded::Object(object), Ok(Decoded::Object(again))) => {
            assert_eq!(object, again);
            assert_eq!(Ok(object.reference()), named);
            let (mut store, snapshots) = Store::new([]);
            assert!(store.apply([Change::Upsert(object)]));
            assert!(!store.apply([Change::Upsert(again)]), "equal to itself");
            assert!(snapshots.borrow().is_some());
        }
        (Decoded::Ignored(object), Ok(Decoded::Ignored(_))) => assert_eq!(Ok(object), named),
        (Decoded::Refused(refusal), Ok(Decoded::Refused(again))) => {
            assert_eq!(refusal, again);
            assert!(!refusal.reason.is_empty() && !refusal.reason.contains(|c: char| c < ' '));
        }
        (first, second) => unreachable!("{first:?}, then {second:?}"),
    }
}

/// A file of manifests, as JSON and as YAML: each document has a verdict and a place in the file, or
/// the file is refused at one of its lines.
pub fn manifests(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines = text.chars().filter(|c| matches!(c, '\n' | '\r')).count() + 1;
    let is_line = |reason: &str| !reason.is_empty() && !reason.contains(|c: char| c < ' ');
    for name in ["objects.json", "objects.yaml"] {
        match file::parse(name, text, &mut Decoder::default()) {
            Ok(content) => {
                for claim in content.claims {
                    let line = claim.place.rsplit_once(':').and_then(|(_, line)| line.parse().ok());
                    assert!(
                        line.is_some_and(|line: usize| (1..=lines).contains(&line)),
                        "{claim:?}"
                    );
                    let reason = claim.verdict.err().map(|refusal| refusal.reason);
                    assert!(reason.as_deref().is_none_or(is_line), "{reason:?}");
                }
            }
            Err(error) => {
                assert!((1..=lines).contains(&error.line), "{error} of {lines} lines");
                assert!(is_line(&error.reason), "{:?}", error.reason);
            }
        }
    }
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{replay::replay, *};

    #[test]
    fn everything_fuzzing_has_found_is_taken() {
        replay("state_objects", objects);
        replay("state_manifests", manifests);
    }
}
