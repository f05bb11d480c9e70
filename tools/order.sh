#!/usr/bin/env bash
# Makes tools/order.list anew: which functions of the release binary run, in which order. The linker lays them out so
# (tools/ordered-cc), and what runs is a few MiB in one piece instead of pages here and there among all the code.
# `order.sh check BINARY` says whether most of the list is still in a binary.
set -euo pipefail
cd "$(dirname "$0")/.."
LIST=tools/order.list
# Below that a new list is worth ten minutes.
PRESENT_MIN_PERCENT=80

check() { # BINARY
  local listed present
  listed=$(grep -vc '^#' "$LIST" || true)
  present=$(nm --defined-only "$1" | awk '{ print $3 }' | sed -E -f tools/order.sed | sort -u |
    comm -12 - <(grep -v '^#' "$LIST" | sort -u) | wc -l)
  if [ "$listed" = 0 ] || [ $((present * 100)) -lt $((listed * PRESENT_MIN_PERCENT)) ]; then
    echo "order: only $present of the $listed functions of $LIST are in $1, so that it takes more memory than it could: run 'make order'" >&2
    return 1
  fi
}

watched() { # NAME COMMAND...
  echo "order: $1" >&2
  echo "# $1"
  tools/order.py "$RELEASE_BIN" "${@:2}" | sed -E -f tools/order.sed
}

export LC_ALL=C
if [ "${1:-}" = check ]; then
  check "$2"
  exit
fi
. tools/release.sh
[ "$RELEASE_TARGET" = x86_64-unknown-linux-gnu ] || { echo "order: the list is made on x86_64" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "order: needs root (network namespaces, cgroups, BPF)" >&2; exit 1; }
RELEASE_BIN=${CARGO_TARGET_DIR:-target}/${RELEASE_BIN#target/}
cargo build --release --locked -j2 -p fairlead -p fairlead-dns --bin fairlead --example floor
cargo bench --locked -j2 -p fairlead --bench dns --no-run
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
# First what DNS alone needs: a node may have no other role. A name has its first place.
{
  watched "DNS: names from an API server, each kind of question" cargo bench --locked -j2 -p fairlead --bench dns -- work 10000
  watched "all roles: the demonstration" "$RELEASE_BIN" demo
} >"$room/all"
echo "# By 'make order': see docs/architecture.md, \"Functions lie in the binary as they run\"" >"$LIST"
awk '/^#/ { part = $0; next } seen[$0]++ { next } part { print part; part = "" } { print }' "$room/all" >>"$LIST"
echo "order: $LIST has $(grep -vc '^#' "$LIST") functions; build again, for they have their places now"
