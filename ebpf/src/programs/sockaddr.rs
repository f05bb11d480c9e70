//! The context of the socket hooks: one call, its address in either family.

use core::{marker::PhantomData, mem::offset_of};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval, generated},
    programs::SockAddrContext,
};
use fairlead_ebpf::{
    abi::{Address, DatagramFlow, FrontendKey, Reason, SocketPeer},
    packet::unmapped,
};

use super::{low_half, maps};

/// The call goes on.
pub(crate) const ALLOW: i32 = 1;
/// The call fails, with EPERM or what [`Call::refuse`] set.
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

/// How a hook's family keeps addresses in the context.
pub(crate) trait Family {
    fn address(ctx: *const bpf_sock_addr) -> Address;
    fn set_address(ctx: *mut bpf_sock_addr, address: &Address);
}

/// Hooks ending in 4.
pub(crate) enum V4 {}
/// Hooks ending in 6; IPv4 as v4-mapped passes through them, too.
pub(crate) enum V6 {}

impl Family for V4 {
    #[inline(always)]
    fn address(ctx: *const bpf_sock_addr) -> Address {
        let prefix = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        bytemuck::cast([0, 0, prefix, read(ctx, offset_of!(bpf_sock_addr, user_ip4))])
    }

    #[inline(always)]
    fn set_address(ctx: *mut bpf_sock_addr, address: &Address) {
        let word = u32::from_ne_bytes(unmapped(address));
        write(ctx, offset_of!(bpf_sock_addr, user_ip4), word);
    }
}

impl Family for V6 {
    #[inline(always)]
    fn address(ctx: *const bpf_sock_addr) -> Address {
        let word = |at: usize| read(ctx, offset_of!(bpf_sock_addr, user_ip6) + 4 * at);
        bytemuck::cast([word(0), word(1), word(2), word(3)])
    }

    #[inline(always)]
    fn set_address(ctx: *mut bpf_sock_addr, address: &Address) {
        let words: [u32; 4] = bytemuck::cast(*address);
        for (at, word) in words.into_iter().enumerate() {
            write(ctx, offset_of!(bpf_sock_addr, user_ip6) + 4 * at, word);
        }
    }
}

/// Reads a field of the context. Volatile: the verifier wants each accessed as declared, and LLVM
/// would merge neighbours.
#[inline(always)]
fn read(ctx: *const bpf_sock_addr, offset: usize) -> u32 {
    // SAFETY: the kernel's context; callers name its fields.
    let field = unsafe { ctx.byte_add(offset) }.cast::<u32>();
    // SAFETY: valid throughout the program; the verifier refuses programs that read what is no
    // field.
    unsafe { field.read_volatile() }
}

/// Writes a field of the context.
#[inline(always)]
fn write(ctx: *mut bpf_sock_addr, offset: usize, value: u32) {
    // SAFETY: the kernel's context; callers name its fields.
    let field = unsafe { ctx.byte_add(offset) }.cast::<u32>();
    // SAFETY: as for reading; the verifier refuses fields that a hook may not write.
    unsafe { field.write_volatile(value) };
}

/// One socket call.
pub(crate) struct Call<F> {
    ctx: SockAddrContext,
    family: PhantomData<F>,
}

impl<F: Family> Call<F> {
    #[inline(always)]
    pub(crate) fn new(ctx: SockAddrContext) -> Self {
        Self { ctx, family: PhantomData }
    }

    /// What is dialled, or who answered.
    #[inline(always)]
    pub(crate) fn address(&self) -> Address {
        F::address(self.ctx.sock_addr)
    }

    /// Its port, network byte order.
    #[inline(always)]
    pub(crate) fn port(&self) -> [u8; 2] {
        low_half(read(self.ctx.sock_addr, offset_of!(bpf_sock_addr, user_port))).to_ne_bytes()
    }

    /// Address, port and protocol as the key of a frontend.
    #[inline(always)]
    pub(crate) fn dialled(&self) -> FrontendKey {
        let protocol = read(self.ctx.sock_addr, offset_of!(bpf_sock_addr, protocol));
        // MPTCP's 262 is the only one beyond a byte, and it dials by TCP subflows.
        let [.., protocol] = protocol.to_be_bytes();
        FrontendKey { address: self.address(), port: self.port(), protocol, zero: 0 }
    }

    /// Replaces the address and port the call works with or shows.
    #[inline(always)]
    pub(crate) fn set(&self, address: &Address, port: [u8; 2]) {
        F::set_address(self.ctx.sock_addr, address);
        let port = u32::from(u16::from_ne_bytes(port));
        write(self.ctx.sock_addr, offset_of!(bpf_sock_addr, user_port), port);
    }

    /// Fails the call with ECONNREFUSED.
    #[inline(always)]
    pub(crate) fn refuse(&self) -> i32 {
        // SAFETY: a helper without pointers.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        DENY
    }

    /// Fails the call with EHOSTUNREACH: a packet would be dropped, and the caller wait in vain.
    #[inline(always)]
    pub(crate) fn unreachable(&self) -> i32 {
        // SAFETY: a helper without pointers.
        unsafe { bpf_set_retval(-EHOSTUNREACH) };
        DENY
    }

    /// `SO_COOKIE` of the socket.
    #[inline(always)]
    pub(crate) fn socket_cookie(&self) -> u64 {
        // SAFETY: the helper takes this program type's context.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
    }

    /// `SO_NETNS_COOKIE` of the socket.
    #[inline(always)]
    pub(crate) fn netns_cookie(&self) -> u64 {
        // SAFETY: the helper takes this program type's context.
        unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) }
    }

    /// What this socket was connected to last, if that was a service.
    #[inline(always)]
    pub(crate) fn peer(&self) -> Option<&SocketPeer> {
        // SAFETY: the socket of a valid context.
        let peer = unsafe { maps::PEERS.get_ptr_mut(&self.ctx) };
        // SAFETY: null or the socket's own storage, which lives as long as the socket.
        unsafe { peer.cast_const().as_ref() }
    }

    /// Remembers what this socket is being connected to. `false`: it has no memory for it, which is counted.
    #[inline(always)]
    pub(crate) fn set_peer(&self, mut peer: SocketPeer) -> bool {
        // SAFETY: the socket of a valid context.
        let stored = unsafe { maps::PEERS.get_or_insert_ptr_mut(&self.ctx, Some(&mut peer)) };
        if stored.is_null() {
            maps::count(Reason::PeerNotStored);
            return false;
        }
        // SAFETY: the socket's own storage; an existing one is returned as it was.
        unsafe { stored.write(peer) };
        true
    }

    /// With whom its datagrams stay while it is not connected: null, or the socket's own storage, which lives
    /// as long as the socket.
    #[inline(always)]
    pub(crate) fn flow(&self) -> *mut DatagramFlow {
        // SAFETY: the socket of a valid context.
        unsafe { maps::DATAGRAM_FLOWS.get_ptr_mut(&self.ctx) }
    }

    /// Remembers that. Without memory for it the socket's next datagram chooses as if it were the first.
    #[inline(always)]
    pub(crate) fn set_flow(&self, flow: &DatagramFlow) {
        // SAFETY: the socket of a valid context.
        let stored = unsafe { maps::DATAGRAM_FLOWS.get_or_insert_ptr_mut(&self.ctx, None) };
        if !stored.is_null() {
            // SAFETY: the socket's own storage, all zero if it is new.
            unsafe { stored.write(*flow) };
        }
    }

    /// Forgets it: the socket is being connected to something that is no service.
    #[inline(always)]
    pub(crate) fn clear_peer(&self) {
        let offset = offset_of!(bpf_sock_addr, __bindgen_anon_1);
        let field = self.ctx.sock_addr.wrapping_byte_add(offset).cast::<*mut bpf_sock>();
        // SAFETY: the kernel's context, valid throughout the program; this is where the socket is.
        let sk = unsafe { field.read_volatile() };
        let map = (&raw const maps::PEERS).cast_mut();
        // SAFETY: a map and the socket of a valid context; a socket without storage is no error.
        unsafe { generated::bpf_sk_storage_delete(map.cast(), sk.cast()) };
    }
}
