#!/usr/bin/env bash
# Builds the committed tree twice from nothing and compares what goes into the image: `make reproducible`. The place is the same
# everywhere, for paths of sources are in the binary: whoever has this compiler and this cargo home gets this sum, too.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(git rev-parse HEAD)
room=/tmp/fairlead-reproducible
mkdir "$room" || { echo "reproducible: another one runs; if not, remove $room" >&2; exit 1; }
trap 'rm -rf "$room"' EXIT
# What is built is looked for below the sources.
unset CARGO_TARGET_DIR ARCH
sums=()
for round in 1 2; do
  echo "reproducible: build $round of 2 (minutes each)"
  rm -rf "$room/build"
  mkdir "$room/build"
  git archive "$commit" | tar -x -C "$room/build"
  (cd "$room/build" && FAIRLEAD_COMMIT=${commit:0:12} tools/build.sh)
  objcopy --strip-debug "$room/build/target/release/fairlead" "$room/fairlead"
  sums+=("$(sha256sum <"$room/fairlead" | cut -d ' ' -f 1)")
  mv "$room/fairlead" "$room/fairlead.$round"
done
if [ "${sums[0]}" != "${sums[1]}" ]; then
  echo "reproducible: the builds differ:" >&2
  cmp -l "$room/fairlead.1" "$room/fairlead.2" | head >&2 || true
  exit 1
fi
echo "reproducible: commit ${commit:0:12} gives ${sums[0]} both times ($(rustc --version), cargo home ${CARGO_HOME:-$HOME/.cargo})"
