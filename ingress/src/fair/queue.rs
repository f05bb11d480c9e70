//! Who waits for a place, and whose turn is next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fairlead_state::Name;
use tokio::sync::oneshot;

use super::Shares;

/// Places, and those who wait for one: next is the namespace that holds fewest, of those the one that waits
/// longest, and of its own whoever came first.
#[derive(Clone, Debug)]
pub(crate) struct Queue(Arc<Mutex<State>>);

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None`: it is nobody's.
    queue: Option<Queue>,
    namespace: Name,
}

#[derive(Debug)]
struct State {
    shares: Shares,
    /// Those who wait, of each namespace that has any.
    lines: HashMap<Name, Line>,
    /// The same namespaces in the order of their turns: places held, and since which ticket it waits.
    order: BTreeSet<(usize, u64, Name)>,
    tickets: u64,
}

#[derive(Debug)]
struct Line {
    /// As [`State::order`] has it.
    held: usize,
    since: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Place>>,
}

/// Somebody who waits, and leaves the queue however that ends.
struct Waiter<'a> {
    queue: &'a Queue,
    namespace: &'a Name,
    ticket: u64,
}

impl Queue {
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            shares: Shares::new(places),
            lines: HashMap::new(),
            order: BTreeSet::new(),
            tickets: 0,
        })))
    }

    /// A place for this namespace, once it is its turn; `None` never happens. Whoever stops waiting is
    /// forgotten.
    pub(crate) async fn place(&self, namespace: &Name) -> Option<Place> {
        let (sender, granted) = oneshot::channel();
        let ticket = self.state().join(namespace, sender);
        let _leaves = Waiter { queue: self, namespace, ticket };
        self.state().serve(self);
        granted.await.ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done by whoever held it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn join(&mut self, namespace: &Name, sender: oneshot::Sender<Place>) -> u64 {
        let ticket = self.next_ticket();
        let held = self.shares.held(namespace);
        let line = self.lines.entry(namespace.clone()).or_insert_with(|| {
            self.order.insert((held, ticket, namespace.clone()));
            Line { held, since: ticket, waiting: BTreeMap::new() }
        });
        line.waiting.insert(ticket, sender);
        ticket
    }

    fn leave(&mut self, namespace: &Name, ticket: u64) {
        let Some(line) = self.lines.get_mut(namespace) else { return };
        line.waiting.remove(&ticket);
        if line.waiting.is_empty() {
            self.order.remove(&(line.held, line.since, namespace.clone()));
            self.lines.remove(namespace);
        }
    }

    /// Gives away what is left.
    fn serve(&mut self, queue: &Queue) {
        while let Some((held, _, _)) = self.order.first()
            && self.shares.has(1, *held)
            && let Some((_, _, namespace)) = self.order.pop_first()
        {
            self.serve_one(queue, &namespace);
            let since = self.next_ticket();
            self.queue_up(&namespace, since);
        }
    }

    fn serve_one(&mut self, queue: &Queue, namespace: &Name) {
        let Some(line) = self.lines.get_mut(namespace) else { return };
        while let Some((_, sender)) = line.waiting.pop_first() {
            let place = Place { queue: Some(queue.clone()), namespace: namespace.clone() };
            match sender.send(place) {
                Ok(()) => return self.shares.take(1, namespace),
                // Gone just now; what was not taken is not given back.
                Err(mut place) => place.queue = None,
            }
        }
    }

    /// A namespace that is in no order finds its place there, if anybody of it waits.
    fn queue_up(&mut self, namespace: &Name, since: u64) {
        let Some(line) = self.lines.get_mut(namespace) else { return };
        if line.waiting.is_empty() {
            self.lines.remove(namespace);
            return;
        }
        (line.held, line.since) = (self.shares.held(namespace), since);
        self.order.insert((line.held, since, namespace.clone()));
    }

    fn give_back(&mut self, queue: &Queue, namespace: &Name) {
        self.shares.give_back(1, namespace);
        // Behind those who wait now: they wait for one turn of it at most.
        let since = self.next_ticket();
        if let Some(line) = self.lines.get(namespace) {
            self.order.remove(&(line.held, line.since, namespace.clone()));
            self.queue_up(namespace, since);
        }
        self.serve(queue);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.queue.state().leave(self.namespace, self.ticket);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.state().give_back(&queue, &self.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin};

    use futures::FutureExt;

    use super::*;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Option<Place>> + 'a>>;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| Name::from(*text)).collect()
    }

    /// Those who ask, in that order, before any has a place.
    fn asked<'a>(queue: &'a Queue, namespaces: &'a [Name]) -> Vec<Waiting<'a>> {
        let mut all: Vec<Waiting<'a>> = Vec::new();
        for namespace in namespaces {
            let mut waiting: Waiting<'a> = Box::pin(queue.place(namespace));
            assert!(waiting.as_mut().now_or_never().is_none());
            all.push(waiting);
        }
        all
    }

    /// In whose turn they come if each place is given back at once.
    fn turns(waiting: Vec<Waiting<'_>>, first: Place) -> String {
        let mut waiting: Vec<_> = waiting.into_iter().map(Some).collect();
        let (mut place, mut turns) = (Some(first), String::new());
        while place.take().is_some() {
            for one in &mut waiting {
                if let Some(Some(granted)) = one.as_mut().and_then(FutureExt::now_or_never) {
                    turns.push_str(&granted.namespace);
                    (*one, place) = (None, Some(granted));
                    break;
                }
            }
        }
        turns
    }

    fn place(queue: &Queue, namespace: &str) -> Place {
        queue.place(&namespace.into()).now_or_never().flatten().unwrap()
    }

    #[test]
    fn attack_a_namespace_with_any_number_waiting_has_every_other_turn() {
        for (waiting, expected) in [
            (&["a", "a", "a", "a"][..], "aaaa"),
            (&["a", "a", "a", "a", "b"], "baaaa"),
            (&["a", "a", "a", "b", "b", "c"], "bcabaa"),
            (&["b", "a", "a", "c", "c"], "bcaca"),
        ] {
            let (queue, names) = (Queue::new(1), names(waiting));
            let first = place(&queue, "a");
            assert_eq!(turns(asked(&queue, &names), first), expected, "{waiting:?}");
            let state = queue.state();
            assert!(state.lines.is_empty() && state.order.is_empty(), "{state:?}");
        }
    }

    /// Who comes back again and again must not go before who waits.
    #[test]
    fn attack_namespaces_that_come_by_turns_do_not_starve_a_third_one() {
        let queue = Queue::new(1);
        let [a, b, c] = ["a", "b", "c"].map(Name::from);
        let mut held = place(&queue, "a");
        let mut patient: Waiting<'_> = Box::pin(queue.place(&c));
        assert!(patient.as_mut().now_or_never().is_none());
        for namespace in [&b, &a, &b, &a] {
            let mut next: Waiting<'_> = Box::pin(queue.place(namespace));
            assert!(next.as_mut().now_or_never().is_none());
            drop(held);
            if let Some(Some(granted)) = patient.as_mut().now_or_never() {
                assert_eq!(granted.namespace, c);
                return;
            }
            held = next.now_or_never().flatten().unwrap();
        }
        panic!("its turn never came");
    }

    #[test]
    fn a_namespace_alone_takes_half_and_another_finds_a_place_at_once() {
        let queue = Queue::new(4);
        let held = [place(&queue, "a"), place(&queue, "a")];
        let a = names(&["a"]);
        let waiting = asked(&queue, &a);
        let other = place(&queue, "b");
        // What another one gives back is more than it needs.
        drop((held, other));
        let granted: Vec<_> = waiting.into_iter().filter_map(FutureExt::now_or_never).collect();
        assert_eq!(granted.len(), 1);
    }

    /// A place granted to who has just left is not lost, and neither does a queue of them grow.
    #[test]
    fn attack_who_asks_and_leaves_is_forgotten_and_takes_no_place() {
        let queue = Queue::new(1);
        let a = names(&["a"; 100]);
        let held = place(&queue, "b");
        drop(asked(&queue, &a));
        assert!(queue.state().lines.is_empty() && queue.state().order.is_empty());
        let waiting = asked(&queue, &a[..2]);
        // Granted to the first, who never looks.
        drop(held);
        drop(waiting);
        assert_eq!(queue.state().shares.held(&a[0]), 0);
        drop(place(&queue, "a"));
    }
}
