# What Fairlead is built with. A change here is a change of the product: build and test before committing it.
RUST_VERSION=1.95.0
# Debian's second Rust: it has the sources of core, which the BPF target needs and stable rustup lacks.
EBPF_RUST_VERSION=1.96.0
# bpf-linker reads the bitcode of EBPF_RUST_VERSION's LLVM: same major, not older.
LLVM_MAJOR=22
LLVM_VERSION=22.1.8
BPF_LINKER_VERSION=0.13.0
CARGO_DENY_VERSION=0.20.2
MDBOOK_VERSION=0.5.4
# The test cluster: upstream's programs, as modules (tests/cluster/tools/pin writes them into go.mod and go.sum).
GO_VERSION=1.26
GO_RELEASE=1.26.8 # what is installed where there is none as new
GO_FIRST=1.19     # Debian's, which fetches it
KUBERNETES_VERSION=1.37.2
CONTAINERD_VERSION=2.4.2
ETCD_VERSION=3.7.3
COREDNS_VERSION=1.15.0
HELM_VERSION=4.3.1
# The e2e suite's own version of the runner: a newer one refuses to drive it.
GINKGO_VERSION=2.32.0
# The images' base system.
IMAGES_DEBIAN=bookworm
