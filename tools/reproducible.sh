#!/usr/bin/env bash
# Builds the committed tree twice from nothing and compares what goes into the image: `make reproducible`. The place is the same
# everywhere, for paths of sources are in the binary: whoever has this compiler and this cargo home gets this sum, too.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(git rev-parse HEAD)
room=/tmp/fairlead-reproducible
mkdir "$room" || { echo "reproducible: another one runs; if not, remove $room" >&2; exit 1; }
trap 'rm -rf "$room"' EXIT
# Each crate and the kernel programs by their sum; whoever depends on what differs differs, too.
parts() { # TARGET DIRECTORY
  (cd "$1" && find . -name '*.rlib' -path '*/release/deps/*' -o -path './ebpf/*/release/fairlead') | sort |
    while read -r part; do echo "$part $(sha256sum <"$1/$part" | cut -c1-16)"; done
}

# What is built is looked for below the sources.
unset CARGO_TARGET_DIR ARCH
sums=()
for round in 1 2; do
  echo "reproducible: build $round of 2 (minutes each)"
  rm -rf "$room/build"
  mkdir "$room/build"
  git archive "$commit" | tar -x -C "$room/build"
  (cd "$room/build" && FAIRLEAD_COMMIT=${commit:0:12} tools/build.sh)
  (cd "$room/build" && . tools/release.sh && { [ -z "$RELEASE_ORDERED" ] || tools/order.sh check target/release/fairlead; })
  objcopy --strip-debug "$room/build/target/release/fairlead" "$room/fairlead"
  sums+=("$(sha256sum <"$room/fairlead" | cut -d ' ' -f 1)")
  mv "$room/fairlead" "$room/fairlead.$round"
  parts "$room/build/target" >"$room/parts.$round"
done
if [ "${sums[0]}" != "${sums[1]}" ]; then
  # Twenty bytes are the build id alone: then only what was stripped differs.
  echo "reproducible: the builds differ in $( (cmp -l "$room/fairlead.1" "$room/fairlead.2" || true) | wc -l) bytes, and in:" >&2
  diff "$room/parts.1" "$room/parts.2" | sed -n 's/^> //p' >&2 || true
  exit 1
fi
echo "reproducible: commit ${commit:0:12} gives ${sums[0]} both times ($(rustc --version), cargo home ${CARGO_HOME:-$HOME/.cargo})"
