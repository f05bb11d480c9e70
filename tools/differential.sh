#!/usr/bin/env bash
# CoreDNS and Fairlead answer the same questions; every difference is a rule of docs/dns-differences.md.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. tests/cluster/lib.sh
tests/cluster/build coredns
COREDNS="$CLUSTER_ROOT/bin/coredns" cargo test --locked --release -p fairlead --test differential -- --nocapture
