#!/usr/bin/env bash
# Runs one benchmark: services, dns, ingress or page. Tables go to the terminal and, with plots, to docs/results, JSON to
# target/bench. `draw` behind its name makes tables and plots anew from that JSON. Another word is a part of the services' or of
# DNS's, which is only printed; of DNS's with a number of Services: dns hit 1000.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/release.sh
case "$1" in
services | dns | ingress | page) ;;
*) echo "usage: tools/bench.sh services|dns|ingress|page [draw | PART [SERVICES]]" >&2; exit 2 ;;
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
exec cargo bench --locked -j2 -p fairlead --bench "$1" -- "${@:2}"
