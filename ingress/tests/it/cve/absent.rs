//! Holes in what is not here: no webhook, no memory that is another's.

use std::{fs, path::Path};

use super::file;

/// IngressNightmare, and CVE-2026-24514: whoever reached the webhook had code run. There is none.
#[test]
fn cve_2025_1974_there_is_no_webhook() {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")];
    let mut files = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("WebhookConfiguration"), "{}", path.display());
        files += 1;
    }
    assert!(files > 20, "{files} files");
}

/// CVE-2026-42055, 2026-42530 and most of nginx's: memory of another's. Nothing here can be.
#[test]
fn cve_2026_42055_no_code_of_the_role_is_unsafe() {
    assert!(file("src/lib.rs").contains("#![forbid(unsafe_code)]"));
}
