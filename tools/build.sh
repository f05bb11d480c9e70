#!/usr/bin/env bash
# Builds the release binary and puts it where everybody looks for it: target/release/fairlead.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/release.sh
cargo build --release --locked -j2 --bin fairlead
mkdir -p target/release
# Replaced, not written to: the old one may be running. mv refuses two names of one file.
if [ ! target/release/fairlead -ef "$RELEASE_BIN" ]; then
  ln -f "$RELEASE_BIN" target/release/fairlead.new
  mv -fT target/release/fairlead.new target/release/fairlead
fi
