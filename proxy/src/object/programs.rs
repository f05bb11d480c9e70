//! The programs: which there are, where they attach, and the kernel's check of them.

use std::{
    cmp::Reverse,
    num::NonZero,
    os::fd::{AsFd as _, OwnedFd},
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread::{self, available_parallelism},
};

use aya::{
    Ebpf,
    programs::{CgroupSock, CgroupSockAddr, Program, ProgramError, SchedClassifier, SockOps},
};

use crate::{
    error::{KernelError, Step},
    sys::AttachType,
};

/// The programs and where they attach, in that order: those that make an answer the service's come
/// before those that send a question to a backend. Otherwise the first answers would come from
/// strangers. The one that takes a socket's note away comes before those that make any.
pub(crate) const SOCKET_PROGRAMS: [(&str, AttachType); 9] = [
    ("recvmsg4", AttachType::RecvMsg4),
    ("recvmsg6", AttachType::RecvMsg6),
    ("getpeername4", AttachType::GetPeerName4),
    ("getpeername6", AttachType::GetPeerName6),
    ("socket_release", AttachType::SockRelease),
    ("connect4", AttachType::Connect4),
    ("connect6", AttachType::Connect6),
    ("sendmsg4", AttachType::SendMsg4),
    ("sendmsg6", AttachType::SendMsg6),
];
/// Where bytes are counted, it comes after those.
pub(crate) const BYTES_PROGRAM: (&str, AttachType) = ("socket_bytes", AttachType::SockOps);
/// The programs for devices, and which devices each is for; in the same order.
pub(crate) const DEVICE_PROGRAMS: [(&str, AttachType, DeviceUse); 3] = [
    ("uplink_egress", AttachType::TcxEgress, DeviceUse::All),
    ("uplink_ingress", AttachType::TcxIngress, DeviceUse::Uplinks),
    ("pod_ingress", AttachType::TcxIngress, DeviceUse::Pods),
];

/// Whether a program, by the name of its link, makes answers the service's: such go last.
pub(crate) fn is_for_answers(link: &str) -> bool {
    ["recvmsg", "getpeername", "uplink_egress"].iter().any(|name| link.starts_with(name))
}

/// What a device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Packets from and to elsewhere.
    Uplink,
    /// Packets of one pod.
    Pod,
}

/// Which devices a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceUse {
    Uplinks,
    Pods,
    All,
}

impl DeviceUse {
    pub(crate) fn covers(self, role: Role) -> bool {
        match self {
            Self::Uplinks => role == Role::Uplink,
            Self::Pods => role == Role::Pod,
            Self::All => true,
        }
    }

    /// What a device with such a program is taken for.
    pub(crate) fn role(self) -> Option<Role> {
        match self {
            Self::Uplinks => Some(Role::Uplink),
            Self::Pods => Some(Role::Pod),
            Self::All => None,
        }
    }
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    pub(crate) attach_type: AttachType,
    pub(crate) fd: OwnedFd,
    pub(crate) verified_instructions: u32,
}

/// The programs as the kernel has them, attached nowhere.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) of_sockets: Vec<Loaded>,
    pub(crate) of_devices: Vec<(Loaded, DeviceUse)>,
}

impl Programs {
    /// Has the kernel check them all.
    pub(super) fn verify(ebpf: &mut Ebpf, counts_bytes: bool) -> Result<Self, KernelError> {
        let of_sockets = SOCKET_PROGRAMS.into_iter().chain(counts_bytes.then_some(BYTES_PROGRAM));
        // The longest first.
        let of_devices = DEVICE_PROGRAMS.iter().rev().map(|(name, ..)| *name);
        let names = of_devices.chain(of_sockets.clone().map(|(name, _)| name));
        verify(ebpf, &names.collect::<Vec<_>>())?;
        let of_sockets = of_sockets.map(|(name, attach_type)| loaded(ebpf, name, attach_type));
        let of_sockets = of_sockets.collect::<Result<_, KernelError>>()?;
        let of_devices = DEVICE_PROGRAMS
            .iter()
            .map(|(name, attach_type, of)| Ok((loaded(ebpf, name, *attach_type)?, *of)));
        Ok(Self { of_sockets, of_devices: of_devices.collect::<Result<_, KernelError>>()? })
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Loaded> {
        self.of_sockets.iter().chain(self.of_devices.iter().map(|(program, _)| program))
    }
}

/// Has the kernel check programs, as many at once as there are CPUs: that is most of a start. Its lock
/// is only for those without CAP_BPF (bpf_check).
fn verify(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), KernelError> {
    let programs = ebpf.programs_mut().filter_map(|(name, program)| {
        let place = names.iter().position(|wanted| *wanted == name)?;
        Some((place, *names.get(place)?, program))
    });
    let mut programs: Vec<_> = programs.collect();
    programs.sort_by_key(|(place, ..)| Reverse(*place));
    let programs = Mutex::new(programs);
    let next = || programs.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || -> Result<(), KernelError> {
        while let Some((_, name, program)) = next() {
            load_program(program).map_err(|error| KernelError::from_program(name, error))?;
        }
        Ok(())
    };
    let threads = available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .fold(own, Result::and)
    })
}

fn loaded(
    ebpf: &mut Ebpf,
    name: &'static str,
    attach_type: AttachType,
) -> Result<Loaded, KernelError> {
    let failed = |error: ProgramError| KernelError::from_program(name, error);
    let program = ebpf.program_mut(name).ok_or(KernelError::Incomplete { name })?;
    let verified = program.info().map_err(failed)?.verified_instruction_count();
    let fd = program.fd().map_err(failed)?.as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| KernelError::system(Step::Load, error))?;
    Ok(Loaded { name, attach_type, fd, verified_instructions: verified.unwrap_or_default() })
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(_) => <&mut CgroupSockAddr>::try_from(program)?.load(),
        Program::CgroupSock(_) => <&mut CgroupSock>::try_from(program)?.load(),
        Program::SockOps(_) => <&mut SockOps>::try_from(program)?.load(),
        _ => <&mut SchedClassifier>::try_from(program)?.load(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_for_answers_are_attached_before_any_question_is_sent_to_a_backend() {
        let sockets = SOCKET_PROGRAMS.map(|(name, _)| name).to_vec();
        let devices = DEVICE_PROGRAMS.map(|(name, ..)| name).to_vec();
        for names in [sockets, devices] {
            assert!(names.is_sorted_by_key(|name| !is_for_answers(name)), "{names:?}");
        }
        assert!(is_for_answers("uplink_egress_7") && !is_for_answers("uplink_ingress_7"));
    }
}
