//! The one place of this crate with unsafe code: system calls that no safe wrapper covers.
//!
//! Every function is safe to call: lengths and pointers come from slices, file descriptors from
//! owned or borrowed ones, and the kernel's answers are checked.

mod bpf;
mod link;
mod mapped;
mod mount;
mod socket;
mod table;

pub use bpf::PacketRun;
pub(crate) use bpf::{pin, pinned, test_run};
pub(crate) use link::{
    AttachType, LinkInfo, LinkTarget, create_link, detach_link, link_info, update_link,
};
pub(crate) use mapped::{Mapped, Word};
pub(crate) use mount::{is_bpf_file_system, mount_bpf_file_system};
pub(crate) use socket::{network_namespace_cookie, watched};
pub(crate) use table::{PerCpuTable, Table};
