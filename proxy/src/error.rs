//! What can go wrong between the agent and the kernel, and its cure.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError, sys::SyscallError};

/// Why Service load-balancing is not in the kernel. Each message names the cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The binary was built without the programs.
    #[error(
        "this binary has no eBPF programs: build it with `make build`, which installs their \
         compiler"
    )]
    NoObject,
    /// The object lacks a program or map: binary and object are of different builds.
    #[error("the eBPF object has no {name}: build the binary anew with `make build`")]
    Incomplete {
        /// The program or map.
        name: &'static str,
    },
    /// The kernel is too old.
    #[error("kernel {release} is too old for TCX links: Fairlead needs Linux 6.6 or later")]
    OldKernel {
        /// As `uname -r` prints it.
        release: String,
    },
    /// The kernel refuses bpf(2) or a mount to this process.
    #[error(
        "no rights to {step}: run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON \
         (CAP_SYS_ADMIN to mount the BPF file system)"
    )]
    Permission {
        /// What was refused.
        step: Step,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel has no memory left for this process's cgroup.
    #[error("no memory to {step}: raise the memory limit of the agent's cgroup")]
    Memory {
        /// What it was for.
        step: Step,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// No cgroup2 file system is mounted.
    #[error(
        "no cgroup2 file system is mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified`, or \
         name one with --cgroup-root"
    )]
    NoCgroup2,
    /// The named cgroup cannot be opened or is none.
    #[error("{path} is no cgroup2 directory: name the cgroup2 mount with --cgroup-root")]
    Cgroup {
        /// What was named.
        path: PathBuf,
        /// Why it cannot be opened, if it cannot.
        #[source]
        source: Option<io::Error>,
    },
    /// No BPF file system, and none can be mounted.
    #[error("no BPF file system at {path}: `mount -t bpf bpf {path}`, or name one with --bpffs")]
    NoBpfFileSystem {
        /// Where it is wanted.
        path: PathBuf,
        /// Why it cannot be mounted.
        #[source]
        source: io::Error,
    },
    /// A file on the BPF file system cannot be made, opened or removed.
    #[error("{path}: {source}; `fairlead cleanup` removes everything of Fairlead's")]
    Pin {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No agent has pinned anything here.
    #[error(
        "no maps of Fairlead's at {path}: start the agent, or name its BPF file system with --bpffs"
    )]
    NothingPinned {
        /// The BPF file system that was named.
        path: PathBuf,
    },
    /// Maps are pinned, and not this one.
    #[error(
        "{path} is not there{}: the agent that runs is of another version, whose own `fairlead` can \
         read its maps: run this command of that one (in a cluster: kubectl exec POD -- fairlead)",
        found.as_ref().map_or_else(String::new, |found| format!(", but {found}"))
    )]
    OtherVersion {
        /// The map that was looked for.
        path: PathBuf,
        /// The same map of another version.
        found: Option<String>,
    },
    /// A pinned map is not the one its name promises.
    #[error("{path} is not a map of this version: run `fairlead cleanup` and start again")]
    Foreign {
        /// The pinned map.
        path: PathBuf,
    },
    /// The verifier or loader refused a program.
    #[error("the kernel does not take program {name}: please report this with its kernel version")]
    Program {
        /// The program.
        name: &'static str,
        /// What the verifier says.
        #[source]
        source: Box<ProgramError>,
    },
    /// The loader refused the object.
    #[error("the eBPF object does not load: build the binary anew with `make build`")]
    Load(#[source] Box<EbpfError>),
    /// The start was given up: see [`Kernel::withdraw`](crate::Kernel::withdraw).
    #[error("nothing is attached any more: this start was given up, and the next one attaches")]
    Withdrawn,
    /// Any other answer of the kernel.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: Step,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What the agent wants of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Load programs and maps.
    Load,
    /// Mount the BPF file system.
    Mount,
    /// Attach a program to the cgroup.
    AttachCgroup(&'static str),
    /// Attach a program to a device.
    AttachDevice(&'static str, String),
    /// Write the node's addresses and settings.
    WriteNode,
    /// Read counters.
    ReadCounters,
    /// Run a packet program on a frame.
    RunPacket,
    /// Follow addresses and devices.
    Follow,
    /// End sockets whose backend is gone.
    EndSockets,
    /// Remove connections that are over.
    Sweep,
    /// Follow the programs' decisions.
    TellLive,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Load => f.write_str("load eBPF programs and maps"),
            Step::Mount => f.write_str("mount the BPF file system"),
            Step::AttachCgroup(program) => write!(f, "attach {program} to the cgroup"),
            Step::AttachDevice(program, device) => write!(f, "attach {program} to {device}"),
            Step::WriteNode => f.write_str("write the node's addresses and settings"),
            Step::ReadCounters => f.write_str("read the counters"),
            Step::Sweep => f.write_str("remove connections that are over"),
            Step::TellLive => f.write_str("follow the programs' decisions"),
            Step::RunPacket => f.write_str("run a packet program on a frame"),
            Step::EndSockets => f.write_str("end UDP sockets whose backend is gone"),
            Step::Follow => f.write_str("follow addresses and devices by rtnetlink"),
        }
    }
}

impl KernelError {
    pub(crate) fn system(step: Step, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { step, source },
            Some(libc::ENOMEM) => Self::Memory { step, source },
            _ => Self::System { step, source },
        }
    }

    pub(crate) fn pin(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Pin { path: path.into(), source }
    }

    pub(crate) fn from_load(error: EbpfError) -> Self {
        let code = match &error {
            EbpfError::MapError(
                MapError::CreateError { io_error, .. }
                | MapError::SyscallError(SyscallError { io_error, .. }),
            ) => io_error.raw_os_error(),
            _ => None,
        };
        match code {
            Some(code) => Self::system(Step::Load, io::Error::from_raw_os_error(code)),
            None => Self::Load(Box::new(error)),
        }
    }

    pub(crate) fn from_program(name: &'static str, error: ProgramError) -> Self {
        let code = match &error {
            ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
            _ => None,
        };
        match code {
            // EACCES is the verifier's answer to a program, EPERM the kernel's to a process.
            Some(code @ (libc::EPERM | libc::ENOMEM)) => {
                Self::system(Step::Load, io::Error::from_raw_os_error(code))
            }
            _ => Self::Program { name, source: Box::new(error) },
        }
    }
}
