#!/usr/bin/env bash
# Ingress against programs of others: Debian's, and h2spec from the Go module proxy, pinned by go.mod and go.sum.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
tools/toolchain.sh peers
PATH=/usr/local/go/bin:$PATH
H2SPEC=$PWD/target/peers/h2spec
mkdir -p target/peers
(cd ingress/tests/peers/h2spec &&
  CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -o "$H2SPEC" github.com/summerwind/h2spec/cmd/h2spec)
export H2SPEC
exec cargo test --locked -j2 -p fairlead-ingress --test peers -- --nocapture --test-threads=1
