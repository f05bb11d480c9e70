//! Builds the kernel programs with a compiler of their own and hands them to `object.rs`.
//!
//! The BPF target has no prebuilt `core`: it takes a compiler with the sources of the standard
//! library, and bpf-linker built against the same LLVM. Where either is missing the programs are
//! left out with a warning, so that editors and `cargo check` work everywhere;
//! `FAIRLEAD_EBPF=require` makes that an error, `FAIRLEAD_EBPF=skip` leaves them out on purpose.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// LLVM that bpf-linker was built against (tools/versions.sh). Bitcode of another major version
/// does not link, or links to nonsense (bpf-linker issues 321 and 387).
const LLVM_MAJOR: &str = "22";
const CURE: &str = "run `make toolchain`";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    for path in ["ebpf/src", "ebpf/Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=FAIRLEAD_EBPF");
    let object = out.join("fairlead.o");
    let mode = env::var("FAIRLEAD_EBPF").unwrap_or_default();
    let toolchain = match mode.as_str() {
        "skip" => Err("left out: FAIRLEAD_EBPF=skip".to_owned()),
        _ => find_toolchain(),
    };
    let built = match toolchain {
        Ok(toolchain) => build(&toolchain, &root, &out, &object),
        Err(missing) if mode == "require" => Err(missing),
        Err(missing) => {
            println!("cargo:warning=eBPF programs: {missing}");
            fs::write(&object, b"").map_err(|error| format!("{}: {error}", object.display()))
        }
    };
    if let Err(error) = built {
        println!("cargo::error=eBPF programs: {error}");
    }
}

/// A cargo and rustc that can build for BPF, and the directory of bpf-linker.
struct Toolchain {
    cargo: Vec<OsString>,
    /// `None`: the one that belongs to `cargo`.
    rustc: Option<&'static str>,
    linker_dir: PathBuf,
}

fn find_toolchain() -> Result<Toolchain, String> {
    let linker_dir = find_linker().ok_or(format!("bpf-linker is missing: {CURE}"))?;
    if has_sources(&["rustup", "run", "nightly", "rustc"]) {
        let cargo = ["rustup", "run", "nightly", "cargo"].map(OsString::from).to_vec();
        return Ok(Toolchain { cargo, rustc: None, linker_dir });
    }
    // Debian's packages rustc-web, cargo-web and rust-web-src.
    let rustc = "/usr/bin/rustc";
    if !Path::new("/usr/bin/cargo").exists() || !Path::new(rustc).exists() {
        return Err(format!("the packages rustc-web and cargo-web are missing: {CURE}"));
    }
    if !has_sources(&[rustc]) {
        return Err(format!(
            "{rustc} has no library sources (package rust-web-src) or not LLVM {LLVM_MAJOR}: {CURE}"
        ));
    }
    Ok(Toolchain { cargo: vec!["/usr/bin/cargo".into()], rustc: Some(rustc), linker_dir })
}

fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    env::split_paths(&path)
        .chain(home.map(|home| home.join("bin")))
        .find(|dir| dir.join("bpf-linker").is_file())
}

/// Whether this rustc comes with the sources of `core` and an LLVM the linker can read.
fn has_sources(rustc: &[&str]) -> bool {
    let answer = |question: &[&str]| {
        let (program, args) = rustc.split_first()?;
        let mut command = Command::new(program);
        clear(&mut command);
        let Output { status, stdout, .. } = command.args(args).args(question).output().ok()?;
        status.success().then(|| String::from_utf8_lossy(&stdout).into_owned())
    };
    let llvm = answer(&["-vV"]).and_then(|text| {
        let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
        version.split('.').next().map(str::to_owned)
    });
    llvm.as_deref() == Some(LLVM_MAJOR)
        && answer(&["--print", "sysroot"]).is_some_and(|sysroot| {
            Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists()
        })
}

fn build(toolchain: &Toolchain, root: &Path, out: &Path, object: &Path) -> Result<(), String> {
    let var = |name: &str| env::var(name).unwrap_or_default();
    let endian = if var("CARGO_CFG_TARGET_ENDIAN") == "big" { "bpfeb" } else { "bpfel" };
    let target = format!("{endian}-unknown-none");
    // In the directory that cargo marks as its own, so that builds of every profile and target
    // share the work.
    let marked = out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    let target_dir = marked.or(out.ancestors().nth(4)).unwrap_or(out).join("ebpf");
    let (program, args) = toolchain.cargo.split_first().ok_or("no cargo")?;
    let flags = [
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // LLVM 22 crashes where it expands a copy that bpf-linker asks to keep in order.
        "-Clink-arg=--disable-expand-memcpy-in-order",
        &format!("--cfg=bpf_target_arch=\"{}\"", var("CARGO_CFG_TARGET_ARCH")),
    ];
    let mut cargo = Command::new(program);
    clear(&mut cargo);
    cargo
        .args(args)
        .args(["build", "--quiet", "--locked", "--release", "-Zbuild-std=core"])
        .args(["--package", "fairlead-ebpf", "--bin", "fairlead", "--features", "program"])
        .args(["--target", &target, "--target-dir"])
        .arg(&target_dir)
        // Loaders need symbols and BTF, which the linker makes of full debug information.
        .args(["--config", "profile.release.debug=2"])
        .args(["--config", "profile.release.strip=false"])
        .args(["--config", "profile.release.codegen-units=1"])
        .args(["--config", "profile.release.lto=false"])
        .args(["--config", "profile.release.opt-level=3"])
        .args(["--config", "profile.release.panic=\"abort\""])
        .current_dir(root)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if let Some(rustc) = toolchain.rustc {
        cargo.env("RUSTC", rustc);
    }
    let mut path = vec![toolchain.linker_dir.clone()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    cargo.env("PATH", env::join_paths(path).map_err(|error| error.to_string())?);
    let Output { status, stderr, .. } =
        cargo.output().map_err(|error| format!("{} does not run: {error}", program.display()))?;
    if !status.success() {
        return Err(explain(&String::from_utf8_lossy(&stderr)));
    }
    let built = target_dir.join(target).join("release/fairlead");
    fs::copy(&built, object).map(drop).map_err(|error| format!("{}: {error}", built.display()))
}

/// The first error of the compiler or linker in one line; the rest is for those who build the
/// programs by hand (ebpf/README.md).
fn explain(stderr: &str) -> String {
    let mut lines = stderr.lines();
    let first = lines.find(|line| line.starts_with("error")).unwrap_or("no message");
    let place = lines.find_map(|line| line.trim_start().strip_prefix("--> ")).unwrap_or("");
    format!("{first} {place} (`make toolchain` installs the compiler and linker that fit)")
}

/// Removes what this build's cargo and rustup set for their own compiler; where crates come from
/// stays.
fn clear(command: &mut Command) {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_set_by_build = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if is_set_by_build && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(&name);
        }
    }
}
