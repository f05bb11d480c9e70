//! Who is served by UDP, by when they were heard of last. Anybody may write any address into a
//! datagram: whoever was silent longest gives way to newcomers.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    rc::{Rc, Weak},
};

/// Clients of one service.
#[derive(Debug)]
pub(super) struct Clients<W, C> {
    known: HashMap<W, Known<C>>,
    /// By the number they were heard of at.
    order: BTreeMap<u64, W>,
    next: u64,
}

#[derive(Debug)]
struct Known<C> {
    heard: u64,
    client: C,
}

/// Those of all services of a thread.
#[derive(Debug)]
pub(super) struct Everybody<W, C>(RefCell<Vec<Service<W, C>>>);

/// Gone with its port.
type Service<W, C> = Weak<RefCell<Clients<W, C>>>;

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Of one service.
    pub(super) per_service_max: usize,
    /// Of all.
    pub(super) max: usize,
}

impl<W: Copy + Eq + Hash, C> Clients<W, C> {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, way: &W) -> Option<&C> {
        self.known.get(way).map(|known| &known.client)
    }

    /// It said something, or something was said to it.
    pub(super) fn hear(&mut self, way: &W) {
        let Some(known) = self.known.get_mut(way) else { return };
        // Nearly always nobody else was heard in between.
        if known.heard + 1 == self.next {
            return;
        }
        self.order.remove(&known.heard);
        self.order.insert(self.next, *way);
        known.heard = self.next;
        self.next += 1;
    }

    /// Takes the place of whoever came that way before.
    pub(super) fn put(&mut self, way: W, client: C) {
        if let Some(before) = self.known.insert(way, Known { heard: self.next, client }) {
            self.order.remove(&before.heard);
        }
        self.order.insert(self.next, way);
        self.next += 1;
    }

    pub(super) fn remove(&mut self, way: &W) -> Option<C> {
        let known = self.known.remove(way)?;
        self.order.remove(&known.heard);
        Some(known.client)
    }

    /// Whoever was silent longest.
    fn forget(&mut self) -> Option<C> {
        let (_, way) = self.order.pop_first()?;
        self.known.remove(&way).map(|known| known.client)
    }
}

impl<W: Copy + Eq + Hash, C> Everybody<W, C> {
    /// Where one more service keeps its own.
    pub(super) fn begin(&self) -> Rc<RefCell<Clients<W, C>>> {
        let clients = Rc::new(RefCell::new(Clients::default()));
        let mut all = self.0.borrow_mut();
        all.retain(|clients| clients.strong_count() > 0);
        all.push(Rc::downgrade(&clients));
        clients
    }

    /// Makes room for one more; who had to leave. When all are too many it is one of the service that
    /// has the most: so nobody pushes out another service's clients by sending to his own.
    pub(super) fn make_room(&self, own: &RefCell<Clients<W, C>>, room: Room) -> Option<C> {
        if own.borrow().len() >= room.per_service_max {
            return own.borrow_mut().forget();
        }
        let all: Vec<_> = self.0.borrow().iter().filter_map(Weak::upgrade).collect();
        let count: usize = all.iter().map(|clients| clients.borrow().len()).sum();
        if count < room.max {
            return None;
        }
        let largest = all.iter().max_by_key(|clients| clients.borrow().len())?;
        largest.borrow_mut().forget()
    }
}

impl<W, C> Default for Clients<W, C> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }
}

impl<W, C> Default for Everybody<W, C> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { per_service_max: 3, max: 5 };

    type Own = Rc<RefCell<Clients<u8, u8>>>;

    /// Each is its own way.
    fn come(all: &Everybody<u8, u8>, service: &Own, client: u8) -> Option<u8> {
        let gone = all.make_room(service, ROOM);
        service.borrow_mut().put(client, client);
        gone
    }

    #[test]
    fn attack_spoofed_who_was_silent_longest_gives_way_and_who_speaks_stays() {
        let all = Everybody::default();
        let service = all.begin();
        for client in [1, 2, 3] {
            assert_eq!(come(&all, &service, client), None);
        }
        for (newcomer, gone) in [(4, 2), (5, 3), (6, 4), (7, 5)] {
            service.borrow_mut().hear(&1);
            assert_eq!(come(&all, &service, newcomer), Some(gone));
        }
        assert_eq!(service.borrow().get(&1), Some(&1));
        assert_eq!((service.borrow().len(), service.borrow().order.len()), (3, 3));
    }

    #[test]
    fn attack_spoofed_a_flood_of_one_service_costs_others_no_client() {
        let all = Everybody::default();
        let (quiet, loud, third) = (all.begin(), all.begin(), all.begin());
        for (service, client, gone) in [
            (&quiet, 1, None),
            (&quiet, 2, None),
            (&loud, 11, None),
            (&loud, 12, None),
            (&loud, 13, None),
            // Too many of one.
            (&loud, 14, Some(11)),
            // Too many in all.
            (&third, 21, Some(12)),
        ] {
            assert_eq!(come(&all, service, client), gone, "{client}");
        }
        assert_eq!(quiet.borrow().len(), 2);
        drop(loud);
        assert_eq!(come(&all, &third, 22), None, "a service that ended has no clients");
    }

    #[test]
    fn who_leaves_or_comes_again_is_counted_once() {
        let all = Everybody::default();
        let service = all.begin();
        come(&all, &service, 1);
        service.borrow_mut().put(1, 9);
        assert_eq!(service.borrow().get(&1), Some(&9));
        assert_eq!(service.borrow().order.len(), 1);
        service.borrow_mut().hear(&2);
        let before = service.borrow().next;
        service.borrow_mut().hear(&1);
        assert_eq!(service.borrow().next, before, "nobody was heard in between");
        assert_eq!(service.borrow_mut().remove(&1), Some(9));
        assert_eq!(service.borrow_mut().remove(&1), None);
        assert_eq!((service.borrow().len(), service.borrow().order.len()), (0, 0));
    }
}
