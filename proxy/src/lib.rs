//! Services in the kernel: what the maps must hold, the maps, and the programs that read them.
#![deny(unsafe_code)]

pub mod attach;
pub mod delta;
mod hash;
pub mod image;
pub mod maps;
pub mod node;
mod object;
pub mod plan;
pub mod run;
#[expect(unsafe_code, reason = "system calls no safe wrapper covers; nowhere else")]
mod sys;
pub mod sync;
pub mod text;

pub use attach::{AttachReport, Devices, Kernel, KernelError, KernelOptions, MapSizes};
pub use sync::{ProxyStatus, Synchroniser};
