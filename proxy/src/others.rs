//! Programs of others that decide where sockets connect to.

use std::collections::BTreeSet;

use aya::programs::loaded_programs;

use crate::object::SOCKET_PROGRAMS;

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR` of linux/bpf.h: addresses that sockets dial, and bind to.
const SOCK_ADDR: u32 = 18;
/// systemd's (`SocketBindAllow=`) look at bind() alone.
const OF_SYSTEMD: &str = "sd_bind";

/// Their names, as the kernel cuts them (15 bytes); `None`: the kernel does not tell this process
/// (bpf(2): CAP_SYS_ADMIN). Of what runs in this kernel, in whichever cgroup.
pub fn socket_programs() -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let (mut read, mut failed) = (0_u32, 0_u32);
    for program in loaded_programs() {
        // One that has gone since it was listed is an error like any other.
        let Ok(program) = program else {
            failed += 1;
            continue;
        };
        read += 1;
        if program.program_type() as u32 == SOCK_ADDR {
            names.extend(program.name_as_str().filter(|name| is_others(name)).map(str::to_owned));
        }
    }
    (read > 0 || failed == 0).then_some(names)
}

fn is_others(name: &str) -> bool {
    let is_own = SOCKET_PROGRAMS.iter().any(|(own, _)| *own == name);
    !is_own && !name.starts_with(OF_SYSTEMD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_this_proxy_and_of_systemd_are_no_rivals() {
        for (name, is_rival) in [
            ("connect4", false),
            ("getpeername6", false),
            ("sd_bind4", false),
            ("cil_sock4_conne", true),
            ("cali_ctlb_conn4", true),
            ("connect4_other", true),
        ] {
            assert_eq!(is_others(name), is_rival, "{name}");
        }
    }
}
