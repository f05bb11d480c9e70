//! What one client may take of a server that is everybody's: connections, places in the slow path, and, where
//! that is wanted, questions a second.

mod waiting;

use std::{
    collections::HashMap,
    hash::BuildHasher,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use foldhash::quality::RandomState;

pub(crate) use self::waiting::Waiting;

use crate::counters::nanoseconds;

/// Places in which clients are counted. Two in one place share what each may ask.
const PLACES: usize = 1 << 16;
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Places, so many for each client.
#[derive(Debug)]
pub(crate) struct Seats {
    each_max: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    all: Arc<Seats>,
    client: IpAddr,
}

impl Seats {
    pub(crate) fn new(each_max: usize) -> Arc<Self> {
        Arc::new(Self { each_max, taken: Mutex::default() })
    }

    /// One more place for a client; `None`: it has enough.
    pub(crate) fn seat(self: &Arc<Self>, client: IpAddr) -> Option<Seat> {
        let client = network(client);
        let mut all = self.lock();
        let count = all.entry(client).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Seat { all: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Counted in one step: it is good whoever panicked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let left = all.get_mut(&self.client).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            all.remove(&self.client);
        }
    }
}

/// Questions a second of each client, a second's worth of them at once: the generic cell rate algorithm
/// (ITU-T I.371) on one number a client, without locks.
#[derive(Debug)]
pub(crate) struct Rate {
    /// Between two questions, on average.
    gap: u64,
    /// When a client would have asked all it asked at its pace, in nanoseconds after `begun`.
    due: Box<[AtomicU64]>,
    begun: Instant,
    /// Seeded: nobody is to choose whose place to share.
    hasher: RandomState,
}

impl Rate {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self {
            gap: NANOSECONDS_PER_SECOND / u64::from(per_second.get()),
            due: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            begun: Instant::now(),
            hasher: RandomState::default(),
        }
    }

    /// Whether a client's question at `now` is within its rate.
    pub(crate) fn admits(&self, client: IpAddr, now: Instant) -> bool {
        let hash = self.hasher.hash_one(network(client));
        let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let Some(due) = self.due.get(place) else { return true };
        let now = nanoseconds(now.saturating_duration_since(self.begun));
        let next = |due: u64| {
            let due = due.max(now);
            (due - now + self.gap <= NANOSECONDS_PER_SECOND).then_some(due + self.gap)
        };
        due.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

/// An IPv6 client has all addresses of its network (RFC 6177), but where addresses are the cluster's own
/// (RFC 4193): there a /64 is all pods of a node (`--node-cidr-mask-size-ipv6`), each with one address.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) if !v6.is_unique_local() => {
            Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into()
        }
        one => one,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_has_a_second_s_worth_at_once_and_then_its_rate() {
        let rate = Rate::new(NonZeroU32::new(10).unwrap());
        let client = "192.0.2.1".parse().unwrap();
        let asked = |at_ms: u64, count: usize| {
            let now = rate.begun + Duration::from_millis(at_ms);
            (0..count).filter(|_| rate.admits(client, now)).count()
        };
        assert_eq!(asked(0, 50), 10);
        assert_eq!(asked(50, 50), 0);
        assert_eq!(asked(350, 50), 3);
        assert_eq!(asked(60_000, 50), 10);
        let other = "192.0.2.2".parse().unwrap();
        assert!(rate.admits(other, rate.begun + Duration::from_secs(60)));
    }

    /// All pods of a node were one client: what one of them may ask, they shared.
    #[test]
    fn an_ipv6_client_is_its_network_unless_its_address_is_the_cluster_s_own() {
        let cases = [
            ("2001:db8::1", "2001:db8::ffff:2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("fd00:10:244:1::5", "fd00:10:244:1::6", false),
            ("fc00::1", "fc00::2", false),
            ("fd00:10:244:1::5", "fd00:10:244:1::5", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ];
        for (one, other, are_one) in cases {
            let [one, other]: [IpAddr; 2] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!(network(one) == network(other), are_one, "{one} {other}");
        }
    }

    #[test]
    fn places_are_bounded_for_each_client_and_come_back() {
        let all = Seats::new(5);
        let client = "192.0.2.1".parse().unwrap();
        let mut seats: Vec<_> = (0..5).map(|_| all.seat(client)).collect();
        assert!(seats.iter().all(Option::is_some) && all.seat(client).is_none());
        assert!(all.seat("192.0.2.2".parse().unwrap()).is_some());
        seats.pop();
        assert!(all.seat(client).is_some());
        drop(seats);
        assert!(all.lock().is_empty());
    }
}
