//! What make and its scripts do with what they find on a machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// A command at the root of the sources.
fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(ROOT).env_remove("ARCH");
    // A make that runs the tests would hand its own words down.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(name);
    }
    command.envs(env.iter().copied()).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn make_alone_lists_every_target() {
    let output = run("make", &[], &[]);
    let shown = text(&output.stdout);
    let rows = shown.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let rows: Vec<_> = rows.filter(|row| row.first() == Some(&"make") && row.len() > 2).collect();
    let listed: Vec<&str> = rows.iter().flat_map(|row| row[1].split('|')).collect();
    let makefile = fs::read_to_string(Path::new(ROOT).join("Makefile")).expect("readable");
    let targets = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: "));
    for target in targets.expect("there are some").split(' ') {
        assert!(listed.contains(&target), "make {target}: {shown}");
    }
}

#[test]
fn a_machine_to_build_for_is_named_to_make_and_not_by_an_environment_for_kernels() {
    let of_kernels: &[(&str, &str)] = &[("ARCH", "x86_64")];
    for (args, env, written) in [
        (&["-n", "sbom"][..], of_kernels, "> target/sbom.json"),
        (&["-n", "sbom"], &[], "> target/sbom.json"),
        (&["-n", "sbom", "ARCH=arm64"], of_kernels, "> target/sbom-arm64.json"),
    ] {
        let output = run("make", args, env);
        let (shown, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && shown.contains(written), "{env:?}: {shown}{errors}");
    }
}

#[test]
fn a_machine_that_cannot_be_built_for_is_one_line_with_what_can() {
    let output = run("bash", &["-c", ". tools/release.sh"], &[("ARCH", "mips")]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for part in ["ARCH=mips", "ARCH=amd64", "ARCH=arm64"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn what_fuzzing_did_is_told_of_every_target() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/results/fuzz.md")).expect("readable");
    let targets = fs::read_dir(Path::new(ROOT).join("fuzz/fuzz_targets")).expect("readable");
    let targets: Vec<_> = targets.map(|target| target.expect("readable").path()).collect();
    let told = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(told, targets.len(), "tools/fuzz.py writes the page");
    for target in targets {
        let name = target.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        assert!(page.contains(&format!("\n| `{name}` | ")), "{name}: tools/fuzz.py writes its row");
    }
}

fn script(folder: &Path, name: &str, lines: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("writable");
}

#[test]
fn servers_among_the_packages_that_are_installed_are_not_started() {
    let folder = tempfile::tempdir().expect("a directory");
    let asked = folder.path().join("asked");
    // The machine's own word counts where it has one.
    let own = Command::new(POLICY).args(["nginx", "start"]).output().ok();
    let expected = own.as_ref().map_or(Some(101), |output| output.status.code());
    script(folder.path(), "dpkg-query", "exit 1");
    // Where Debian's would ask whether it may start what it has unpacked.
    let ask = format!(
        "[ \"$1\" != install ] || {{ {POLICY} nginx start; echo $? >{}; }}",
        asked.display()
    );
    script(folder.path(), "apt-get", &ask);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let output = run("tools/toolchain.sh", &["run"], &[("PATH", &path)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answer = fs::read_to_string(asked).expect("packages were installed");
    assert_eq!(answer.trim().parse().ok(), expected);
    assert_eq!(Path::new(POLICY).exists(), own.is_some(), "{POLICY} is as it was");
}

/// A folder with the release's linker and a list of its own.
fn linker(list: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    for name in ["ordered-cc", "order.sed"] {
        fs::copy(Path::new(ROOT).join("tools").join(name), folder.path().join(name))
            .expect("there");
    }
    fs::write(folder.path().join("order.list"), list).expect("writable");
    // In the compiler's place: it says what it was told, and the order.
    script(
        folder.path(),
        "cc",
        "for word; do echo \"$word\"; case $word in *-file=*) cat \"${word#*=}\" ;; esac; done",
    );
    folder
}

/// What the linker's compiler is told; `symbols` are functions of an object.
fn linked(folder: &Path, symbols: &[&str], words: &[&str]) -> Vec<String> {
    let code: String =
        symbols.iter().map(|name| format!(".globl \"{name}\"\n\"{name}\": ret\n")).collect();
    fs::write(folder.join("code.s"), code).expect("writable");
    let object = folder.join("code.o");
    let made = Command::new("as").arg("-o").arg(&object).arg(folder.join("code.s")).status();
    assert!(made.expect("as").success());
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(folder.join("ordered-cc"));
    command.env("PATH", path).arg(object).args(words);
    let output = command.output().expect("bash");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn functions_of_a_release_are_laid_out_by_the_list_whatever_the_compiler_calls_their_crates_now() {
    let list = "# start: 2\n_RNvC3foo5later\nstarted\n# steady: 3\n_RINvNtC3foo3bar3bazNtB_3QuxE\nlocal\ngone\n";
    let folder = linker(list);
    let symbols = [
        "_RINvNtCs9zAbC_3foo3bar3bazNtB4_3QuxE",
        "unlisted",
        "local.llvm.123456789",
        "started",
        "_RNvCsAbC0123456_3foo5later",
    ];
    let told = linked(folder.path(), &symbols, &["-fuse-ld=lld", "-static-pie"]);
    let at = told.iter().position(|word| word.contains("--symbol-ordering-file")).expect("told");
    let expected = [symbols[4], symbols[3], symbols[0], symbols[2]];
    assert_eq!(told[at + 1..at + 5], expected, "{told:?}");
    assert_eq!(told[at + 5..], ["-Wl,--no-warn-symbol-ordering"], "absent names are no error");
}

#[test]
fn what_is_no_release_and_what_another_linker_links_is_linked_as_ever() {
    let folder = linker("started\n");
    for words in [&["-fuse-ld=lld", "-pie"][..], &["-static-pie"], &["-fuse-ld=bfd", "-static-pie"]]
    {
        assert_eq!(linked(folder.path(), &["started"], words), words);
    }
}
