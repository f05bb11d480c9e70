//! The context of the socket hooks: one call, its address in either family.

use core::marker::PhantomData;

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval, generated},
    programs::SockAddrContext,
};
use fairlead_ebpf::{
    abi::{Address, FrontendKey, Reason, SocketPeer},
    packet::{mapped, unmapped},
};

use super::maps;

/// The call goes on.
pub(crate) const ALLOW: i32 = 1;
/// The call fails, with EPERM or what [`Call::refuse`] set.
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// How a hook's family keeps addresses in the context.
pub(crate) trait Family {
    fn address(ctx: *const bpf_sock_addr) -> Address;
    fn set_address(ctx: *mut bpf_sock_addr, address: &Address);
}

/// Hooks ending in 4.
pub(crate) enum V4 {}
/// Hooks ending in 6; IPv4 as v4-mapped passes through them, too.
pub(crate) enum V6 {}

// Volatile throughout: the verifier wants each context field accessed as declared, and LLVM would
// merge neighbours.
impl Family for V4 {
    #[inline(always)]
    fn address(ctx: *const bpf_sock_addr) -> Address {
        // SAFETY: the kernel's context, valid throughout the program; the field is readable.
        mapped(unsafe { (&raw const (*ctx).user_ip4).read_volatile() }.to_ne_bytes())
    }

    #[inline(always)]
    fn set_address(ctx: *mut bpf_sock_addr, address: &Address) {
        let word = u32::from_ne_bytes(unmapped(address));
        // SAFETY: as above; the field is writable in every hook of this family.
        unsafe { (&raw mut (*ctx).user_ip4).write_volatile(word) };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn address(ctx: *const bpf_sock_addr) -> Address {
        // SAFETY: the kernel's context, valid throughout the program.
        let first = unsafe { (&raw const (*ctx).user_ip6).cast::<u32>() };
        let word = |at: usize| {
            // SAFETY: the field is four words long and readable.
            unsafe { first.wrapping_add(at).read_volatile() }
        };
        bytemuck::cast([word(0), word(1), word(2), word(3)])
    }

    #[inline(always)]
    fn set_address(ctx: *mut bpf_sock_addr, address: &Address) {
        // SAFETY: the kernel's context, valid throughout the program.
        let first = unsafe { (&raw mut (*ctx).user_ip6).cast::<u32>() };
        let words: [u32; 4] = bytemuck::cast(*address);
        for (at, word) in words.into_iter().enumerate() {
            // SAFETY: the field is four words long and writable in every hook of this family.
            unsafe { first.wrapping_add(at).write_volatile(word) };
        }
    }
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
        // SAFETY: the kernel's context, valid throughout the program; the field is readable.
        let port = unsafe { (&raw const (*self.ctx.sock_addr).user_port).read_volatile() };
        let [low, high, ..] = port.to_ne_bytes();
        if cfg!(target_endian = "little") { [low, high] } else { (port as u16).to_ne_bytes() }
    }

    /// Address, port and protocol as the key of a frontend.
    #[inline(always)]
    pub(crate) fn dialled(&self) -> FrontendKey {
        // SAFETY: the kernel's context, valid throughout the program; the field is readable.
        let protocol = unsafe { (&raw const (*self.ctx.sock_addr).protocol).read_volatile() };
        // Protocols beyond 255 (MPTCP) have no services; 255 has none either.
        let protocol = if protocol > 255 { 255 } else { protocol as u8 };
        FrontendKey { address: self.address(), port: self.port(), protocol, zero: 0 }
    }

    /// Replaces the address and port the call works with or shows.
    #[inline(always)]
    pub(crate) fn set(&self, address: &Address, port: [u8; 2]) {
        F::set_address(self.ctx.sock_addr, address);
        let port = u32::from(u16::from_ne_bytes(port));
        // SAFETY: the kernel's context, valid throughout the program; the field is writable.
        unsafe { (&raw mut (*self.ctx.sock_addr).user_port).write_volatile(port) };
    }

    /// Fails the call with ECONNREFUSED.
    #[inline(always)]
    pub(crate) fn refuse(&self) -> i32 {
        // SAFETY: a helper without pointers.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
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

    /// Remembers what this socket is being connected to.
    #[inline(always)]
    pub(crate) fn set_peer(&self, mut peer: SocketPeer) {
        // SAFETY: the socket of a valid context.
        let stored = unsafe { maps::PEERS.get_or_insert_ptr_mut(&self.ctx, Some(&mut peer)) };
        if stored.is_null() {
            maps::count(Reason::PeerNotStored);
            return;
        }
        // SAFETY: the socket's own storage; an existing one is returned as it was.
        unsafe { stored.write(peer) };
    }

    /// Forgets it: the socket is being connected to something that is no service.
    #[inline(always)]
    pub(crate) fn clear_peer(&self) {
        // SAFETY: the kernel's context, valid throughout the program.
        let sk = unsafe { (&raw const (*self.ctx.sock_addr).__bindgen_anon_1.sk).read_volatile() };
        let map = (&raw const maps::PEERS).cast_mut();
        // SAFETY: a map and the socket of a valid context; a socket without storage is no error.
        unsafe { generated::bpf_sk_storage_delete(map.cast(), sk.cast()) };
    }
}
