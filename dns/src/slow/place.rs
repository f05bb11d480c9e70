//! A question's place in the slow path: among those in work, and then among those that wait for others.
//!
//! Who waits needs no processor and takes seconds, so both have room of their own: what is answered without
//! asking anyone never waits behind upstreams that are silent.

use std::{
    future::Future,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    clients::{Seat, Seats, Waiting},
    counters::{Counters, Crowded},
};

/// Questions in work at one time: their memory is bounded where they come faster than they are answered.
const WORK_MAX: usize = 1000;
/// Those of one client: half of all, since each is soon done.
const WORK_EACH_MAX: usize = 500;
/// Questions that wait for upstreams, and for clients to take their replies, at one time (CoreDNS'
/// `max_concurrent` in kubeadm).
const WAITING_MAX: usize = 1000;

/// Room in the slow path.
#[derive(Debug)]
pub(super) struct Places {
    work: Arc<Semaphore>,
    workers: Arc<Seats>,
    waiting: Arc<Waiting>,
}

/// The right to use the slow path for one question.
#[derive(Debug)]
pub(crate) struct Place {
    client: IpAddr,
    /// Until it waits for others for the first time; what is left to do then is next to nothing.
    work: Mutex<Option<(OwnedSemaphorePermit, Seat)>>,
    waiting: Arc<Waiting>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            work: Arc::new(Semaphore::new(WORK_MAX)),
            workers: Seats::new(WORK_EACH_MAX),
            waiting: Waiting::new(WAITING_MAX),
        }
    }

    /// A place for one question of a client; `None` when all, or all of this client's, are taken.
    pub(super) fn place(&self, client: IpAddr) -> Option<Place> {
        let seat = self.workers.seat(client)?;
        let permit = self.work.clone().try_acquire_owned().ok()?;
        let work = Mutex::new(Some((permit, seat)));
        Some(Place { client, work, waiting: self.waiting.clone() })
    }
}

impl Place {
    /// Waits for others among those that do.
    ///
    /// # Errors
    /// There is no room, or no longer; counted.
    pub(crate) async fn wait<T>(
        &self,
        others: impl Future<Output = T>,
        counters: &Counters,
    ) -> Result<T, Crowded> {
        let Some(mut ticket) = self.waiting.ticket(self.client) else {
            counters.crowded(Crowded::Full);
            return Err(Crowded::Full);
        };
        drop(self.work.lock().unwrap_or_else(PoisonError::into_inner).take());
        tokio::select! {
            done = others => Ok(done),
            () = ticket.taken_away() => {
                counters.crowded(Crowded::GaveWay);
                Err(Crowded::GaveWay)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::FutureExt;

    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn those_in_work_are_bounded_and_one_client_has_half() {
        let places = Places::new();
        let of = |who| -> Vec<_> { std::iter::from_fn(|| places.place(client(who))).collect() };
        let (first, second) = (of(1), of(2));
        assert_eq!((first.len(), second.len()), (WORK_EACH_MAX, WORK_MAX - WORK_EACH_MAX));
        assert!(places.place(client(3)).is_none(), "as many as there are");
        drop(first);
        assert_eq!(of(3).len(), WORK_EACH_MAX);
    }

    #[test]
    fn who_waits_is_in_work_no_more_and_gives_way_to_those_who_have_less() {
        let (places, counters) = (Places::new(), Counters::default());
        let mut waiting = vec![];
        for _ in 0..WAITING_MAX {
            let place = places.place(client(1)).expect("nobody is in work");
            let counters = &counters;
            let mut waits = Box::pin(async move { place.wait(pending::<()>(), counters).await });
            assert!((&mut waits).now_or_never().is_none());
            waiting.push(waits);
        }
        let same = places.place(client(1)).expect("a place to work");
        let other = places.place(client(2)).expect("a place to work");
        let wait = |place: &Place| place.wait(ready(()), &counters).now_or_never().unwrap();
        assert_eq!(wait(&same), Err(Crowded::Full));
        assert_eq!(wait(&other), Ok(()));
        let given_up = waiting.iter_mut().map(FutureExt::now_or_never);
        let given_up: Vec<_> = given_up.flatten().collect();
        assert_eq!(given_up, [Err(Crowded::GaveWay)]);
        // What the other had is free again.
        assert_eq!(wait(&same), Ok(()));
    }
}
