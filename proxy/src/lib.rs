//! Services in the kernel: what the maps must hold, the maps, and the programs that read them.
#![deny(unsafe_code)]

pub mod attach;
pub mod connections;
pub mod delta;
mod error;
pub mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hash;
pub mod health_ports;
pub mod image;
pub mod live;
mod maglev;
pub mod maps;
pub mod namespaces;
mod netfilter;
mod netlink;
pub mod node;
mod node_settings;
mod object;
pub mod others;
pub mod plan;
pub mod port_range;
pub mod run;
pub mod snat_ports;
pub mod stale;
pub mod sync;
#[expect(unsafe_code, reason = "system calls no safe wrapper covers; nowhere else")]
mod sys;
pub mod text;

pub use attach::{
    AttachReport, Devices, Kernel, KernelError, KernelOptions, MapSizes, NodePortAddresses,
};
pub use fairlead_ebpf::abi::{CIDRS_MAX, ServiceBytes, TableSize};
pub use sync::{ProxyStatus, Synchroniser};
