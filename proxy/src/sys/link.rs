//! Links: programs attached to cgroups and devices, replaceable in place.

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::bpf::{bpf, info, owned, raw};

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_TCX: u32 = 11;
/// Before those that are there already.
const BPF_F_BEFORE: u32 = 8;

/// Where programs attach (`enum bpf_attach_type`).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttachType {
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    SendMsg4 = 14,
    SendMsg6 = 15,
    RecvMsg4 = 19,
    RecvMsg6 = 20,
    GetPeerName4 = 29,
    GetPeerName6 = 30,
    SockRelease = 34,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinkTarget<'a> {
    Cgroup(BorrowedFd<'a>),
    /// Index of a network device.
    Device(u32),
}

/// What an existing link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkInfo {
    /// The cgroup's id (its inode number) and the attach type.
    Cgroup { id: u64, attach_type: u32 },
    /// The device's index, 0 when it is gone, and the attach type.
    Device { index: u32, attach_type: u32 },
    /// Some other kind of link.
    Other,
}

#[repr(C)]
#[derive(Default)]
struct CreateAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    reserved: u32,
    expected_revision: u64,
}

/// Attaches a program. Devices: first on the way in, last on the way out, so that other programs
/// see what the stack sees. Cgroups: beside other programs.
pub(crate) fn create_link(
    program: impl AsFd,
    target: LinkTarget<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    let (target, flags) = match target {
        LinkTarget::Cgroup(cgroup) => (raw(cgroup), 0),
        LinkTarget::Device(index) if attach_type == AttachType::TcxIngress => (index, BPF_F_BEFORE),
        LinkTarget::Device(index) => (index, 0),
    };
    let mut attributes = CreateAttributes {
        program: raw(program.as_fd()),
        target,
        attach_type: attach_type as u32,
        flags,
        ..Default::default()
    };
    // SAFETY: no pointers.
    owned(unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }?)
}

#[repr(C)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Puts another program in the link's place; there is no moment without one.
pub(crate) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes = UpdateAttributes {
        link: raw(link.as_fd()),
        program: raw(program.as_fd()),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}

#[repr(C)]
struct DetachAttributes {
    link: u32,
}

/// Detaches at once; dropping the last reference does so a little later.
pub(crate) fn detach_link(link: impl AsFd) -> io::Result<()> {
    let mut attributes = DetachAttributes { link: raw(link.as_fd()) };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }.map(drop)
}

/// `struct bpf_link_info`: its head, and the longest of the two tails that matter here.
#[repr(C)]
struct RawInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    reserved: u32,
    tail: [u32; 4],
}

// Device links keep index and attach type where cgroup links keep the halves of the id.
const _: () = assert!(mem::offset_of!(RawInfo, tail) == 16);

/// A link as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    pub(crate) attached_to: LinkInfo,
}

/// What the link is attached to, and which program.
pub(crate) fn link_info(link: impl AsFd) -> io::Result<Link> {
    // SAFETY: integers only.
    let raw = unsafe { info::<RawInfo>(link.as_fd()) }?;
    let [first, second, third, _] = raw.tail;
    let attached_to = match raw.kind {
        BPF_LINK_TYPE_CGROUP => LinkInfo::Cgroup { id: halves(first, second), attach_type: third },
        BPF_LINK_TYPE_TCX => LinkInfo::Device { index: first, attach_type: second },
        _ => LinkInfo::Other,
    };
    Ok(Link { id: raw.id, program_id: raw.program_id, attached_to })
}

fn halves(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}
