//! bpf(2): the call itself, pins, and what the kernel tells of an object.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_PROG_TEST_RUN: libc::c_long = 10;
/// An answer may be longer than its question.
const ROOM_TO_GROW: usize = 128;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Calls bpf(2) with the attributes of one command (`union bpf_attr` in include/uapi/linux/bpf.h).
///
/// # Safety
///
/// Every pointer in `attributes` must be valid for what the command does with it.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most `size_of::<T>()` bytes of the attributes; the
    // caller vouches for what they point to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, mem::size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes over a file descriptor the kernel has just returned.
pub(super) fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: fresh from the kernel, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

#[repr(C)]
#[derive(Default)]
struct PinAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Gives a map, program or link a name on a BPF file system.
pub(crate) fn pin(fd: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes =
        PinAttributes { path: path.as_ptr() as u64, fd: raw(fd.as_fd()), flags: 0 };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// Opens what is pinned under a name.
pub(crate) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = PinAttributes { path: path.as_ptr() as u64, ..Default::default() };
    // SAFETY: the path is a C string that outlives the call.
    owned(unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?)
}

#[repr(C)]
struct InfoAttributes {
    fd: u32,
    len: u32,
    info: u64,
}

/// What the kernel tells of a map, program or link. `T` is a prefix of its info structure.
///
/// # Safety
///
/// `T` must be plain data for which every bit pattern is valid.
pub(super) unsafe fn info<T>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: the caller vouches that zero is valid.
    let mut info: T = unsafe { mem::zeroed() };
    let len = u32::try_from(mem::size_of::<T>()).map_err(io::Error::other)?;
    let mut attributes = InfoAttributes { fd: raw(fd), len, info: &raw mut info as u64 };
    // SAFETY: the kernel writes at most `len` bytes to `info`, which outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

/// What a program made of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketRun {
    /// The program's verdict (`TC_ACT_*`).
    pub verdict: i32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// One run's time in nanoseconds, averaged over all runs.
    pub duration_ns: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttributes {
    program: u32,
    verdict: u32,
    input_len: u32,
    output_len: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration_ns: u32,
    context: [u64; 3],
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

/// Runs a packet program `repeat` times on one frame; later runs see what earlier ones made of it.
pub(crate) fn test_run(program: impl AsFd, frame: &[u8], repeat: u32) -> io::Result<PacketRun> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut packet = vec![0; frame.len() + ROOM_TO_GROW];
    let room = u32::try_from(packet.len()).map_err(io::Error::other)?;
    let mut attributes = TestRunAttributes {
        program: raw(program.as_fd()),
        input_len: len,
        output_len: room,
        input: frame.as_ptr() as u64,
        output: packet.as_mut_ptr() as u64,
        repeat,
        ..Default::default()
    };
    // SAFETY: both buffers are as long as said and outlive the call.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes) }?;
    packet.truncate(usize::try_from(attributes.output_len).map_err(io::Error::other)?);
    let TestRunAttributes { verdict, duration_ns, .. } = attributes;
    Ok(PacketRun { verdict: verdict.cast_signed(), packet, duration_ns })
}
