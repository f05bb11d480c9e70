//! ICMP errors: translated like the packet they are about, and inside (RFC 5508 §4.2).

use aya_ebpf::{bindings::BPF_F_PSEUDO_HDR, programs::TcContext};
use fairlead_ebpf::{
    abi::{Address, Connection, INGRESS},
    packet,
};

use super::{BPF_F_IPV6, Frame, load, rewrite::replace_port};

impl Frame {
    /// Translates an error as `connection` does packets that go the error's way. The packet
    /// inside went the other way: where those get another destination, it had another source.
    /// Its own transport checksum is left: it is cut off or nobody's to check.
    #[inline(never)]
    pub(crate) fn rewrite_error(
        &self,
        ctx: &TcContext,
        connection: &Connection,
    ) -> Result<(), i64> {
        let is_ingress = self.tuple.hook == INGRESS;
        let inner = self.inner as usize;
        let old = if is_ingress { &self.tuple.destination } else { &self.tuple.source };
        let new = &connection.address;
        let sum = self.transport() + packet::ICMP_CHECKSUM;
        if self.is_ipv4() {
            let at = |is_source: bool| packet::IPV4_SOURCE + if is_source { 0 } else { 4 };
            let outer_at = self.network() + at(!is_ingress);
            let outer = load(ctx, outer_at).map_err(|_| -1)?;
            let difference = packet::difference(&packet::mapped(outer), new);
            let ip_sum = self.network() + packet::IPV4_CHECKSUM;
            ctx.l3_csum_replace(ip_sum, 0, difference.into(), 0)?;
            ctx.store(outer_at, &packet::unmapped(new), 0)?;
            // What the address adds to the message's sum, the header's own sum takes from it.
            let difference = packet::difference(old, new);
            ctx.l3_csum_replace(inner + packet::IPV4_CHECKSUM, 0, difference.into(), 0)?;
            ctx.store(inner + at(is_ingress), &packet::unmapped(new), 0)?;
        } else {
            let at = |is_source: bool| packet::IPV6_SOURCE + if is_source { 0 } else { 16 };
            let outer_at = self.network() + at(!is_ingress);
            let outer: Address = load(ctx, outer_at).map_err(|_| -1)?;
            let difference = u64::from(packet::difference(&outer, new));
            let flags = u64::from(BPF_F_PSEUDO_HDR);
            if ctx.l4_csum_replace(sum, 0, difference, flags | BPF_F_IPV6).is_err() {
                ctx.l4_csum_replace(sum, 0, difference, flags)?;
            }
            ctx.store(outer_at, new, 0)?;
            let difference = packet::difference(old, new);
            ctx.l4_csum_replace(sum, 0, difference.into(), 0)?;
            ctx.store(inner + at(is_ingress), new, 0)?;
        }
        let Connection { source_port, destination_port, .. } = connection;
        let (inside, sum) = (self.inner_transport as usize, (sum, 0));
        replace_port(ctx, inside, sum, self.tuple.destination_port, *destination_port)?;
        replace_port(ctx, inside + 2, sum, self.tuple.source_port, *source_port)
    }
}
