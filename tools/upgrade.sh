#!/usr/bin/env bash
# `make test-upgrade`: builds an earlier Fairlead and goes from it to this tree and back, under traffic. The earlier one is FROM
# (a commit), else the last release (tag v*) before this commit, else the newest commit with another layout of the kernel's maps.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "make test-upgrade: needs root (network namespaces, cgroups, BPF)" >&2; exit 1; }

maps_of() { # COMMIT: names of its maps, each with the version of its layout; the commit may be older than the file
  git show "$1:ebpf/src/abi.rs" 2>/dev/null | grep -oE '"[a-z_]+_v[0-9]+"' | sort
}
has_later() { # NOW COMMIT: a later version of some map, which was given up again before any release
  awk -F_v 'NR == FNR {now[$1] = $2 + 0; next} $1 in now && $2 + 0 > now[$1] {found = 1} END {exit !found}' \
    <(echo "$1") <(maps_of "$2")
}
another_layout() {
  local now commit
  now=$(grep -oE '"[a-z_]+_v[0-9]+"' ebpf/src/abi.rs | sort)
  for commit in $(git log --format=%H -- ebpf/src/abi.rs); do
    [ "$(maps_of "$commit")" = "$now" ] || has_later "$now" "$commit" || { echo "$commit"; return; }
  done
}
from=${FROM:-$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null || another_layout)}
[ -n "$from" ] || { echo "make test-upgrade: there is no release, and every commit has these maps: name one, FROM=commit" >&2; exit 1; }
commit=$(git rev-parse --verify "$from^{commit}")
room=${CARGO_TARGET_DIR:-$PWD/target}/upgrade
earlier=$room/fairlead-${commit:0:12}
if [ ! -x "$earlier" ]; then
  echo "upgrade: building $from ($(git log -1 --format='%h %as %s' "$commit"))"
  rm -rf "$room/source"
  mkdir -p "$room/source"
  git archive "$commit" | tar -x -C "$room/source"
  # In a place of its own: to cargo both trees are the same workspace, and what is older would pass for fresh.
  (cd "$room/source" &&
    CARGO_TARGET_DIR=$room/build FAIRLEAD_EBPF=require FAIRLEAD_COMMIT=${commit:0:12} cargo build --locked -j2 --bin fairlead)
  cp "$room/build/debug/fairlead" "$earlier.new"
  mv "$earlier.new" "$earlier"
  rm -rf "$room/source" "$room/build"
fi
export FAIRLEAD_EARLIER=$earlier
exec cargo test --locked -j2 -p fairlead --test upgrade -- --nocapture --test-threads=1
