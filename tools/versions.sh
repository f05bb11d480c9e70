# What Fairlead is built with. A change here is a change of the product: build and test before committing it.
RUST_VERSION=1.95.0
# Debian's second Rust: it has the sources of core, which the BPF target needs and stable rustup lacks.
EBPF_RUST_VERSION=1.96.0
# bpf-linker reads the bitcode of EBPF_RUST_VERSION's LLVM: same major, not older.
LLVM_MAJOR=22
LLVM_VERSION=22.1.8
BPF_LINKER_VERSION=0.13.0
CARGO_DENY_VERSION=0.20.2
