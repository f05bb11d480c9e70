#!/usr/bin/env bash
# Builds the release binary and puts it where everybody looks for it: target/release/fairlead. With ARCH of another machine it
# stays in that target's directory.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/release.sh
cargo build --release --locked -j2 --bin fairlead
if [ "$RELEASE_TARGET" != "$RELEASE_HOST" ]; then
  echo "build: $RELEASE_BIN, for $ARCH"
  exit
fi
mkdir -p target/release
# Replaced, not written to: the old one may be running. mv refuses two names of one file.
if [ ! target/release/fairlead -ef "$RELEASE_BIN" ]; then
  ln -f "$RELEASE_BIN" target/release/fairlead.new
  mv -fT target/release/fairlead.new target/release/fairlead
fi
# It works with an old list, too.
[ -z "$RELEASE_ORDERED" ] || tools/order.sh check target/release/fairlead || true
