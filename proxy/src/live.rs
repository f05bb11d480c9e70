//! Decisions of the programs as they make them, for whoever follows (`fairlead trace --live`).
//!
//! The programs tell of them into a ring while they are asked to, and that costs them one look at a
//! word otherwise. Ring and word belong to one load of the programs: an agent that starts has
//! programs that tell nobody.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use aya::maps::{MapData, RingBuf};
use bytemuck::Zeroable as _;
use fairlead_ebpf::abi::{
    self, EVENT_AT_POD, EVENT_AT_SOCKET, EVENT_AT_UPLINK, EVENT_REJECTED, EVENT_SERVED,
    EVENTS_BYTES, Event, LIVE_CLIENT, LIVE_INDEX, LIVE_TARGET, SCTP, TCP, UDP,
};
use fairlead_state::model::Protocol;

use crate::{
    error::{KernelError, Step},
    plan::address,
    sys::{PerCpuTable, Table},
    text::ip,
};

pub use fairlead_ebpf::abi::Reason;

/// `BPF_RINGBUF_HDR_SZ`: what stands before each entry.
const HEADER_BYTES: usize = 8;
/// Taken at once: what the ring holds. Programs may tell faster than anybody reads.
const TAKEN_MAX: usize = EVENTS_BYTES / (size_of::<Event>() + HEADER_BYTES);

/// Of which decisions is to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// One in so many; 0 and 1: of all.
    pub one_in: u32,
    /// Those of one client only.
    pub client: Option<Client>,
    /// Those about one destination only.
    pub target: Option<Target>,
}

/// A client as sockets and packets know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The source of its packets.
    pub address: IpAddr,
    /// `SO_NETNS_COOKIE` of its sockets, if it is on this node and known.
    pub netns_cookie: Option<u64>,
}

/// A destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is dialled.
    pub to: SocketAddr,
    /// By TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The counter id and own port of the Service it is, whatever address of it is dialled.
    pub service: Option<(u32, u16)>,
}

/// Where a decision was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// connect(2) or sendmsg(2) of a process of this node.
    Socket,
    /// A packet from a pod's device.
    Pod,
    /// A packet from an uplink.
    Uplink,
    /// A packet on its way out.
    Egress,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was given this backend.
    Served(SocketAddr),
    /// The client was told that nobody serves it.
    Rejected,
    /// A packet was dropped in silence; a socket was told that the host cannot be reached.
    Dropped,
}

/// Who called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As the node's own PID namespace counts.
    pub pid: u32,
    /// The name of its thread, 15 bytes at most.
    pub name: String,
    /// `SO_NETNS_COOKIE` of its socket.
    pub netns_cookie: u64,
}

/// One decision, as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Where.
    pub hook: Hook,
    /// The source of a packet; `None`: a call, whose socket may have no address yet. Port 0: not known.
    pub client: Option<SocketAddr>,
    /// Who called; `None`: a packet.
    pub caller: Option<Caller>,
    /// `None`: none that has ports, or not known.
    pub protocol: Option<Protocol>,
    /// What was dialled. Port 0: not known.
    pub dialled: SocketAddr,
    /// Key of [`crate::ProxyStatus::counter_owners`]; 0: no Service's.
    pub counter_id: u32,
    /// The Service's own port; 0: one it does not have.
    pub service_port: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was not served.
    pub reason: Option<Reason>,
}

/// The programs' end of it. One at a time reads.
pub struct Live {
    word: Table<u32, abi::Live>,
    lost: PerCpuTable<u32, u64>,
    ring: Mutex<RingBuf<MapData>>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("word", &self.word).finish_non_exhaustive()
    }
}

impl Live {
    pub(crate) fn new(
        word: Table<u32, abi::Live>,
        lost: PerCpuTable<u32, u64>,
        ring: RingBuf<MapData>,
    ) -> Self {
        Self { word, lost, ring: Mutex::new(ring) }
    }

    /// Has the programs tell of these, and of no others, from now on.
    ///
    /// # Errors
    /// The kernel does not let this process write.
    pub fn tell(&self, wanted: &Wanted) -> Result<(), KernelError> {
        self.write(&wanted.word())
    }

    /// Has them tell of nothing.
    ///
    /// # Errors
    /// As [`Live::tell`].
    pub fn stop(&self) -> Result<(), KernelError> {
        self.write(&abi::Live::zeroed())
    }

    fn write(&self, word: &abi::Live) -> Result<(), KernelError> {
        let written = self.word.put_one(&LIVE_INDEX, word);
        written.map_err(|error| KernelError::system(Step::TellLive, error))
    }

    /// Takes what was told since the last time, in order, a ringful at most. Never waits.
    pub fn take(&self) -> Vec<Told> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for _ in 0..TAKEN_MAX {
            let Some(entry) = ring.next() else { break };
            // Programs and this function are of one build: another length is no event.
            all.extend(bytemuck::try_pod_read_unaligned(&entry).ok().as_ref().map(told));
        }
        all
    }

    /// How many were not told since the programs were loaded, because nobody had taken those before.
    ///
    /// # Errors
    /// The kernel does not let this process read.
    pub fn lost(&self) -> Result<u64, KernelError> {
        let cpus = self.lost.get(&LIVE_INDEX);
        let cpus = cpus.map_err(|error| KernelError::system(Step::TellLive, error))?;
        Ok(cpus.unwrap_or_default().iter().sum())
    }
}

impl Wanted {
    fn word(&self) -> abi::Live {
        let mut word = abi::Live { one_in: self.one_in.max(1), ..abi::Live::zeroed() };
        if let Some(client) = self.client {
            word.flags |= LIVE_CLIENT;
            word.client = address(client.address);
            word.netns_cookie = client.netns_cookie.unwrap_or_default();
        }
        if let Some(target) = self.target {
            word.flags |= LIVE_TARGET;
            word.dialled = address(target.to.ip());
            word.counter_id = target.service.map(|(counter_id, _)| counter_id).unwrap_or_default();
        }
        word
    }

    /// Whether this is one of them: the programs look less closely.
    pub fn holds(&self, told: &Told) -> bool {
        self.client.is_none_or(|client| client.made(told))
            && self.target.is_none_or(|target| target.was_dialled(told))
    }

    /// What holds for either: the programs know but one.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            one_in: self.one_in.max(1).min(other.one_in.max(1)),
            client: self.client.filter(|_| self.client == other.client),
            target: self.target.filter(|_| self.target == other.target),
        }
    }
}

impl Client {
    fn made(self, told: &Told) -> bool {
        match (&told.caller, told.client) {
            (Some(caller), _) => self.netns_cookie == Some(caller.netns_cookie),
            (None, Some(source)) => source.ip() == self.address,
            (None, None) => false,
        }
    }
}

impl Target {
    fn was_dialled(self, told: &Told) -> bool {
        let is_service =
            self.service.is_some_and(|service| service == (told.counter_id, told.service_port));
        // Of what leaks out the address is all that is known.
        let is_address = told.dialled.ip() == self.to.ip()
            && (told.protocol.is_none() || told.dialled.port() == self.to.port());
        (is_service || is_address) && told.protocol.is_none_or(|of| of == self.protocol)
    }
}

fn told(event: &Event) -> Told {
    let at = |address, port| SocketAddr::new(ip(address), u16::from_be_bytes(port));
    let hook = match event.hook {
        EVENT_AT_SOCKET => Hook::Socket,
        EVENT_AT_POD => Hook::Pod,
        EVENT_AT_UPLINK => Hook::Uplink,
        _ => Hook::Egress,
    };
    let is_call = hook == Hook::Socket;
    let name = event.process.split(|byte| *byte == 0).next().unwrap_or_default();
    let caller = Caller {
        pid: event.pid,
        name: String::from_utf8_lossy(name).into_owned(),
        netns_cookie: event.netns_cookie,
    };
    Told {
        at_ns: event.at_ns,
        hook,
        client: (!is_call).then(|| at(&event.client, event.client_port)),
        caller: is_call.then_some(caller),
        protocol: match event.protocol {
            TCP => Some(Protocol::Tcp),
            UDP => Some(Protocol::Udp),
            SCTP => Some(Protocol::Sctp),
            _ => None,
        },
        dialled: at(&event.dialled, event.dialled_port),
        counter_id: event.counter_id,
        service_port: u16::from_be_bytes(event.service_port),
        outcome: match event.outcome {
            EVENT_SERVED => Outcome::Served(at(&event.backend, event.backend_port)),
            EVENT_REJECTED => Outcome::Rejected,
            _ => Outcome::Dropped,
        },
        reason: Reason::ALL.get(usize::from(event.reason)).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dials(client: &str, to: &str, service: (u32, u16)) -> Told {
        Told {
            at_ns: 1,
            hook: Hook::Uplink,
            client: Some(client.parse().unwrap()),
            caller: None,
            protocol: Some(Protocol::Tcp),
            dialled: to.parse().unwrap(),
            counter_id: service.0,
            service_port: service.1,
            outcome: Outcome::Rejected,
            reason: None,
        }
    }

    fn target(to: &str, service: Option<(u32, u16)>) -> Wanted {
        let target = Target { to: to.parse().unwrap(), protocol: Protocol::Tcp, service };
        Wanted { target: Some(target), ..Wanted::default() }
    }

    fn client(address: &str, netns_cookie: Option<u64>) -> Wanted {
        let client = Client { address: address.parse().unwrap(), netns_cookie };
        Wanted { client: Some(client), ..Wanted::default() }
    }

    #[test]
    fn one_follows_a_service_by_any_of_its_addresses_but_only_the_port_that_was_named() {
        let web = target("10.96.0.9:80", Some((7, 80)));
        let nobody = target("10.96.9.9:80", None);
        for (wanted, told, expected) in [
            (web, dials("10.0.0.1:1", "10.96.0.9:80", (7, 80)), true),
            (web, dials("10.0.0.1:1", "192.0.2.1:30080", (7, 80)), true),
            (web, dials("10.0.0.1:1", "10.96.0.9:443", (7, 443)), false),
            (web, dials("10.0.0.1:1", "10.96.0.10:80", (8, 80)), false),
            (nobody, dials("10.0.0.1:1", "10.96.9.9:80", (0, 0)), true),
            (nobody, dials("10.0.0.1:1", "10.96.9.9:81", (0, 0)), false),
            (
                web,
                Told {
                    protocol: Some(Protocol::Udp),
                    ..dials("10.0.0.1:1", "10.96.0.9:80", (7, 80))
                },
                false,
            ),
            (web, Told { protocol: None, ..dials("10.0.0.1:0", "10.96.0.9:0", (0, 0)) }, true),
        ] {
            assert_eq!(wanted.holds(&told), expected, "{wanted:?} {told:?}");
        }
    }

    #[test]
    fn one_follows_a_client_by_its_sockets_and_by_its_packets() {
        let packet = dials("10.244.1.9:1", "10.96.0.9:80", (7, 80));
        let caller = Caller { pid: 1, name: "curl".into(), netns_cookie: 5 };
        let call = Told { client: None, caller: Some(caller), ..packet.clone() };
        for (wanted, told, expected) in [
            (client("10.244.1.9", Some(5)), &packet, true),
            (client("10.244.1.8", Some(5)), &packet, false),
            (client("10.244.1.9", Some(5)), &call, true),
            (client("10.244.1.9", Some(6)), &call, false),
            (client("10.244.1.9", None), &call, false),
        ] {
            assert_eq!(wanted.holds(told), expected, "{wanted:?} {told:?}");
        }
    }

    #[test]
    fn of_two_who_follow_the_programs_are_asked_for_what_either_wants() {
        let (web, other) =
            (target("10.96.0.9:80", Some((7, 80))), target("10.96.0.10:80", Some((8, 80))));
        assert_eq!(web.or(web), Wanted { one_in: 1, ..web });
        assert_eq!(web.or(other), Wanted { one_in: 1, ..Wanted::default() });
        assert_eq!(web.or(Wanted::default()).target, None);
        let [tenth, all] = [10, 0].map(|one_in| Wanted { one_in, ..web });
        assert_eq!(tenth.or(all), Wanted { one_in: 1, ..web });
        assert_eq!(tenth.or(tenth), tenth);
    }
}
