//! BPF file systems, where pins live.

use std::{ffi::CString, io, mem, os::unix::ffi::OsStrExt as _, path::Path, ptr};

/// `BPF_FS_MAGIC` in include/uapi/linux/magic.h.
const MAGIC: u64 = 0xcafe_4a11;

/// Whether `path` lies on a BPF file system.
pub(crate) fn is_bpf_file_system(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: plain data, for which zero is valid.
    let mut status: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: a C string and a structure that outlive the call.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut status) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The field's type differs between C libraries and architectures.
    #[expect(clippy::cast_sign_loss, reason = "a bit pattern; compared in its low half")]
    let found = status.f_type as u64;
    Ok(found & 0xffff_ffff == MAGIC)
}

/// Mounts a BPF file system on an existing directory.
pub(crate) fn mount_bpf_file_system(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RELATIME;
    let options = c"mode=0700";
    // SAFETY: C strings that outlive the call.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            path.as_ptr(),
            c"bpf".as_ptr(),
            flags,
            ptr::from_ref(options).cast::<libc::c_void>(),
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
