# Every target installs what it lacks, says so, and is safe to run again. Root on a Debian machine with rustup's cargo is enough.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The kernel programs are part of the product: building without them is an error here, though not in an editor.
export FAIRLEAD_EBPF := require
CARGO_FLAGS := --locked -j2
# What `build`, `image` and `sbom` are for, arm64 or amd64, as words of make; without: this machine. An ARCH of the environment is
# somebody else's: who builds kernels has one.
ifneq ($(origin ARCH),command line)
ARCH :=
endif
export ARCH
BIN := target/release/fairlead

.PHONY: help build image docs reference pictures order reproducible sbom manifests demo test test-differential test-reliability test-upgrade test-arm64 test-peers test-cluster e2e fuzz lint advisories bench bench-services bench-dns bench-ingress bench-page clean toolchain

help: ## this list
	@grep -hE '^[a-z0-9 -]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{gsub(" ", "|", $$1); printf "make %-17s %s\n", $$1, $$2}'

toolchain: ## install compilers and tools that are missing
	@tools/toolchain.sh build

build: toolchain ## target/release/fairlead [ARCH=arm64: for such machines, in that target's directory]
	@tools/build.sh

image: build ## target/image/fairlead.tar, a container image [TAG=its tag instead of the version] [ARCH=arm64: fairlead-arm64.tar]
	@tools/toolchain.sh image
	@TAG=$(TAG) tools/image.sh

docs: ## target/book, the documentation as a book
	@tools/toolchain.sh docs
	mdbook build docs

reference: build ## docs/reference from the flags, the metrics and the chart's values
	$(BIN) man --markdown > docs/reference/flags.md
	$(BIN) man --metrics > docs/reference/metrics.md
	deploy/reference > docs/reference/values.md

pictures: build ## the page's pictures in docs, as a real browser shows it (as root)
	@tools/toolchain.sh test
	FAIRLEAD_PICTURES=$(CURDIR)/docs/pictures cargo test $(CARGO_FLAGS) --test it -- page::a_browser

order: toolchain ## tools/order.list, the order of functions in the binary, by what runs (x86_64, as root)
	@tools/toolchain.sh bench
	@tools/toolchain.sh run
	@tools/order.sh

reproducible: toolchain ## the same commit gives the same bytes: builds it twice and compares
	@tools/reproducible.sh

sbom: toolchain ## target/sbom.json, what the binary is made of (CycloneDX) [ARCH=arm64: sbom-arm64.json]
	@mkdir -p target && tools/sbom.py > target/sbom$(ARCH:%=-%).json

manifests: ## deploy/manifests from the Helm chart
	@deploy/manifests.sh

demo: build ## a little world in network namespaces: watch it work
	@tools/toolchain.sh run
	@$(BIN) demo

test: toolchain ## everything there is to prove on one machine (as root)
	@tools/toolchain.sh test
	@tools/test.sh

test-differential: toolchain ## the same questions to CoreDNS and to Fairlead, by many Corefiles and while objects change [QUESTIONS=n CHANGES=n SEED=n SETUP=name]
	@tools/differential.sh

test-reliability: toolchain ## ends, outages, floods, changed uplinks, 1,000 changes of Ingress and 1,000 of endpoints a second, under 5,000 connections or requests a second (as root)
	@tools/toolchain.sh test
	@. tools/release.sh && cargo test --release --locked -j2 -p fairlead --test reliability -- --nocapture --test-threads=1

test-upgrade: toolchain ## an earlier build to this one and back, under traffic [FROM=commit instead of the last release] (as root)
	@tools/toolchain.sh test
	@FROM='$(FROM)' tools/upgrade.sh

test-arm64: ARCH = arm64
test-arm64: image ## what is in the arm64 image, by an emulator: commands, DNS, Ingress
	@tools/toolchain.sh emulated
	@tools/emulated.sh

test-peers: toolchain ## h2spec, nginx, HAProxy, node, gunicorn, uvicorn, slowhttptest, sslscan and testssl.sh against Ingress
	@tools/peers.sh

test-cluster: toolchain ## Fairlead as the only data plane of a real Kubernetes cluster (as root)
	@tests/cluster/test

e2e: toolchain ## upstream's e2e suite, all of sig-network, Fairlead beside kube-proxy (90 min) [FOCUS=regex] [SUBJECT=fairlead or kube-proxy]; writes docs/results/e2e.md
	@FOCUS='$(FOCUS)' tests/cluster/e2e-all $(SUBJECT)

fuzz: ## fuzz the parsers of bytes from outside, one by one; adds to docs/results/fuzz.md [TARGET=name SECONDS=n each] [KEEP=1: new inputs into the corpus]
	@tools/toolchain.sh fuzz
	@KEEP='$(KEEP)' tools/fuzz.sh '$(TARGET)' '$(SECONDS)'

lint: toolchain ## formatting, clippy, licences
	@tools/toolchain.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(CARGO_FLAGS) -- -D warnings
	cargo clippy -p fairlead --test differential --test reliability --test upgrade $(CARGO_FLAGS) -- -D warnings
	cargo clippy -p fairlead-ebpf --features program --bin fairlead $(CARGO_FLAGS) -- -D warnings
	cargo deny --locked check bans licenses sources

advisories: toolchain ## known vulnerabilities of dependencies (fetches RustSec's database)
	@tools/toolchain.sh lint
	cargo deny --locked check advisories

bench: bench-services bench-dns bench-ingress bench-page ## all benchmarks

bench-services bench-dns bench-ingress bench-page: bench-%: build ## one benchmark: table, target/bench/*.json, docs/results (as root)
	@tools/toolchain.sh bench
	@tools/bench.sh $*

clean: ## remove what was built
	cargo clean
