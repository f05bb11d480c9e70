//! Tells the binary which commit it is built from.
//!
//! `FAIRLEAD_COMMIT` says so where there is no repository. Otherwise git does, in release builds: a
//! development build that followed every commit would compile binary, tests and benchmarks again
//! for each.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=FAIRLEAD_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = env::var("FAIRLEAD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if is_release {
        // What the linker of releases reads (tools/release.sh): cargo does not know.
        for read in ["tools/ordered-cc", "tools/order.sed", "tools/order.list"] {
            println!("cargo::rerun-if-changed={read}");
        }
    }
    let commit = match given {
        Some(commit) => commit,
        None if is_release => of_repository().unwrap_or_else(|| "unknown commit".to_owned()),
        None => "development build".to_owned(),
    };
    println!("cargo::rustc-env=FAIRLEAD_COMMIT={commit}");
}

fn of_repository() -> Option<String> {
    // A commit is where HEAD points: itself, the branch it names, or the packed list of branches.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let places = ["HEAD", "packed-refs"].into_iter().map(str::to_owned).chain(branch);
    for place in places {
        if let Some(path) = git(&["rev-parse", "--git-path", &place])
            && std::path::Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
