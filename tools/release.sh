# The one way release artefacts are built: for `make build`, `make image` and the benchmarks alike, so that they share them.
# Sourced. The binary is static, so that an image needs nothing but it. Static linking must not reach build scripts and
# procedural macros, which are loaded by the compiler; cargo keeps them apart only when a target is named.
# shellcheck shell=bash
RELEASE_TARGET=$(rustc -vV | sed -n 's/^host: //p')
RELEASE_BIN=target/$RELEASE_TARGET/release/fairlead
# RUSTFLAGS of the environment would replace the target's flags and give a second set of artefacts.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export CARGO_BUILD_TARGET=$RELEASE_TARGET
flags=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$RELEASE_TARGET")_RUSTFLAGS
export "$flags=-C target-feature=+crt-static"
unset flags
# The same for everyone who sources this: another value would build the programs, and what holds them, again.
export FAIRLEAD_EBPF=require
