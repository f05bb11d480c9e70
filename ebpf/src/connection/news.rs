//! What packets tell of their connection: that it is real, that it ends, and whether that may be believed.
//!
//! Ends know each other's numbers; who forges packets does not, as long as no answer comes to them. So an entry for TCP
//! keeps one number of its direction, in the place of the set that an established connection does not need.

use bytemuck::Zeroable;

use crate::abi::{
    CONNECTION_ACKNOWLEDGED, CONNECTION_ANSWERED, CONNECTION_ASKED, CONNECTION_ASSURED,
    CONNECTION_DOUBTED, CONNECTION_FIN, CONNECTION_NUMBERED, CONNECTION_OTHER_FIN,
    CONNECTION_RESET, CONNECTION_UNANSWERED, Connection, SCTP, TCP,
};
use crate::packet::{ACK, FIN, RST, SYN, Segment, opens_connection};

/// What a backend may have sent before the client's first word, in bytes: as much as a SYN can offer room for, whose
/// window is not scaled (RFC 7323 §2.2). Of acknowledgements that somebody guesses one in 65,536 is in it.
const ANSWER_MAX: u32 = 1 << 16;
/// So far beyond what the other side acknowledged last may a reset be, in bytes: data before it may be on its way. Who is
/// met there by a forged one has a window for it, and answers at once (RFC 5961 §3.2).
const AHEAD_MAX: u32 = 1 << 16;
/// Of a connection that a first packet has met.
const QUESTION: u16 = CONNECTION_ASKED | CONNECTION_UNANSWERED;

/// Whether a reset may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its sender does not know the connection's numbers.
    No,
    /// Until one of both sides goes on.
    Doubtful,
    /// It names the very number its receiver waits for, who ends by it (RFC 5961 §3.2).
    Certain,
}

/// What a packet changes in the state of the entry it has met, and in its twin's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
pub struct News {
    /// What the entry's state gets.
    pub own: u16,
    /// What it loses.
    pub own_gone: u16,
    /// What the twin's state gets.
    pub twins: u16,
    /// What it loses.
    pub twins_gone: u16,
}

impl News {
    /// Nothing, as of nearly every packet.
    pub const NONE: Self = Self { own: 0, own_gone: 0, twins: 0, twins_gone: 0 };

    /// Takes up more.
    #[inline(always)]
    pub fn add(&mut self, more: Self) {
        self.own |= more.own;
        self.own_gone |= more.own_gone;
        self.twins |= more.twins;
        self.twins_gone |= more.twins_gone;
    }

    const fn both(here: u16, gone: u16) -> Self {
        Self { own: here, own_gone: gone, twins: here, twins_gone: gone }
    }
}

impl Trust {
    /// A reset is told each time: the twin may have met a packet that was on its way, and taken the first one for forged.
    #[inline(always)]
    pub const fn news(self) -> News {
        match self {
            Self::No => News::NONE,
            Self::Doubtful => News::both(CONNECTION_RESET | CONNECTION_DOUBTED, 0),
            Self::Certain => News::both(CONNECTION_RESET, CONNECTION_DOUBTED),
        }
    }
}

impl Connection {
    /// Leaves an answer's number in the entry for replies, where the client's next packets are measured by it.
    #[inline(always)]
    pub fn number(&mut self, number: u32) {
        self.set_id = number;
        self.state |= CONNECTION_NUMBERED;
    }

    /// Whether who says `named` has had the answer whose number is in this entry for replies. Of TCP it is what a packet
    /// acknowledges, of SCTP its tag.
    #[inline(always)]
    pub fn is_known_by(&self, protocol: u8, named: u32) -> bool {
        let beyond = named.wrapping_sub(self.set_id);
        let most = if protocol == SCTP { 0 } else { ANSWER_MAX };
        self.state & CONNECTION_NUMBERED != 0 && beyond <= most
    }

    /// Leaves what this direction has acknowledged, by which the other one's resets are measured.
    #[inline(always)]
    pub fn acknowledge(&mut self, number: u32) {
        const NUMBERED: u16 = CONNECTION_NUMBERED | CONNECTION_ACKNOWLEDGED;
        // Mostly it is the same again: what is not written stays in the caches of other CPUs.
        if self.set_id != number {
            self.set_id = number;
        }
        if self.state & NUMBERED != NUMBERED {
            self.state |= NUMBERED;
        }
    }

    /// Takes up what this direction's segment acknowledges, once both ends are known to be real: before that, the number is
    /// the answer's own.
    #[inline(always)]
    pub fn follow(&mut self, segment: &Segment) {
        if segment.flags & (ACK | SYN | RST) == ACK && self.is_assured() {
            self.acknowledge(segment.acknowledged);
        }
    }

    /// The backend is of this set, by whatever the connection was known before.
    #[inline(always)]
    pub fn belong(&mut self, set_id: u32) {
        self.set_id = set_id;
        self.state &= !(CONNECTION_NUMBERED | CONNECTION_ACKNOWLEDGED);
    }

    /// What a packet with these TCP flags (0 for others) adds, apart from a reset. `is_proof`: only who has had an answer can
    /// have sent it.
    #[inline(always)]
    pub fn news(&self, tcp_flags: u8, is_proof: bool) -> News {
        let (mut own, mut twins) = (0, 0);
        if self.is_reply() {
            own |= CONNECTION_ANSWERED;
            twins |= CONNECTION_ANSWERED;
        } else if (is_proof || self.is_assured()) && !opens_connection(tcp_flags) {
            own |= CONNECTION_ASSURED;
            twins |= CONNECTION_ASSURED;
        }
        if tcp_flags & FIN != 0 {
            own |= CONNECTION_FIN;
            twins |= CONNECTION_OTHER_FIN;
        }
        if own & !self.state == 0 {
            return News::NONE;
        }
        News { own, twins, ..News::NONE }
    }

    /// What a reset of the other direction is worth, where this entry is its twin.
    ///
    /// What a SYN asks for that met an open connection is refused by the number that acknowledges it (RFC 9293 §3.10.7.1).
    #[inline(always)]
    pub fn trust(&self, reset: &Segment) -> Trust {
        if self.state & CONNECTION_NUMBERED == 0 {
            return Trust::Doubtful;
        }
        if !self.is_reply() && self.state & CONNECTION_ASKED != 0 {
            let is_refusal = reset.flags & ACK != 0 && reset.acknowledged == self.set_id;
            return if is_refusal { Trust::Certain } else { Trust::Doubtful };
        }
        if self.state & CONNECTION_ACKNOWLEDGED == 0 {
            return Trust::Doubtful;
        }
        match reset.sequence.wrapping_sub(self.set_id) {
            0 => Trust::Certain,
            1..=AHEAD_MAX => Trust::Doubtful,
            _ => Trust::No,
        }
    }

    /// Whether a packet that goes on may change more than its time.
    #[inline(always)]
    pub fn is_in_question(&self) -> bool {
        self.state & (CONNECTION_RESET | CONNECTION_ASKED) != 0
    }

    /// What a packet that neither opens nor breaks off takes back. After a reset that its receiver must have believed, what
    /// the other side says was on its way.
    #[inline(always)]
    pub fn going_on(&self) -> News {
        let doubted = match self.state & CONNECTION_DOUBTED {
            0 => 0,
            _ => CONNECTION_RESET | CONNECTION_DOUBTED,
        };
        let both = QUESTION | doubted;
        News { own_gone: both | CONNECTION_RESET, twins_gone: both, ..News::NONE }
    }

    /// A first packet meets this open connection's entry for requests: its backend is asked whether it still knows it.
    /// `is_silent`: of the packet before this one there is no answer, and it was not just now.
    #[inline(always)]
    pub fn ask(&mut self, protocol: u8, sequence: u32, is_silent: bool) -> News {
        let is_unanswered = self.state & CONNECTION_ASKED != 0 && is_silent;
        if protocol == TCP {
            self.number(sequence.wrapping_add(1));
            self.state &= !CONNECTION_ACKNOWLEDGED;
        }
        let own = if is_unanswered { QUESTION } else { CONNECTION_ASKED };
        News { own, twins: CONNECTION_ASKED, ..News::NONE }
    }
}

#[cfg(test)]
mod tests;
