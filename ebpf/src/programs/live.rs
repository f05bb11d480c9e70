//! Decisions told to whoever follows them (`fairlead trace --live`): to nobody, nearly always.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_comm, bpf_ktime_get_ns},
    },
    macros::btf_map,
    maps::ring_buf::RingBufEntry,
    programs::TcContext,
};
use bytemuck::Zeroable;
use fairlead_ebpf::{
    abi::{
        Address, Backend, EVENT_AT_EGRESS, EVENT_AT_POD, EVENT_AT_SOCKET, EVENT_AT_UPLINK,
        EVENT_DROPPED, EVENT_NO_REASON, EVENT_PASSED, EVENT_REJECTED, EVENT_SERVED, EVENTS_BYTES,
        Event, FrontendKey, FrontendValue, LIVE_INDEX, Live, Reason, Tuple,
    },
    select::{self, Origin},
};

use super::{
    dial,
    frame::Frame,
    maps,
    sockaddr::{Call, Family},
};

// These belong to one load of the programs and are pinned nowhere: those of an agent that starts
// tell nobody, whatever the one before was asked.

#[btf_map(name = "live")]
static LIVE: Array<Live, 1> = Array::new();

/// Of [`Event`]s; typed, its definition would say two sizes, which libbpf refuses.
#[btf_map(name = "events")]
static EVENTS: RingBuf<(), EVENTS_BYTES> = RingBuf::new();

/// Decisions for which there was no room in the ring.
#[btf_map(name = "events_lost")]
static EVENTS_LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// What is to be told of a decision, besides where it leads.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct Account {
    counter_id: u32,
    service_port: [u8; 2],
    /// `EVENT_*` up to [`EVENT_DROPPED`].
    outcome: u8,
    /// A [`Reason`], or [`EVENT_NO_REASON`].
    reason: u8,
}

impl Account {
    /// Nothing is decided.
    pub(crate) const NONE: Self = Self {
        counter_id: 0,
        service_port: [0; 2],
        outcome: EVENT_PASSED,
        reason: EVENT_NO_REASON,
    };

    /// It is about this frontend's service.
    #[inline(always)]
    pub(crate) fn concern(&mut self, frontend: &FrontendValue) {
        self.counter_id = frontend.counter_id;
        self.service_port = frontend.service_port;
    }

    #[inline(always)]
    pub(crate) fn serve(&mut self) {
        self.outcome = EVENT_SERVED;
    }

    /// Of the service it is about; 0: of none.
    #[inline(always)]
    pub(crate) fn counter_id(&self) -> u32 {
        self.counter_id
    }

    /// It ends so (`EVENT_*`), and why.
    #[inline(always)]
    pub(crate) fn end(&mut self, outcome: u8, reason: Reason) {
        self.outcome = outcome;
        self.reason = reason as u8;
    }

    /// The client is told, whatever was meant for packets.
    #[inline(always)]
    pub(crate) fn reject(&mut self) {
        self.outcome = EVENT_REJECTED;
    }

    #[inline(always)]
    fn is_told(&self) -> bool {
        self.outcome != EVENT_PASSED
    }
}

/// What is asked for, if anything is.
#[inline(always)]
fn wanted() -> Option<&'static Live> {
    LIVE.get(LIVE_INDEX).filter(|live| live.one_in != 0)
}

/// Tells what became of a call.
#[inline(always)]
pub(crate) fn call<F: Family>(
    call: &Call<F>,
    dialled: &FrontendKey,
    backend: &Backend,
    account: &Account,
) {
    if account.is_told() && wanted().is_some() {
        tell_call(call, dialled, backend, account);
    }
}

#[inline(never)]
fn tell_call<F: Family>(
    call: &Call<F>,
    dialled: &FrontendKey,
    backend: &Backend,
    account: &Account,
) {
    let netns_cookie = call.netns_cookie();
    let client = Address::zeroed();
    if !is_drawn(account, &dialled.address, netns_cookie, &client) {
        return;
    }
    let Some(mut entry) = room() else { return };
    let event = begin(&mut entry, account);
    event.hook = EVENT_AT_SOCKET;
    event.netns_cookie = netns_cookie;
    (event.dialled, event.dialled_port) = (dialled.address, dialled.port);
    (event.backend, event.backend_port) = (backend.address, backend.port);
    event.protocol = dialled.protocol;
    // The lower half is the thread.
    event.pid = u32::try_from(bpf_get_current_pid_tgid() >> 32).unwrap_or_default();
    let len = u32::try_from(event.process.len()).unwrap_or_default();
    // SAFETY: as many bytes as it is told.
    unsafe { bpf_get_current_comm(event.process.as_mut_ptr().cast(), len) };
    entry.submit(BPF_RB_NO_WAKEUP.into());
}

/// Tells what became of a packet that opens a connection.
#[inline(always)]
pub(crate) fn packet(frame: &Frame, origin: Origin) {
    if wanted().is_some() && frame.account.is_told() {
        let hook = match origin {
            Origin::Inside => EVENT_AT_POD,
            Origin::Outside => EVENT_AT_UPLINK,
        };
        tell_packet(frame, hook);
    }
}

/// Tells of a packet that was about to leave for a service address.
#[inline(always)]
pub(crate) fn leak(ctx: &TcContext, frame: &mut Frame) {
    if wanted().is_some() {
        // Whatever was read of its ports, it may be of any protocol.
        let [source, destination] = frame.addresses(ctx).unwrap_or_default();
        frame.tuple = Tuple { source, destination, ..Tuple::zeroed() };
        frame.account = Account::NONE;
        frame.account.end(EVENT_DROPPED, Reason::ServiceAddressLeak);
        tell_packet(frame, EVENT_AT_EGRESS);
    }
}

#[inline(never)]
fn tell_packet(Frame { tuple, found, account, .. }: &Frame, hook: u8) {
    if !is_drawn(account, &tuple.destination, 0, &tuple.source) {
        return;
    }
    let Some(mut entry) = room() else { return };
    let event = begin(&mut entry, account);
    event.hook = hook;
    (event.client, event.client_port) = (tuple.source, tuple.source_port);
    (event.dialled, event.dialled_port) = (tuple.destination, tuple.destination_port);
    if account.outcome == EVENT_SERVED {
        (event.backend, event.backend_port) = (found.address, found.destination_port);
    }
    event.protocol = tuple.protocol;
    entry.submit(BPF_RB_NO_WAKEUP.into());
}

/// Whether this one is asked for, and of those the one in so many that is told.
#[inline(always)]
fn is_drawn(account: &Account, dialled: &Address, netns_cookie: u64, client: &Address) -> bool {
    let Some(live) = wanted() else { return false };
    live.is_for(account.counter_id, dialled)
        && live.is_from(netns_cookie, client)
        && select::scale(dial::random(), live.one_in) == 0
}

/// In the ring, if there is any: nobody waits for whoever reads it, nor is woken.
#[inline(always)]
fn room() -> Option<RingBufEntry<Event>> {
    let entry = EVENTS.reserve_untyped(0);
    if entry.is_none()
        && let Some(lost) = EVENTS_LOST.get_ptr_mut(LIVE_INDEX)
    {
        maps::add_one(lost);
    }
    entry
}

/// Filled in where it is: it would be too much for the stack.
#[inline(always)]
fn begin<'a>(entry: &'a mut RingBufEntry<Event>, account: &Account) -> &'a mut Event {
    let event = entry.write(Event::zeroed());
    // SAFETY: a helper without pointers.
    event.at_ns = unsafe { bpf_ktime_get_ns() };
    event.counter_id = account.counter_id;
    event.service_port = account.service_port;
    event.outcome = account.outcome;
    event.reason = account.reason;
    event
}
