#!/usr/bin/env bash
# Runs one benchmark: services, dns or ingress. Tables go to the terminal and docs/results, JSON to target/bench.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/release.sh
case "$1" in
services | dns | ingress) ;;
*) echo "usage: tools/bench.sh services|dns|ingress" >&2; exit 2 ;;
esac
[ "$1" != dns ] || cargo build --release --locked -j2 -p fairlead-dns --example floor
exec cargo bench --locked -j2 -p fairlead --bench "$1"
