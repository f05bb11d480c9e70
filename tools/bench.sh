#!/usr/bin/env bash
# Runs one benchmark: services, dns, ingress or page. Tables go to the terminal and, with plots, to docs/results, JSON to
# target/bench. `draw` behind its name makes tables and plots anew from that JSON. Another word is a part of the services', of
# DNS's or of Ingress's, which is only printed; of DNS's, and of services' sync and connect, with a number of Services (dns hit 1000), of
# Ingress's with a number of rounds (ingress idle 1).
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/release.sh
case "$1" in
services | dns | ingress | page) ;;
*) echo "usage: tools/bench.sh services|dns|ingress|page [draw | PART [NUMBER]]" >&2; exit 2 ;;
esac
if [ "${2:-}" = draw ]; then
  exec cargo bench --locked -j2 -p fairlead --bench "$1" -- draw
fi
# A browser.
[ "$1" != page ] || tools/toolchain.sh test
if [ "$1" = services ]; then
  # Upstream's program, as the test cluster builds it.
  tools/toolchain.sh kube-proxy
  tests/cluster/build kube-proxy
  export KUBE_PROXY=${BIN:-${CLUSTER_ROOT:-/var/lib/fairlead-cluster}/bin}/kube-proxy
fi
if [ "$1" = dns ]; then
  # Of both packages: of the one alone, every dependency would be built again with other features.
  cargo build --release --locked -j2 -p fairlead -p fairlead-dns --example floor --example hickory
  tools/toolchain.sh kube-proxy
  tests/cluster/build coredns
  export COREDNS=${BIN:-${CLUSTER_ROOT:-/var/lib/fairlead-cluster}/bin}/coredns
fi
if [ "$1" = ingress ]; then
  # Into the same directory: what both are built of is built once.
  cargo build --release --locked -j2 --manifest-path benches/ingress/pingora/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}"
fi
exec cargo bench --locked -j2 -p fairlead --bench "$1" -- "${@:2}"
