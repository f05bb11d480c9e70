//! How many connections each client's address has, on all threads.
//!
//! Whoever keeps many open by saying little takes room from everybody: each is given up in its time, but
//! that begins anew with each byte, as nginx has it (client_body_timeout, client_header_timeout). nginx's
//! limit_conn is of one server; this is of all connections, before TLS, and known by no host.

use std::{
    collections::{
        HashMap,
        hash_map::{Entry, RandomState},
    },
    hash::BuildHasher,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::config::IngressConfig;

/// Threads that open and close connections at once rarely meet.
const SHARDS: usize = 64;
/// One peer's connections whose PROXY headers have not come are such a part of all that are taken. Nobody knows yet
/// whose they are, and a balancer that is not named may open many at once; none of them waits long for its
/// header.
const HEADERLESS_PART: usize = 8;
/// Of an IPv6 address. A client has that many at least (RFC 6177), and may take another one each time.
const NETWORK_BITS: u32 = 64;

/// Connections by address; those of none are forgotten.
#[derive(Debug)]
pub(crate) struct Addresses {
    max: NonZeroUsize,
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
}

/// One connection of an address, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Arc<Addresses>,
    client: IpAddr,
}

/// A client has all the connections it may have.
#[derive(Debug)]
pub(crate) struct Full;

impl Addresses {
    /// Each may have so many.
    pub(crate) fn new(max: NonZeroUsize) -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { max, hasher: RandomState::new(), shards })
    }

    /// Each peer may have so many whose PROXY headers have not come.
    pub(crate) fn headerless(connections_max: usize) -> Arc<Self> {
        let max = NonZeroUsize::new(connections_max / HEADERLESS_PART);
        Self::new(max.unwrap_or(NonZeroUsize::MIN))
    }

    /// A seat for one of this client's connections, where they are counted; a balancer whose clients are believed to be
    /// others has as many as they have.
    ///
    /// # Errors
    /// The client has all that it may have.
    pub(crate) fn seat(
        addresses: Option<&Arc<Self>>,
        config: &IngressConfig,
        client: IpAddr,
    ) -> Result<Option<Seat>, Full> {
        let counted = addresses.filter(|_| !config.is_balancer(client.to_canonical()));
        counted.map(|addresses| addresses.take(client).ok_or(Full)).transpose()
    }

    /// `None`: the address has all that it may have.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Seat> {
        let client = network(client);
        let mut shard = self.shard(client)?;
        let taken = shard.entry(client).or_default();
        if *taken >= self.max.get() {
            return None;
        }
        *taken += 1;
        drop(shard);
        Some(Seat { addresses: self.clone(), client })
    }

    /// Always there.
    fn shard(&self, client: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, usize>>> {
        let place = self.hasher.hash_one(client) % SHARDS as u64;
        let shard = self.shards.get(usize::try_from(place).ok()?)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(mut shard) = self.addresses.shard(self.client) else { return };
        if let Entry::Occupied(mut taken) = shard.entry(self.client) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => {
            let host_bits = u128::BITS - NETWORK_BITS;
            Ipv6Addr::from_bits(ip.to_bits() >> host_bits << host_bits).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_and_what_ends_makes_room() {
        let addresses = Addresses::new(NonZeroUsize::new(2).unwrap());
        for (client, same, other) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            // As a socket of both families has it.
            ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8:0:1::1"),
        ] {
            let first = addresses.take(ip(client)).unwrap();
            let second = addresses.take(ip(same)).unwrap();
            assert!(addresses.take(ip(client)).is_none() && addresses.take(ip(same)).is_none());
            assert!(addresses.take(ip(other)).is_some(), "{other}");
            drop(first);
            let third = addresses.take(ip(client)).unwrap();
            assert!(addresses.take(ip(same)).is_none(), "{same}");
            drop((second, third));
        }
        let known = |shard: &Mutex<HashMap<_, _>>| shard.lock().unwrap().len();
        assert_eq!(addresses.shards.iter().map(known).sum::<usize>(), 0, "all are gone");
    }
}
