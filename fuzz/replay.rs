//! Feeds a fuzz target all that its corpus holds: what was once found is tried again by each test
//! run.

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let inputs = corpus(target);
    assert!(!inputs.is_empty(), "{target}: nothing to replay");
    for (path, bytes) in inputs {
        assert!(catch_unwind(|| run(&bytes)).is_ok(), "{}", path.display());
    }
}

/// Every input of a target, and its file.
pub(crate) fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let corpus = above.map(|directory| directory.join("fuzz/corpus")).find(|path| path.is_dir());
    let inputs = fs::read_dir(corpus.unwrap().join(target)).unwrap();
    inputs
        .map(|input| {
            let path = input.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect()
}
