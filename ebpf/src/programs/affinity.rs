//! Session affinity: a client that comes again meets the backend it met before.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_ktime_get_ns};
use fairlead_ebpf::{
    abi::{Address, Affinity, AffinityKey, Backend, FrontendKey, FrontendValue, Reason},
    packet::is_mapped,
};

use super::{dial::Choice, maps};

const NANOSECONDS: u64 = 1_000_000_000;

/// The client of `frontend`, dialled as `key`.
#[inline(always)]
fn key(key: &FrontendKey, frontend: &FrontendValue, client: &Address) -> AffinityKey {
    AffinityKey {
        client: *client,
        counter_id: frontend.counter_id,
        service_port: frontend.service_port,
        protocol: key.protocol,
        version: if is_mapped(&key.address) { 4 } else { 6 },
    }
}

/// The backend the client met, if that is not too long ago and the set still has it: a backend
/// that terminates is in no set while there are ready ones.
#[inline(always)]
pub(crate) fn known(
    dialled: &FrontendKey,
    frontend: &FrontendValue,
    client: &Address,
    (set_id, count): (u32, u16),
) -> Option<Choice> {
    let client = key(dialled, frontend, client);
    // SAFETY: the reference ends with the copy, under RCU.
    let met = unsafe { maps::AFFINITIES.get(client).copied() }?;
    // Whole seconds: the one that has begun is not over.
    if now().wrapping_sub(met.seen_seconds) > frontend.affinity_seconds {
        return None;
    }
    let backend = Backend { address: met.address, port: met.port, flags: met.flags };
    maps::find(set_id, count, &backend)?;
    Some(Choice { set_id, backend })
}

/// Each use begins the time anew, as kube-proxy has it; within one second it is not written again.
#[inline(always)]
pub(crate) fn remember(
    dialled: &FrontendKey,
    frontend: &FrontendValue,
    client: &Address,
    backend: &Backend,
) {
    let client = key(dialled, frontend, client);
    let Backend { address, port, flags } = *backend;
    let met = Affinity { address, port, flags, seen_seconds: now() };
    // SAFETY: the reference ends with the comparison, under RCU.
    let is_known = unsafe { maps::AFFINITIES.get(client) }.is_some_and(|known| *known == met);
    if !is_known && maps::AFFINITIES.insert(client, met, BPF_ANY.into()).is_err() {
        maps::count(Reason::AffinityNotStored);
    }
}

/// Seconds of the monotonic clock, which no one sets.
#[inline(always)]
fn now() -> u32 {
    // SAFETY: a helper without pointers.
    let nanoseconds = unsafe { bpf_ktime_get_ns() };
    // After 136 years of uptime an affinity may end early.
    u32::try_from((nanoseconds / NANOSECONDS) & 0xffff_ffff).unwrap_or_default()
}
