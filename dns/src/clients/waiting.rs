//! Who waits for others: when there is no room for all, whoever has most waiting gives way.
//!
//! A share for each client in advance would either keep a cache that asks for a whole node from most places,
//! or let a few clients have all of them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::network;

/// Places for those that wait, shared by all clients.
#[derive(Debug)]
pub(crate) struct Waiting {
    places_max: usize,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    /// What each client waits for, oldest first; dropping a sender takes the place away.
    clients: HashMap<IpAddr, BTreeMap<u64, oneshot::Sender<()>>>,
    taken: usize,
    next_number: u64,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    all: Arc<Waiting>,
    client: IpAddr,
    number: u64,
    taken_away: oneshot::Receiver<()>,
}

impl Waiting {
    pub(crate) fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self { places_max, all: Mutex::default() })
    }

    /// A place for a client; `None`: all are taken, and nobody has more of them than this client would.
    pub(crate) fn ticket(self: &Arc<Self>, client: IpAddr) -> Option<Ticket> {
        let client = network(client);
        let mut all = self.lock();
        if all.taken >= self.places_max && !all.give_way(client) {
            return None;
        }
        let (keep, taken_away) = oneshot::channel();
        let number = all.next_number;
        all.next_number += 1;
        all.clients.entry(client).or_default().insert(number, keep);
        all.taken += 1;
        Some(Ticket { all: self.clone(), client, number, taken_away })
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        // Each change is whole before anything could panic.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Takes the oldest place of whoever has most, if that is still more than `client` has with one more.
    fn give_way(&mut self, client: IpAddr) -> bool {
        let own = self.clients.get(&client).map_or(0, BTreeMap::len);
        let most = self.clients.values_mut().max_by_key(|tickets| tickets.len());
        let Some(most) = most.filter(|tickets| tickets.len() > own + 1) else { return false };
        most.pop_first();
        self.taken -= 1;
        true
    }
}

impl Ticket {
    /// Waits until the place is another client's.
    pub(crate) async fn taken_away(&mut self) {
        // Nothing is ever sent: it ends when the sender is dropped.
        let _ = (&mut self.taken_away).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(tickets) = all.clients.get_mut(&self.client) else { return };
        let was_there = tickets.remove(&self.number).is_some();
        if tickets.is_empty() {
            all.clients.remove(&self.client);
        }
        all.taken -= usize::from(was_there);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn take(all: &Arc<Waiting>, who: u8, count: usize) -> Vec<Ticket> {
        std::iter::repeat_with(|| all.ticket(client(who))).take(count).flatten().collect()
    }

    fn left(tickets: &mut [Ticket]) -> Vec<bool> {
        tickets.iter_mut().map(|ticket| ticket.taken_away().now_or_never().is_none()).collect()
    }

    #[test]
    fn whoever_has_most_gives_way_oldest_first_until_all_have_the_same() {
        // Places, what each client in its turn wants, and what all have afterwards.
        let cases: [(usize, &[usize], &[usize]); 7] = [
            (10, &[10], &[10]),
            (10, &[15], &[10]),
            (10, &[10, 3], &[7, 3]),
            (10, &[10, 10], &[5, 5]),
            (10, &[4, 4, 10], &[4, 3, 3]),
            (10, &[9, 1, 1, 1], &[7, 1, 1, 1]),
            (3, &[1, 1, 1, 1], &[1, 1, 1, 0]),
        ];
        for (places, wanted, kept) in cases {
            let all = Waiting::new(places);
            let mut tickets: Vec<_> =
                (0..).zip(wanted).map(|(who, count)| take(&all, who, *count)).collect();
            let states: Vec<_> = tickets.iter_mut().map(|tickets| left(tickets)).collect();
            let counts: Vec<_> =
                states.iter().map(|states| states.iter().filter(|left| **left).count()).collect();
            assert_eq!(counts.iter().sum::<usize>(), all.lock().taken, "{wanted:?}: {counts:?}");
            assert!(counts.iter().sum::<usize>() <= places, "{wanted:?}: {counts:?}");
            // Of several that have most it may be any.
            let sorted = |counts: &[usize]| {
                let mut counts = counts.to_vec();
                counts.sort_unstable();
                counts
            };
            assert_eq!(sorted(&counts), sorted(kept), "{wanted:?} of {places}: {counts:?}");
            for states in states {
                assert!(states.is_sorted(), "the oldest give way: {states:?}");
            }
            drop(tickets);
            let end = all.lock();
            assert!(end.taken == 0 && end.clients.is_empty(), "{wanted:?}: {end:?}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let all = Waiting::new(2);
        let at = |text: &str| all.ticket(text.parse().unwrap());
        let (first, second) = (at("2001:db8::1"), at("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(at("2001:db8::3").is_none(), "another address is no other client");
        assert!(at("2001:db8:0:1::1").is_some());
    }
}
