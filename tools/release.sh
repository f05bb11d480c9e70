# The one way release artefacts are built: for `make build`, `make image` and the benchmarks alike, so that they share them.
# Sourced. The binary is static, so that an image needs nothing but it. Static linking must not reach build scripts and
# procedural macros, which are loaded by the compiler; cargo keeps them apart only when a target is named.
# ARCH=amd64|arm64: for such machines, by the cross compiler that `tools/toolchain.sh build` installs.
# shellcheck shell=bash
RELEASE_HOST=$(rustc -vV | sed -n 's/^host: //p')
case ${ARCH:-} in
'') RELEASE_TARGET=$RELEASE_HOST ;;
amd64) RELEASE_TARGET=x86_64-unknown-linux-gnu ;;
arm64) RELEASE_TARGET=aarch64-unknown-linux-gnu ;;
*) echo "ARCH=$ARCH cannot be built for: say ARCH=amd64 or ARCH=arm64, or leave ARCH out for this machine" >&2; exit 2 ;;
esac
RELEASE_BIN=target/$RELEASE_TARGET/release/fairlead
# RUSTFLAGS of the environment would replace the target's flags and give a second set of artefacts.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export CARGO_BUILD_TARGET=$RELEASE_TARGET
setting=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$RELEASE_TARGET")
flags="-C target-feature=+crt-static"
RELEASE_ORDERED=
if [ "$RELEASE_TARGET" = "$RELEASE_HOST" ] && [ "$RELEASE_HOST" = x86_64-unknown-linux-gnu ]; then
  # Functions lie in the binary as they run (tools/order.sh), by names that do not end in a hash of everything.
  RELEASE_ORDERED=yes
  flags+=" -C symbol-mangling-version=v0"
  export "${setting}_LINKER=$(realpath "${BASH_SOURCE[0]%/*}")/ordered-cc"
  # The table of addresses to correct at the start: a tenth of the size.
  flags+=" -C link-arg=-Wl,-z,pack-relative-relocs"
fi
export "${setting}_RUSTFLAGS=$flags"
RELEASE_BINUTILS=
if [ "$RELEASE_TARGET" != "$RELEASE_HOST" ]; then
  RELEASE_BINUTILS=${RELEASE_TARGET%%-*}-linux-gnu-
  export "${setting}_LINKER=${RELEASE_BINUTILS}gcc"
fi
unset setting flags
# The same for everyone who sources this: another value would build the programs, and what holds them, again.
export FAIRLEAD_EBPF=require
# mimalloc prints when it was built (__DATE__, __TIME__ in C): with this every build was at the same second.
# https://reproducible-builds.org/specs/source-date-epoch/
export SOURCE_DATE_EPOCH=1
