#!/usr/bin/env bash
# Installs what building and testing need and a fresh Debian machine lacks; says what it does; safe to run again.
# One clear line when something is missing or has moved, never a linker dump.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/versions.sh

say() { printf 'toolchain: %s\n' "$*"; }
die() { printf 'toolchain: %s\n' "$*" >&2; exit 1; }

installed() { dpkg-query -W -f='${Version}' "$1" 2>/dev/null || true; }
# A security upload replaces a version in place, so the upstream version is pinned and the Debian revision is not.
matches() { [[ $1 == "$2" || $1 == "$2"[.+~-]* ]]; }

# Some packages are servers (nginx, haproxy, caddy) that Debian starts as soon as they are there: port 80 would be theirs. Such a
# script keeps all of them from starting (https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt).
without_servers() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  "$@"
)

apt_updated=
apt_install() {
  [ "$(id -u)" = 0 ] || die "Debian packages are missing: $*. Run 'make toolchain' once as root."
  if [ -z "$apt_updated" ]; then
    say "reading the package lists"
    apt-get update -qq || die "apt-get update failed: check the machine's package sources"
    apt_updated=yes
  fi
  say "installing $*"
  without_servers env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
    die "apt-get could not install: $*"
}

plain_packages() {
  local missing=() package
  for package in "$@"; do [ -n "$(installed "$package")" ] || missing+=("$package"); done
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

pinned_package() { # NAME UPSTREAM-VERSION
  local have candidate
  have=$(installed "$1")
  have=${have#*:}
  if [ -n "$have" ]; then
    matches "$have" "$2" && return
    die "$1 is $have, but Fairlead is built with $2: change tools/versions.sh and check, or install that version"
  fi
  [ -n "$apt_updated" ] || { [ "$(id -u)" = 0 ] && apt-get update -qq && apt_updated=yes; } || true
  candidate=$(apt-cache policy "$1" | awk '/Candidate:/ {print $2}')
  candidate=${candidate#*:}
  [ -n "$candidate" ] && [ "$candidate" != "(none)" ] ||
    die "this machine's package sources have no $1 (wanted $2): add Debian's security archive of bookworm"
  matches "$candidate" "$2" || die "$1 has moved to $candidate (wanted $2): change tools/versions.sh and check"
  apt_install "$1"
}

rust() {
  command -v cargo >/dev/null || die "cargo is missing: install Rust $RUST_VERSION or later with rustup"
  local have
  have=$(rustc --version | awk '{print $2}')
  printf '%s\n%s\n' "$RUST_VERSION" "$have" | sort -V -C || die "rustc is $have, Fairlead needs $RUST_VERSION: run 'rustup update stable'"
  command -v cc >/dev/null || plain_packages gcc libc6-dev
}

nightly_with_source() {
  command -v rustup >/dev/null || return 1
  local root
  root=$(rustup run nightly rustc --print sysroot 2>/dev/null) || return 1
  [ -e "$root/lib/rustlib/src/rust/library/Cargo.lock" ]
}

ebpf_compiler() {
  if nightly_with_source; then
    say "eBPF compiler: rustup's nightly with rust-src"
  else
    pinned_package rustc-web "$EBPF_RUST_VERSION"
    pinned_package cargo-web "$EBPF_RUST_VERSION"
    pinned_package rust-web-src "$EBPF_RUST_VERSION"
  fi
}

bpf_linker() {
  local have
  have=$(bpf-linker --version 2>/dev/null | awk '{print $2}') || true
  [ "$have" = "$BPF_LINKER_VERSION" ] && return
  pinned_package "llvm-$LLVM_MAJOR-dev" "$LLVM_VERSION"
  pinned_package "libpolly-$LLVM_MAJOR-dev" "$LLVM_VERSION"
  plain_packages libzstd-dev zlib1g-dev libffi-dev libxml2-dev
  say "building bpf-linker $BPF_LINKER_VERSION (about a minute)"
  LLVM_PREFIX=/usr/lib/llvm-$LLVM_MAJOR PATH=/usr/lib/llvm-$LLVM_MAJOR/bin:$PATH \
    cargo install --quiet --locked bpf-linker --version "$BPF_LINKER_VERSION" --no-default-features --features "llvm-$LLVM_MAJOR" ||
    die "bpf-linker $BPF_LINKER_VERSION could not be built against LLVM $LLVM_MAJOR"
}

cargo_tool() { # NAME VERSION
  local have
  have=$("$1" --version 2>/dev/null | awk '{print $2}') || true
  [ "${have#v}" = "$2" ] && return
  say "building $1 $2 (a few minutes)"
  cargo install --quiet --locked "$1" --version "$2" || die "$1 $2 could not be built"
}

# Unpacked, not installed: the package would start a server.
prometheus() {
  [ ! -x target/tools/prometheus ] || [ ! -x target/tools/promtool ] || return 0
  say "fetching prometheus"
  [ -n "$apt_updated" ] || { [ "$(id -u)" = 0 ] && apt-get update -qq && apt_updated=yes; } || true
  local room
  room=$(mktemp -d)
  (cd "$room" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .) ||
    die "Debian's prometheus cannot be fetched: check the machine's package sources"
  mkdir -p target/tools
  mv "$room"/usr/bin/prometheus "$room"/usr/bin/promtool target/tools/
  rm -rf "$room"
}

# What building for another machine takes (ARCH): compiler and C library from Debian, Rust's library from rustup.
cross() (
  . tools/release.sh
  [ "$RELEASE_TARGET" != "$RELEASE_HOST" ] || exit 0
  plain_packages "gcc-$(tr _ - <<<"${RELEASE_BINUTILS%-}")" "libc6-dev-$ARCH-cross"
  [ ! -d "$(rustc --print sysroot)/lib/rustlib/$RELEASE_TARGET/lib" ] || exit 0
  say "fetching Rust's library for $ARCH"
  rustup --quiet target add "$RELEASE_TARGET" || die "rustup could not fetch Rust's library: rustup target add $RELEASE_TARGET"
)

go_is_new() {
  local have
  have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return
  printf '%s\n%s\n' "$GO_VERSION" "${have#go}" | sort -V -C
}

# Debian's Go is too old for Kubernetes, but can fetch a newer one: Go's releases are modules, too.
go_compiler() {
  PATH=/usr/local/go/bin:$PATH
  ! go_is_new || return 0
  [ ! -e /usr/local/go ] || die "the Go in /usr/local/go is older than $GO_VERSION, which the test cluster needs: take it away"
  [ "$(id -u)" = 0 ] || die "Go $GO_VERSION is missing. Run 'make test-cluster' once as root."
  plain_packages "golang-$GO_FIRST-go"
  say "fetching Go $GO_RELEASE"
  local room release=golang.org/toolchain@v0.0.1-go$GO_RELEASE.linux-$(dpkg --print-architecture)
  room=$(mktemp -d)
  (cd "$room" && echo "module room" >go.mod &&
    GOMODCACHE=$room/modules GOFLAGS=-modcacherw "/usr/lib/go-$GO_FIRST/bin/go" mod download "$release") ||
    die "Go $GO_RELEASE cannot be fetched: check GOPROXY, or install Go $GO_VERSION or later into /usr/local/go (go.dev/dl)"
  mv "$room/modules/$release" /usr/local/go
  # A module's files are never executable.
  chmod +x /usr/local/go/bin/* /usr/local/go/pkg/tool/*/*
  rm -rf "$room"
  go_is_new || die "Go $GO_RELEASE does not run"
}

case "${1:-build}" in
build) rust; ebpf_compiler; bpf_linker; cross ;;
run) plain_packages iproute2 util-linux procps ;;
test)
  plain_packages iproute2 util-linux procps curl nftables iptables chromium chromium-driver fonts-liberation
  prometheus ;;
fuzz) rust; command -v c++ >/dev/null || plain_packages g++ ;;
docs) rust; cargo_tool mdbook "$MDBOOK_VERSION" ;;
lint) rust; cargo_tool cargo-deny "$CARGO_DENY_VERSION" ;;
bench) plain_packages iproute2 util-linux procps nftables iptables conntrack iperf3 dnsperf nginx-light haproxy caddy \
  wrk nghttp2-client cmake ;;
kube-proxy) go_compiler ;;
peers) plain_packages nginx-light haproxy nodejs gunicorn uvicorn slowhttptest sslscan testssl.sh; go_compiler ;;
emulated) plain_packages qemu-user-static iproute2 util-linux openssl ;;
image) plain_packages python3 ca-certificates binutils ;;
cluster)
  plain_packages runc containernetworking-plugins nftables iptables conntrack iproute2 util-linux socat openssl jq \
    debootstrap gcc libc6-dev procps python3 python3-yaml curl ca-certificates
  go_compiler ;;
*) die "usage: tools/toolchain.sh build|image|run|test|emulated|fuzz|docs|lint|bench|kube-proxy|peers|cluster" ;;
esac
