//! Packets for a service that no socket of this node sent, and their replies.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use bytemuck::Zeroable as _;
use fairlead_ebpf::{
    abi::{
        Address, BACKEND_LOCAL, CONNECTION_MASQUERADED, CONNECTION_REPLY, Connection, EGRESS,
        EVENT_DROPPED, FRONTEND_FOREIGN, FRONTEND_LOCAL, FRONTEND_SOURCE_RANGES, FrontendKey,
        INGRESS, Reason, SETTINGS_MASQUERADE_ALL, Tuple,
    },
    connection::{Flow, rewritten},
    dialled::Tables as _,
    packet::{self, Skip},
    select::Origin,
};

use super::{
    dial::{self, Choice, Client, Found, Refusal},
    frame::Frame,
    kept::is_kept,
    live::{self, Account},
    low_half, maps, once, own, reject, route, steps,
    track::{self, store, store_new},
};

/// Whoever comes next decides: other programs, then the kernel.
const NEXT: i32 = TC_ACT_UNSPEC;
const DROP: i32 = TC_ACT_SHOT;

/// Ports tried for one connection before it is dropped, as many as netfilter tries. Of a range that
/// is 95 % in use, all are taken once in 700 times.
const PORT_TRIES: u32 = 128;
/// Whichever is the first choice.
const ANY_PORT: [u8; 2] = [0; 2];

/// Not a verdict of the kernel's: the packet becomes a refusal.
const REJECT: i32 = 1000;
/// Nor is this: a connection was stored, by which the packet is rewritten.
const OPENED: i32 = 1001;

/// Before routing: to the backend, or back to the client.
#[inline(always)]
pub(crate) fn ingress(ctx: &TcContext, origin: Origin) -> i32 {
    let Some(frame) = maps::scratch() else { return NEXT };
    match translate(ctx, frame, origin) {
        Ok(REJECT) => reject::answer(ctx, frame, origin),
        Ok(verdict) => verdict,
        Err(skip) => pass(skip),
    }
}

/// After routing: from the node, or from what the client dialled.
#[inline(always)]
pub(crate) fn egress(ctx: &TcContext) -> i32 {
    // What cannot be read passes uncounted: it was seen, or made, on this node before.
    let Some(frame) = maps::scratch() else { return NEXT };
    if frame.parse(ctx, EGRESS).is_ok() {
        once::forget(ctx, frame);
        let is_known = track::is_known(ctx, frame);
        own::remember(frame, is_known);
        if is_known {
            return apply(ctx, frame);
        }
    }
    if !is_leak(ctx, frame) {
        return NEXT;
    }
    live::leak(ctx, frame);
    drop_for(Reason::ServiceAddressLeak)
}

/// Whether a packet, of whatever protocol, is on its way to a service address that no other proxy
/// serves. Routed out, it would come back for ever or meet a stranger.
#[inline(never)]
fn is_leak(ctx: &TcContext, frame: &Frame) -> bool {
    let (Some(address), Some(settings)) = (frame.destination(ctx), maps::settings()) else {
        return false;
    };
    let others = FrontendKey::other_ports(address);
    settings.is_service_address(&address)
        && maps::peek(&maps::FRONTENDS, &others)
            .is_none_or(|frontend| frontend.flags & FRONTEND_FOREIGN == 0)
}

#[inline(always)]
fn translate(ctx: &TcContext, frame: &mut Frame, origin: Origin) -> Result<i32, Skip> {
    frame.parse(ctx, INGRESS)?;
    if once::is_translated(ctx, frame) {
        return Ok(NEXT);
    }
    let is_opening = frame.is_opening(ctx)?;
    frame.is_torn = 0;
    let is_kept = track::is_known(ctx, frame) && (!is_opening || is_kept(frame, origin));
    if !is_kept && !is_opening {
        // It may be a connection that another proxy's rules still translate further on.
        return Ok(NEXT);
    }
    if !is_kept {
        let verdict = match open(ctx, frame, origin) {
            NEXT => open_beside(&frame.tuple, &mut frame.found, &mut frame.account),
            verdict => verdict,
        };
        live::packet(frame, origin);
        if verdict != OPENED {
            return Ok(verdict);
        }
    }
    once::note(ctx, frame);
    Ok(apply(ctx, frame))
}

#[inline(never)]
fn apply(ctx: &TcContext, frame: &Frame) -> i32 {
    let done = if frame.is_error() {
        frame.rewrite_error(ctx, &frame.found)
    } else {
        frame.rewrite(ctx, &rewritten(&frame.tuple, &frame.found))
    };
    match done {
        Ok(()) => {
            if !frame.is_error() {
                let is_reply = frame.found.state & CONNECTION_REPLY != 0;
                maps::add_packet(frame.found.counted_for(), is_reply, frame.ip_len(ctx));
            }
            NEXT
        }
        Err(_) => drop_for(Reason::NotRewritten),
    }
}

/// The set of all backends that serve the port, and how many they are, where there is one beside the frontend's:
/// in one number, as a function of its own cannot return two.
#[inline(never)]
pub(super) fn beside(key: &FrontendKey) -> u64 {
    let all = maps::AT_DEVICE.frontend(&key.serving());
    all.map_or(0, |all| u64::from(all.set_id) << 16 | u64::from(all.backends))
}

/// A first packet: its entries are stored before it is forwarded, so that a repeated SYN meets the
/// same backend. Those of a flow that has lost some are stored anew, to the backend that it has.
#[inline(never)]
fn open(ctx: &TcContext, frame: &mut Frame, origin: Origin) -> i32 {
    let Frame { tuple, found: connection, account, is_torn, .. } = frame;
    *account = Account::NONE;
    let mut flow = Flow {
        dialled: tuple,
        backend: connection.address,
        backend_port: connection.destination_port,
        client_port: connection.source_port,
        now: maps::now(),
        counter_id: connection.counted_for(),
    };
    let mut port = ANY_PORT;
    if *is_torn != 0 {
        port = port_out(&flow);
    } else {
        *connection = Connection::zeroed();
        flow.client_port = tuple.source_port;
        flow.counter_id = 0;
        let verdict = pick(&mut flow, connection, origin, account);
        if verdict != OPENED {
            return verdict;
        }
    }
    if let Err(reason) = store_reply(&mut flow) {
        return refuse(account, reason);
    }
    if is_masqueraded(connection, flow.backend == tuple.source, origin) {
        if let Err(reason) = store_remote(ctx, &flow, port) {
            return refuse(account, reason);
        }
    } else {
        // Of a connection that has ended: its port reached the same backend by a service that hides clients.
        track::forget(&flow.request_on_its_way());
    }
    stored(store_request(&flow, connection), account)
}

/// The port by which the backend of a flow knows it already, if that is told.
// A function of its own: the key leaves the stack again.
#[inline(never)]
fn port_out(flow: &Flow<'_>) -> [u8; 2] {
    track::entry(&flow.request_on_its_way()).map_or(ANY_PORT, |out| out.source_port)
}

/// A local backend's replies pass this node anyway, and so do a local client's requests: the client's
/// address is kept. A pod that meets itself would answer itself directly.
#[inline(always)]
pub(super) fn is_masqueraded(connection: &Connection, meets_itself: bool, origin: Origin) -> bool {
    let is_translated = match origin {
        Origin::Outside => connection.flags & BACKEND_LOCAL == 0,
        Origin::Inside => meets_itself,
    };
    connection.is_of_service() && (is_translated || connection.flags & CONNECTION_MASQUERADED != 0)
}

/// A first packet that is for no service. Where the client's port has reached the same backend by a
/// service, replies would be taken for that connection's: it gets another port, as from netfilter.
#[inline(never)]
fn open_beside(tuple: &Tuple, connection: &mut Connection, account: &mut Account) -> i32 {
    let mut flow = Flow {
        dialled: tuple,
        backend: tuple.destination,
        backend_port: tuple.destination_port,
        client_port: tuple.source_port,
        now: maps::now(),
        counter_id: 0,
    };
    if !track::is_contested(&flow) {
        return NEXT;
    }
    if let Err(reason) = store_reply(&mut flow) {
        return refuse(account, reason);
    }
    stored(store_request(&flow, connection), account)
}

#[inline(always)]
fn stored(is_stored: bool, account: &mut Account) -> i32 {
    if is_stored { OPENED } else { refuse(account, Reason::ConnectionNotStored) }
}

/// The way to the backend; `connection` knows which set it is of.
#[inline(never)]
fn store_request(flow: &Flow<'_>, connection: &mut Connection) -> bool {
    let (key, request_in) = flow.request_in();
    let Connection { set_id, flags, .. } = *connection;
    *connection = Connection { set_id, flags, ..request_in };
    store(&key, connection)
}

/// Chooses the backend. Without one, the answer is what becomes of the packet.
#[inline(never)]
fn pick(
    flow: &mut Flow<'_>,
    connection: &mut Connection,
    origin: Origin,
    account: &mut Account,
) -> i32 {
    let dialled = dialled(flow.dialled);
    let tables = &maps::AT_DEVICE;
    let (key, frontend) = match dial::find(tables, &dialled, || false, account) {
        Found::Frontend(key, frontend) => (key, frontend),
        Found::Dead(Refusal::Reject) => return REJECT,
        Found::Dead(Refusal::Drop) => return DROP,
        Found::Nothing => return NEXT,
    };
    if frontend.flags & FRONTEND_SOURCE_RANGES != 0
        && !maps::is_in_source_ranges(frontend.counter_id, &flow.dialled.source)
    {
        return refuse(account, Reason::SourceDenied);
    }
    let Tuple { source, source_port, protocol, .. } = flow.dialled;
    let end = Some((*source_port, *protocol));
    let client = Client { origin, identity: source, random: dial::random(), flow: end };
    let Choice { set_id, backend } = match dial::choose(tables, (&key, frontend), &client, account)
    {
        Ok(choice) => choice,
        Err(Refusal::Drop) => return DROP,
        Err(Refusal::Reject) => return REJECT,
    };
    flow.backend = backend.address;
    flow.backend_port = backend.port;
    flow.counter_id = frontend.counter_id;
    connection.set_id = set_id;
    connection.flags = backend.flags;
    if frontend.flags & FRONTEND_LOCAL == 0
        && maps::settings().is_some_and(|s| s.flags & SETTINGS_MASQUERADE_ALL != 0)
    {
        connection.flags |= CONNECTION_MASQUERADED;
    }
    OPENED
}

/// The way back to the client. Where the client's port already reaches this backend by another
/// service, replies could not be told apart: it gets another port.
#[inline(never)]
fn store_reply(flow: &mut Flow<'_>) -> Result<(), Reason> {
    let mut reply = Reply { flow, result: Err(Reason::PortsExhausted) };
    steps::repeat(PORT_TRIES, &mut reply, try_reply);
    reply.result
}

struct Reply<'a, 'b> {
    flow: &'a mut Flow<'b>,
    result: Result<(), Reason>,
}

extern "C" fn try_reply(_: u64, Reply { flow, result }: &mut Reply<'_, '_>) -> i64 {
    if store_new(&flow.reply_out()) {
        *result = Ok(());
        return steps::DONE;
    }
    flow.client_port = (low_half(dial::random()) | 0x8000).to_be_bytes();
    steps::GO_ON
}

/// The way to a backend on another node and back: from one of the node's ports.
#[inline(never)]
fn store_remote(ctx: &TcContext, flow: &Flow<'_>, port: [u8; 2]) -> Result<(), Reason> {
    let exhausted = Err(Reason::PortsExhausted);
    let Some(node) = node_address(ctx, flow) else { return exhausted };
    let mut remote = Remote { flow, node, port, result: exhausted };
    steps::repeat(PORT_TRIES, &mut remote, try_remote);
    remote.result
}

struct Remote<'a> {
    flow: &'a Flow<'a>,
    node: Address,
    port: [u8; 2],
    result: Result<(), Reason>,
}

extern "C" fn try_remote(turn: u64, Remote { flow, node, port, result }: &mut Remote<'_>) -> i64 {
    let Some(settings) = maps::settings() else { return steps::DONE };
    let port = match turn {
        0 if *port != ANY_PORT => *port,
        0 => settings.snat_port_of(&flow.dialled.source, flow.client_port),
        _ => settings.snat_port(dial::random()),
    };
    if !store_new(&flow.reply_in(*node, port)) {
        return steps::GO_ON;
    }
    let (key, value) = flow.request_out(*node, port);
    *result = if store(&key, &value) { Ok(()) } else { Err(Reason::ConnectionNotStored) };
    steps::DONE
}

/// The address the backend sees: that of the device the packet leaves by, so that the answer comes back the
/// same way. Another of the node's may lead it past an overlay or to another device, or be an address that other
/// nodes have, too.
#[inline(always)]
fn node_address(ctx: &TcContext, flow: &Flow<'_>) -> Option<Address> {
    let mut address = [0; 16];
    if route::source(ctx, flow.dialled, &flow.backend, &mut address) {
        return Some(address);
    }
    let settings = maps::settings()?;
    let address =
        if packet::is_mapped(&flow.backend) { settings.address_v4 } else { settings.address_v6 };
    (address != [0; 16]).then_some(address)
}

#[inline(always)]
pub(super) fn dialled(tuple: &Tuple) -> FrontendKey {
    FrontendKey {
        address: tuple.destination,
        port: tuple.destination_port,
        protocol: tuple.protocol,
        zero: 0,
    }
}

#[inline(always)]
fn refuse(account: &mut Account, reason: Reason) -> i32 {
    dial::refuse(account, EVENT_DROPPED, reason);
    DROP
}

#[inline(always)]
fn drop_for(reason: Reason) -> i32 {
    maps::count(reason);
    DROP
}

/// Left alone, and counted where it might have been meant for a service.
#[inline(always)]
fn pass(skip: Skip) -> i32 {
    match skip {
        Skip::Other => {}
        Skip::Fragment => maps::count(Reason::Fragment),
        Skip::ExtensionHeader => maps::count(Reason::ExtensionHeader),
        Skip::Malformed => maps::count(Reason::Malformed),
        Skip::Martian => maps::count(Reason::Martian),
    }
    NEXT
}
