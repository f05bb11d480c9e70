#!/usr/bin/env bash
# Everything that can be proved on one machine. Prints what failed and where to look.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "make test: needs root (network namespaces, cgroups, BPF): sudo -E make test" >&2; exit 1; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
started=$SECONDS

echo "test: building (the first time takes minutes)"
cargo test --workspace --locked -j2 --no-run --quiet
echo "test: built in $((SECONDS - started)) s; running"

status=0
# One call for all: another set of packages would unify other features and build every dependency again.
cargo test --workspace --locked -j2 --no-fail-fast 2>&1 | tee "$log" || status=$?

passed=$(awk '/^test result:/ {n += $4} END {print n + 0}' "$log")
failed=$(awk '/^test result:/ {n += $6} END {print n + 0}' "$log")
ignored=$(awk '/^test result:/ {n += $8} END {print n + 0}' "$log")
if [ "$status" != 0 ]; then
  echo
  echo "failed tests (their output is above, under '---- NAME stdout ----'):"
  grep -E '^test .* FAILED$|^error' "$log" | sort -u | sed 's/^/  /' || true
fi
if [ "$ignored" != 0 ]; then
  echo "test: $ignored tests are ignored, and an ignored test proves nothing" >&2
  status=1
fi
echo "test: took $((SECONDS - started)) s"
echo "$passed passed, $failed failed"
exit "$status"
