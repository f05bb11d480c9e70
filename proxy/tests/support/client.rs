//! A TCP client packet by packet, whose connection has numbers.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use fairlead_ebpf::abi::TCP;

use super::{
    frames::{ACK, Packet, SYN},
    uplink::{IN, NEXT, OUT, Uplink},
};

/// Where clients' numbers begin.
pub(crate) const CLIENTS: u32 = 1_000_000;

/// A client's connection to a backend.
pub(crate) struct Client<'a> {
    uplink: &'a Uplink,
    pub(crate) syn: Packet,
    /// Its first sequence number, and the backend's.
    pub(crate) numbers: [u32; 2],
}

impl<'a> Client<'a> {
    pub(crate) fn new(uplink: &'a Uplink, from: &str, to: &str, backend_isn: u32) -> Self {
        let payload = vec![];
        let syn = Packet { payload, ..Packet::first(TCP, from, to) };
        Self { uplink, syn, numbers: [CLIENTS, backend_isn] }
    }

    /// A packet of the client's, as the backend gets it; `None`: no entry leads it there.
    pub(crate) fn says(&self, flags: u8, acknowledged: u32) -> Option<Packet> {
        let sequence = self.numbers[0].wrapping_add(u32::from(flags & SYN == 0));
        self.sends(flags, [sequence, acknowledged])
    }

    /// The same with this sequence number.
    pub(crate) fn sends(&self, flags: u8, numbers: [u32; 2]) -> Option<Packet> {
        let packet = Packet { flags, ..self.syn.clone() };
        let met = self.through(&packet, numbers);
        (met.to != self.syn.to).then_some(met)
    }

    /// What the backend answers, as the client would get it.
    pub(crate) fn hears(&self, at_backend: &Packet, flags: u8, numbers: [u32; 2]) -> Packet {
        let answer = Packet { flags, ..at_backend.reply() };
        self.through(&answer, numbers)
    }

    fn through(&self, packet: &Packet, [sequence, acknowledged]: [u32; 2]) -> Packet {
        let mut frame = numbered(packet, sequence, acknowledged);
        for hook in [IN, OUT] {
            let run = self.uplink.kernel.run_on_packet(hook, &frame, 1).expect("it runs");
            assert_eq!(run.verdict, NEXT, "{hook} {packet:?}");
            frame = run.packet;
        }
        Packet::read(&frame)
    }

    /// SYN and SYN ACK; the packet as the backend got it.
    pub(crate) fn begin(&self) -> Packet {
        let [own, backends] = self.numbers;
        let met = self.says(SYN, 0).expect("a service's");
        self.hears(&met, SYN | ACK, [backends, own.wrapping_add(1)]);
        met
    }

    /// The last packet as the backend got it.
    pub(crate) fn open(&self) -> Packet {
        self.begin();
        self.goes_on()
    }

    /// Client and backend meet each other by the Service's address; the packet as the backend got it.
    pub(crate) fn goes_on(&self) -> Packet {
        let [own, backends] = self.next();
        let met = self.says(ACK, backends).expect("its entries are there");
        let seen = self.hears(&met, ACK, [backends, own]);
        assert_eq!((seen.from, seen.to), (self.syn.to, self.syn.from));
        met
    }

    /// The numbers that each side waits for, as long as nobody has sent data.
    pub(crate) fn next(&self) -> [u32; 2] {
        self.numbers.map(|number| number.wrapping_add(1))
    }
}

/// The frame of a packet at this place in its connection.
fn numbered(packet: &Packet, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let frame = packet.frame();
    let headers = if packet.from.is_ipv4() { 34 } else { 54 };
    [&frame[..headers], &packet.segment(sequence, acknowledged)].concat()
}
