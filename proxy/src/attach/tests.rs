//! Kernels that are too old, and what errors say.

use super::*;

#[test]
fn kernels_without_tcx_links_are_named() {
    for (release, is_refused) in [
        ("6.18.44-fc-v669\n", false),
        ("6.6.0", false),
        ("6.5.13-generic", true),
        ("5.15.0-105", true),
        ("7.0.0", false),
        ("", false),
        ("unknown", false),
    ] {
        assert_eq!(check_kernel(release).is_err(), is_refused, "{release}");
    }
}

#[test]
fn messages_are_one_line_and_name_a_cure() {
    let io = || io::Error::from_raw_os_error(libc::EPERM);
    let errors = [
        (KernelError::NoObject, "make build"),
        (KernelError::NoCgroup2, "--cgroup-root"),
        (KernelError::system(Step::Load, io()), "CAP_BPF"),
        (KernelError::Cgroup { path: "/x".into(), source: None }, "--cgroup-root"),
        (KernelError::NoBpfFileSystem { path: "/x".into(), source: io() }, "--bpffs"),
        (KernelError::Foreign { path: "/x".into() }, "fairlead cleanup"),
        (KernelError::OldKernel { release: "5.4".into() }, "6.6"),
    ];
    for (error, cure) in errors {
        let message = error.to_string();
        assert!(message.contains(cure) && !message.contains('\n'), "{message}");
    }
}
