//! Requests and connections of each client address, counted for one Ingress by all threads
//! (nginx: limit_req as a leaky bucket without delay, limit_conn).

use std::{
    collections::HashMap,
    hash::BuildHasher,
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use fairlead_state::Name;

use crate::{
    fair::{Lease, Room},
    routes::Throttle,
};

const SHARDS: usize = 16;
/// Addresses remembered per shard: 65,536 in all, as many as fit into ingress-nginx's 5 MB.
const CLIENTS_PER_SHARD_MAX: usize = 4096;
/// A shard has room for so many addresses in any case, and gets more by as many.
const BLOCK_CLIENTS: usize = 64;
/// Addresses remembered for all Ingresses beyond that, each about 64 bytes.
const OF_ALL_CLIENTS_MAX: usize = 1 << 20;
/// Between two looks for quiet clients in a full shard.
const SWEEP_PAUSE_MS: u64 = 1000;
/// One request, in the unit buckets are counted in.
const REQUEST: u64 = 1000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static OF_ALL: LazyLock<Room> = LazyLock::new(|| Room::new(OF_ALL_CLIENTS_MAX));

/// The counts of one Ingress. Kept when the Ingress changes and its limits do not.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Throttle,
    shards: [Mutex<Shard>; SHARDS],
    hasher: std::hash::RandomState,
    namespace: Name,
    room: Room,
}

#[derive(Debug, Default)]
struct Shard {
    clients: HashMap<IpAddr, Client>,
    /// A block each.
    leases: Vec<Lease>,
    /// When those that are quiet were last looked for. A flood of addresses must not cost a look at
    /// all of them for each.
    swept_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    second: Bucket,
    minute: Bucket,
    connections: u32,
}

/// Thousandths of requests above the rate, as of a time.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    excess: u64,
    at_ms: u64,
}

/// Why a request is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMuch {
    Requests,
    Connections,
}

/// One request in service; it is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    limiter: Arc<Limiter>,
    client: IpAddr,
}

impl Bucket {
    /// After one more request at a rate of thousandths per second.
    fn plus_one(self, rate: u64, now_ms: u64) -> Self {
        let leaked = rate.saturating_mul(now_ms.saturating_sub(self.at_ms)) / 1000;
        let excess = (self.excess + REQUEST).saturating_sub(leaked);
        // The very first request is none above the rate.
        let excess = if self.at_ms == 0 { 0 } else { excess };
        Self { excess, at_ms: now_ms }
    }

    /// Without a rate nothing is counted.
    fn counted(self, rate: u64, now_ms: u64) -> Self {
        if rate == 0 { self } else { self.plus_one(rate, now_ms) }
    }

    fn is_empty(self, rate: u64, now_ms: u64) -> bool {
        self.plus_one(rate, now_ms).excess <= REQUEST
    }
}

impl Shard {
    fn is_full(&self) -> bool {
        self.clients.len() >= BLOCK_CLIENTS * (1 + self.leases.len())
    }

    fn grow(&mut self, room: &Room, namespace: &Name) {
        if self.clients.len() < CLIENTS_PER_SHARD_MAX {
            self.leases.extend(room.lease(namespace, BLOCK_CLIENTS));
        }
    }
}

impl Limiter {
    /// Of an Ingress of this namespace.
    pub(crate) fn new(limits: Throttle, namespace: Name) -> Self {
        Self::within(OF_ALL.clone(), limits, namespace)
    }

    fn within(room: Room, limits: Throttle, namespace: Name) -> Self {
        Self { limits, shards: Default::default(), hasher: Default::default(), namespace, room }
    }

    pub(crate) fn limits(&self) -> &Throttle {
        &self.limits
    }

    /// Counts a request; `Ok(None)`: this client is not counted.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr) -> Result<Option<Slot>, TooMuch> {
        // A bucket's time is never 0.
        let now_ms = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        self.enter_at(client, now_ms)
    }

    fn enter_at(self: &Arc<Self>, client: IpAddr, now_ms: u64) -> Result<Option<Slot>, TooMuch> {
        if self.limits.exempts(client) {
            return Ok(None);
        }
        let mut shard = self.shard(client);
        if shard.is_full() && !shard.clients.contains_key(&client) {
            shard.grow(&self.room, &self.namespace);
            self.make_room(&mut shard, now_ms)?;
        }
        let counted = shard.clients.entry(client).or_default();
        let limits = &self.limits;
        if limits.connections > 0 && counted.connections >= limits.connections {
            return Err(TooMuch::Connections);
        }
        let second = counted.second.counted(per_second(limits.per_second), now_ms);
        let minute = counted.minute.counted(per_minute(limits.per_minute), now_ms);
        let is_over = |limit: u32, bucket: Bucket| {
            limit > 0 && bucket.excess > limits.burst(limit).saturating_mul(REQUEST)
        };
        if is_over(limits.per_second, second) || is_over(limits.per_minute, minute) {
            return Err(TooMuch::Requests);
        }
        *counted = Client { second, minute, connections: counted.connections + 1 };
        Ok(Some(Slot { limiter: self.clone(), client }))
    }

    /// Forgets who has not asked for long; if there is nobody, whoever has nothing in service.
    fn make_room(&self, shard: &mut Shard, now_ms: u64) -> Result<(), TooMuch> {
        if !shard.is_full() {
            return Ok(());
        }
        if now_ms >= shard.swept_ms + SWEEP_PAUSE_MS {
            shard.swept_ms = now_ms;
            let (second, minute) =
                (per_second(self.limits.per_second), per_minute(self.limits.per_minute));
            shard.clients.retain(|_, client| {
                let is_quiet = client.second.is_empty(second, now_ms)
                    && client.minute.is_empty(minute, now_ms);
                client.connections > 0 || !is_quiet
            });
        }
        if shard.is_full() {
            let mut clients = shard.clients.iter();
            let unused = clients.find(|(_, client)| client.connections == 0);
            let unused = unused.map(|(address, _)| *address).ok_or(TooMuch::Connections)?;
            shard.clients.remove(&unused);
        }
        Ok(())
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(client);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        // Counts are as good as before a panic of whoever held them.
        self.shards.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn per_second(limit: u32) -> u64 {
    u64::from(limit) * REQUEST
}

fn per_minute(limit: u32) -> u64 {
    u64::from(limit) * REQUEST / 60
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(client) = self.limiter.shard(self.client).clients.get_mut(&self.client) {
            client.connections = client.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(annotations: &[(&str, &str)]) -> Throttle {
        let mut throttle = Throttle::default();
        for (name, value) in annotations {
            throttle.set(name, value);
        }
        throttle
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    /// Requests let through of `count` at these times.
    fn let_through(limits: &[(&str, &str)], times_ms: impl Iterator<Item = u64>) -> usize {
        let limiter = limiter(limits);
        times_ms.filter(|now| limiter.enter_at(address(1), *now).is_ok()).count()
    }

    #[test]
    fn a_burst_and_then_the_rate_as_nginx_counts() {
        let rps = ("limit-rps", "2");
        // One, and five times two above it.
        assert_eq!(let_through(&[rps], std::iter::repeat_n(1, 50)), 11);
        let multiplier = ("limit-burst-multiplier", "1");
        assert_eq!(let_through(&[rps, multiplier], std::iter::repeat_n(1, 50)), 3);
        // Ten seconds at two a second, after the burst.
        let steady = (1..=10_000).step_by(10);
        assert_eq!(let_through(&[rps, multiplier], steady), 3 + 19);
        assert_eq!(let_through(&[("limit-rpm", "6")], std::iter::repeat_n(1, 50)), 31);
    }

    #[test]
    fn each_client_has_its_own_count_and_some_have_none() {
        let limits = [("limit-rps", "1"), ("limit-burst-multiplier", "0")];
        let limits = [&limits[..], &[("limit-whitelist", "10.0.0.0/8")]].concat();
        let limiter = limiter(&limits);
        for _ in 0..3 {
            assert!(matches!(limiter.enter_at("10.1.1.1".parse().unwrap(), 1), Ok(None)));
        }
        for n in 1..4 {
            assert!(limiter.enter_at(address(n), 1).is_ok());
            assert!(limiter.enter_at(address(n), 1).is_err());
        }
    }

    #[test]
    fn connections_are_counted_while_they_are_in_service() {
        let limiter = limiter(&[("limit-connections", "2")]);
        let held: Vec<_> = (0..2).map(|_| limiter.enter_at(address(1), 1).unwrap()).collect();
        assert_eq!(limiter.enter_at(address(1), 1).err(), Some(TooMuch::Connections));
        drop(held);
        assert!(limiter.enter_at(address(1), 1).is_ok());
    }

    #[test]
    fn addresses_without_end_take_bounded_memory() {
        let limiter = limiter(&[("limit-rps", "1")]);
        for n in 0..200_000 {
            let _ = limiter.enter_at(address(n), 1);
        }
        let kept = kept(&limiter);
        assert!(kept <= SHARDS * CLIENTS_PER_SHARD_MAX, "{kept}");
        assert!(kept > SHARDS * (CLIENTS_PER_SHARD_MAX - BLOCK_CLIENTS), "{kept}");
    }

    /// A tenant may write a thousand Ingresses, and a client has more addresses than anybody counts.
    #[test]
    fn attack_addresses_at_many_ingresses_of_one_namespace_leave_room_to_count_another_s_clients() {
        const ALL: usize = 1 << 14;
        let room = Room::new(ALL);
        let of = |namespace: &str| {
            let limits = throttle(&[("limit-rps", "1"), ("limit-burst-multiplier", "1")]);
            Arc::new(Limiter::within(room.clone(), limits, namespace.into()))
        };
        let flood = |limiter: &Arc<Limiter>, addresses| {
            (0..addresses).for_each(|n| _ = limiter.enter_at(address(n), 1));
        };
        let tenant: Vec<_> = (0..50).map(|_| of("tenant")).collect();
        tenant.iter().for_each(|limiter| flood(limiter, 5_000));
        let in_any_case = tenant.len() * SHARDS * BLOCK_CLIENTS;
        let held: usize = tenant.iter().map(kept).sum();
        assert!(held <= ALL / 2 + in_any_case, "{held}");
        // Clients of another's Ingress are remembered, and not pushed out by one another.
        let other = of("other");
        flood(&other, 2_000);
        assert_eq!(kept(&other), 2_000);
        // Even without any room a few are.
        let last = of("tenant");
        for _ in 0..2 {
            assert!(last.enter_at(address(1), 1).is_ok());
        }
        assert!(last.enter_at(address(1), 1).is_err());
    }

    fn limiter(limits: &[(&str, &str)]) -> Arc<Limiter> {
        let room = Room::new(OF_ALL_CLIENTS_MAX);
        Arc::new(Limiter::within(room, throttle(limits), "shop".into()))
    }

    fn kept(limiter: &Arc<Limiter>) -> usize {
        limiter.shards.iter().map(|shard| shard.lock().unwrap().clients.len()).sum()
    }
}
