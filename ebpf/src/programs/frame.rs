//! Frames: read into a tuple, rewritten to another.

mod error;
mod intact;
mod read;
mod rewrite;

use aya_ebpf::programs::TcContext;
use bytemuck::Zeroable;
use fairlead_ebpf::{
    abi::{Address, Connection, SCTP, TCP, Tuple, UDP},
    connection::News,
    packet::{self, Ip, Segment, Skip},
};

use super::live::Account;

pub(crate) use self::intact::Block;

/// Linux 6.16 (ead7f9b8de65) and stable kernels since: without it an IPv6 address change spoils
/// the sum of devices that report CHECKSUM_COMPLETE.
const BPF_F_IPV6: u64 = 1 << 7;

/// A packet that may be a service's, and where its parts are.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(crate) struct Frame {
    /// Of an ICMP error, the way back of the packet it is about.
    pub(crate) tuple: Tuple,
    /// The entry for it, or what is made of it if it opens a connection.
    pub(crate) found: Connection,
    /// What was decided about it if it opens a connection.
    pub(crate) account: Account,
    /// Its TCP header, once it has met an entry.
    pub(crate) segment: Segment,
    /// What it tells of the connection it belongs to.
    pub(crate) news: News,
    /// Whether that was settled before: 1, or 0.
    pub(crate) was_settled: u32,
    /// Whether the entry it has met has met no other packet in this tick: 1, or 0.
    pub(crate) is_first_in_tick: u32,
    /// Whether it is of a flow that has lost some of its entries: 1, or 0.
    pub(crate) is_torn: u32,
    /// The header it begins with.
    ip: Ip,
    /// Of an ICMP error, the header of the packet it is about.
    quoted: Ip,
    /// 4 or 6.
    version: u32,
    /// Where the IP header starts.
    network: u32,
    /// Where the transport header starts.
    transport: u32,
    /// Where the IP packet ends, as it says itself.
    end: u32,
    /// Of an ICMP error, where the packet it is about starts.
    inner: u32,
    /// Where the transport header of that packet starts.
    inner_transport: u32,
    /// One of `KIND_*`.
    kind: u32,
}

/// Has a transport header.
const KIND_WHOLE: u32 = 0;
/// A fragment after the first: ports are known, but not in it.
const KIND_LATER: u32 = 1;
/// An ICMP error about a packet that has ports.
const KIND_ERROR: u32 = 2;
/// An ICMP echo request: port 0.
const KIND_PING: u32 = 3;

impl Frame {
    /// Whether the packet may be the first of a connection.
    #[inline(always)]
    pub(crate) fn is_opening(&self, ctx: &TcContext) -> Result<bool, Skip> {
        match self.kind {
            KIND_LATER | KIND_ERROR => return Ok(false),
            KIND_PING => return Ok(true),
            _ => {}
        }
        match self.tuple.protocol {
            UDP => Ok(true),
            SCTP => Ok(load::<1>(ctx, self.transport() + packet::SCTP_CHUNK)? == [packet::INIT]),
            _ => {
                let [flags]: [u8; 1] = load(ctx, self.transport() + packet::TCP_FLAGS)?;
                Ok(packet::opens_connection(flags))
            }
        }
    }

    /// Whether it has the header of a datagram.
    #[inline(always)]
    pub(crate) fn is_datagram(&self) -> bool {
        self.kind == KIND_WHOLE && self.tuple.protocol == UDP
    }

    /// Numbers and flags, if there is a TCP header.
    #[inline(always)]
    pub(crate) fn read_segment(&self, ctx: &TcContext) -> Segment {
        if self.kind != KIND_WHOLE || self.tuple.protocol != TCP {
            return Segment::NONE;
        }
        load(ctx, self.transport() + packet::TCP_SEQUENCE).map_or(Segment::NONE, Segment::read)
    }

    /// The number by which the packet's receiver can show that it has had it: TCP's sequence number, or the tag that an
    /// SCTP endpoint asks for as it accepts (RFC 9260 §3.3.3).
    #[inline(always)]
    pub(crate) fn answer_number(&self, ctx: &TcContext) -> Option<u32> {
        if self.kind != KIND_WHOLE {
            return None;
        }
        if self.tuple.protocol == SCTP
            && load(ctx, self.transport() + packet::SCTP_CHUNK) != Ok([packet::INIT_ACK])
        {
            return None;
        }
        let at = if self.tuple.protocol == SCTP {
            packet::SCTP_INITIATE_TAG
        } else {
            packet::TCP_SEQUENCE
        };
        load(ctx, self.transport() + at).map(u32::from_be_bytes).ok()
    }

    /// What a packet names of its sender's last answer: what TCP acknowledges, or SCTP's tag.
    #[inline(always)]
    pub(crate) fn named_number(&self, ctx: &TcContext) -> Option<u32> {
        if self.kind != KIND_WHOLE {
            return None;
        }
        let at =
            if self.tuple.protocol == SCTP { packet::SCTP_TAG } else { packet::TCP_ACKNOWLEDGED };
        load(ctx, self.transport() + at).map(u32::from_be_bytes).ok()
    }

    /// Where the packet itself is bound for, if it is of IP.
    #[inline(always)]
    pub(crate) fn destination(&self, ctx: &TcContext) -> Option<Address> {
        match self.version {
            4 => {
                let at = self.network() + packet::IPV4_SOURCE + 4;
                load(ctx, at).ok().map(packet::mapped)
            }
            6 => load(ctx, self.network() + packet::IPV6_SOURCE + 16).ok(),
            _ => None,
        }
    }

    /// Where it says it comes from, and where it is bound for.
    #[inline(always)]
    pub(crate) fn addresses(&self, ctx: &TcContext) -> Option<[Address; 2]> {
        match self.version {
            4 => {
                let both = load::<8>(ctx, self.network() + packet::IPV4_SOURCE).ok()?;
                let both: [[u8; 4]; 2] = bytemuck::cast(both);
                Some(both.map(packet::mapped))
            }
            6 => {
                let both = load::<32>(ctx, self.network() + packet::IPV6_SOURCE).ok()?;
                Some(bytemuck::cast(both))
            }
            _ => None,
        }
    }

    /// Whether this is an ICMP error about the tuple.
    #[inline(always)]
    pub(crate) fn is_error(&self) -> bool {
        self.kind == KIND_ERROR
    }

    #[inline(always)]
    pub(super) fn is_ipv4(&self) -> bool {
        self.version == 4
    }

    #[inline(always)]
    pub(super) fn network(&self) -> usize {
        self.network as usize
    }

    /// Whether a device's header is in front of the packet.
    #[inline(always)]
    pub(super) fn has_stations(&self) -> bool {
        self.network != 0
    }

    #[inline(always)]
    pub(super) fn transport(&self) -> usize {
        self.transport as usize
    }

    #[inline(always)]
    pub(super) fn end(&self) -> usize {
        self.end as usize
    }

    /// Bytes of the packet, headers included. What is longer than a header can say was merged of segments.
    #[inline(always)]
    pub(super) fn ip_len(&self, ctx: &TcContext) -> u32 {
        let len = ctx.len().wrapping_sub(self.network);
        if len > read::IPV4_LEN_MAX { len } else { self.end.wrapping_sub(self.network) }
    }

    /// Bytes from the transport header to the end of the packet.
    #[inline(always)]
    pub(super) fn transport_len(&self) -> u32 {
        self.end.wrapping_sub(self.transport)
    }
}

#[inline(always)]
pub(super) fn load<const LEN: usize>(ctx: &TcContext, offset: usize) -> Result<[u8; LEN], Skip> {
    // The helper refuses what is cut short.
    ctx.load(offset).map_err(|_| Skip::Malformed)
}
