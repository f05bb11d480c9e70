#!/usr/bin/env bash
# Makes target/image/fairlead.tar from the release binary, with ARCH=x target/image/fairlead-x.tar. TAG=x names it
# ghcr.io/fairlead/fairlead:x instead of by version.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/release.sh
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# Without git (an unpacked archive) the image does not know its commit, and says so.
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || revision+=-modified
stripped=target/image/fairlead${ARCH:+-$ARCH}
out=$stripped.tar
mkdir -p target/image
# Line tables are for those who build it; names of functions stay, for backtraces.
"${RELEASE_BINUTILS}objcopy" --strip-debug "$RELEASE_BIN" "$stripped"
tools/image.py "$stripped" "$out" --name "ghcr.io/fairlead/fairlead:${TAG:-$version}" \
  --version "$version" --revision "$revision"
