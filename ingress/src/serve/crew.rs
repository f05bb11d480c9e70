//! The data threads as they see one another: how many connections each has, and connections that
//! one hands to another.
//!
//! The kernel gives a connection to a thread by hash (SO_REUSEPORT), whatever that thread has
//! already. Long ones, of balancers, HTTP/2 and WebSockets, may all be on one core while others are
//! idle. So a thread that has noticeably more than another gives away what it accepts next.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc;

/// Connections on their way to a thread; more are served where they are.
const INBOX_CONNECTIONS_MAX: usize = 64;
/// A thread may have a quarter and this many more than another one: to move a connection takes two
/// system calls and wakes another core.
const SPARE_CONNECTIONS: usize = 8;

/// All data threads.
#[derive(Debug)]
pub(crate) struct Crew(Box<[Member]>);

/// One data thread. Nobody else's count is in its cache line, nor in the one fetched with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Member {
    /// Client connections it has, those on their way to it included.
    open: AtomicUsize,
    /// From when it serves.
    inbox: OnceLock<mpsc::Sender<Handed>>,
}

/// An accepted connection of which nothing was read, on no thread's event queue.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Where it came in.
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
}

/// What one thread is handed by others.
pub(super) type Inbox = mpsc::Receiver<Handed>;

/// A place in another thread's inbox.
#[derive(Debug)]
pub(super) struct Place<'a> {
    member: &'a Member,
    permit: mpsc::Permit<'a, Handed>,
}

impl Crew {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Member::default()).collect())
    }

    /// What others hand to a thread, which serves from now on. Once per thread.
    pub(super) fn joins(&self, index: usize) -> Inbox {
        let (outside, inbox) = mpsc::channel(INBOX_CONNECTIONS_MAX);
        if let Some(member) = self.0.get(index) {
            // Set here and nowhere else.
            let _ = member.inbox.set(outside);
        }
        inbox
    }

    /// Connections a thread has, those on their way to it included.
    pub(super) fn open(&self, index: usize) -> usize {
        self.0.get(index).map_or(0, |member| member.open.load(Relaxed))
    }

    /// A thread has one more.
    pub(super) fn opened(&self, index: usize) {
        if let Some(member) = self.0.get(index) {
            member.open.fetch_add(1, Relaxed);
        }
    }

    /// A thread has one less.
    pub(super) fn closed(&self, index: usize) {
        if let Some(member) = self.0.get(index) {
            member.open.fetch_sub(1, Relaxed);
        }
    }

    /// Where the connection that a thread has just accepted is better off than with itself, which
    /// may have `max`; `None`: nowhere.
    ///
    /// One other thread is looked at, `turn` says which, so that a balanced crew pays for one look;
    /// if that one has few, the one that has fewest is taken.
    pub(super) fn elsewhere(&self, index: usize, turn: usize, max: usize) -> Option<Place<'_>> {
        let others = self.0.len().checked_sub(1)?;
        let other = (index + 1 + turn.checked_rem(others)?) % self.0.len();
        let own = self.open(index);
        if !has_too_many(own, self.open(other), max) {
            return None;
        }
        let others = self.0.iter().enumerate().filter(|(i, _)| *i != index);
        let serving = others.filter_map(|(_, member)| Some((member, member.inbox.get()?)));
        let (member, inbox) = serving.min_by_key(|(member, _)| member.open.load(Relaxed))?;
        if !has_too_many(own, member.open.load(Relaxed), max) {
            return None;
        }
        // Full: it is busy. Closed: it is on its way out.
        let permit = inbox.try_reserve().ok()?;
        Some(Place { member, permit })
    }
}

impl Place<'_> {
    /// It is that thread's from now on, and counted there.
    pub(super) fn take(self, handed: Handed) {
        self.member.open.fetch_add(1, Relaxed);
        self.permit.send(handed);
    }
}

/// Whether a thread with `own` connections is to give one to a thread with `others`, where each may
/// have `max`.
fn has_too_many(own: usize, others: usize, max: usize) -> bool {
    others < max && (own >= max || own > others + others / 4 + SPARE_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const MAX: usize = 1_000;

    fn of(open: &[usize]) -> (Crew, Vec<Inbox>) {
        let crew = Crew::new(open.len());
        let inboxes = (0..open.len()).map(|index| crew.joins(index)).collect();
        for (member, open) in crew.0.iter().zip(open) {
            member.open.store(*open, Relaxed);
        }
        (crew, inboxes)
    }

    fn handed() -> Handed {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let peer = stream.local_addr().unwrap();
        Handed { stream, peer, address, tls: false }
    }

    /// Who gets what the first thread accepts, by turns.
    fn chosen(crew: &Crew) -> Vec<Option<usize>> {
        let which = |place: Place<'_>| crew.0.iter().position(|m| std::ptr::eq(m, place.member));
        (0..3).map(|turn| crew.elsewhere(0, turn, MAX).and_then(which)).collect()
    }

    #[test]
    fn imbalance_beyond_a_quarter_and_eight_is_given_to_whoever_has_fewest() {
        for (open, expected) in [
            // Alone, and nothing is looked at.
            (&[5_000][..], [None; 3]),
            (&[8, 0], [None; 3]),
            (&[9, 0], [Some(1); 3]),
            (&[133, 100], [None; 3]),
            (&[134, 100], [Some(1); 3]),
            (&[0, 100], [None; 3]),
            (&[50, 4, 3, 2], [Some(3); 3]),
            // Only who looks at the idle one finds it.
            (&[50, 48, 47, 2], [None, None, Some(3)]),
            // Full: to anybody who is not.
            (&[MAX, MAX - 1], [Some(1); 3]),
            (&[MAX, MAX], [None; 3]),
            (&[MAX, MAX + 5, MAX + 5, MAX - 1], [None, None, Some(3)]),
        ] {
            let (crew, _inboxes) = of(open);
            assert_eq!(chosen(&crew), expected, "{open:?}");
        }
    }

    #[test]
    fn what_is_on_its_way_counts_and_a_full_inbox_gets_no_more() {
        let (crew, mut inboxes) = of(&[MAX, 0]);
        for sent in 0..INBOX_CONNECTIONS_MAX {
            assert_eq!(crew.open(1), sent);
            crew.elsewhere(0, 0, MAX).unwrap().take(handed());
        }
        assert!(crew.elsewhere(0, 0, MAX).is_none());
        inboxes[1].try_recv().unwrap();
        crew.elsewhere(0, 0, MAX).unwrap().take(handed());
        let (crew, _inboxes) = of(&[10, 0]);
        crew.elsewhere(0, 0, MAX).unwrap().take(handed());
        crew.elsewhere(0, 0, MAX).unwrap().take(handed());
        assert!(crew.elsewhere(0, 0, MAX).is_none(), "two that are not there yet are enough");
    }

    #[test]
    fn who_does_not_serve_yet_or_is_leaving_is_handed_nothing_and_loses_nothing() {
        let early = Crew::new(2);
        early.0[0].open.store(MAX, Relaxed);
        assert!(early.elsewhere(0, 0, MAX).is_none());
        let (crew, mut inboxes) = of(&[100, 0]);
        let place = crew.elsewhere(0, 0, MAX).unwrap();
        let inbox = &mut inboxes[1];
        inbox.close();
        assert!(crew.elsewhere(0, 0, MAX).is_none());
        assert!(matches!(inbox.try_recv(), Err(mpsc::error::TryRecvError::Empty)), "one may come");
        let last = handed();
        let peer = last.peer;
        place.take(last);
        assert_eq!(inbox.try_recv().unwrap().peer, peer);
        assert!(matches!(inbox.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }
}
