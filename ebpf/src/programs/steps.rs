//! Loops of which the verifier sees one turn (`bpf_loop`): those that are unrolled for it cost every
//! turn, on each way that leads there.

use aya_ebpf::helpers::generated::bpf_loop;

/// The next step follows.
pub(crate) const GO_ON: i64 = 0;
/// No step follows.
pub(crate) const DONE: i64 = 1;

/// One step: its number, and what all of them work on.
pub(crate) type Step<S> = extern "C" fn(u64, &mut S) -> i64;

/// Takes `count` steps, or fewer if one says [`DONE`]. `state` must be on the stack.
#[inline(always)]
pub(crate) fn repeat<S>(count: u32, state: &mut S, step: Step<S>) {
    let state = core::ptr::from_mut(state);
    // SAFETY: the kernel calls `step` with `state`, which outlives the call, and nothing else.
    unsafe { bpf_loop(count, step as *mut _, state.cast(), 0) };
}
