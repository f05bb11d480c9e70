//! Past a server's capacity: what has waited for long is dropped unread, so that what is answered is
//! answered soon.
//!
//! The kernel's queue is first come, first served, and when it is full the newest are lost. So a server
//! that was held up, by others on its core or by a limit of its container, would answer questions whose
//! clients have given up. It is told of losses (SO_RXQ_OVFL); from then on, until there have been none for a
//! while, datagrams bear the time of their arrival.

use std::{
    net::UdpSocket,
    os::fd::AsFd,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::sys::{Datagram, Inbox, want_arrival_times};

/// What has waited longer is dropped: a resolver asks again after seconds, and newer questions wait behind
/// it.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Without a loss for so long a server is not past its capacity any more.
const CALM: Duration = Duration::from_secs(10);

/// What one socket has lost, and whether it still does.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    lost: u32,
    /// When the last loss was seen; `None`: times are not asked for.
    last_loss: Option<Instant>,
    /// The time of day when a batch was received, while times are asked for.
    now: Option<Duration>,
}

impl Backlog {
    /// Looks at a batch that has just been received; returns how many datagrams the kernel had no room for
    /// since the last one.
    pub(super) fn note(&mut self, inbox: &Inbox, socket: &UdpSocket, received: Instant) -> u64 {
        let lost = inbox.lost().unwrap_or(self.lost);
        let more = lost.wrapping_sub(self.lost);
        self.lost = lost;
        let was_on = self.last_loss.is_some();
        if more > 0 {
            self.last_loss = Some(received);
        } else if self.last_loss.is_some_and(|at| received.duration_since(at) >= CALM) {
            self.last_loss = None;
        }
        let is_on = self.last_loss.is_some();
        if was_on != is_on && want_arrival_times(socket.as_fd(), is_on).is_err() {
            self.last_loss = None;
        }
        self.now = self.last_loss.and_then(|_| SystemTime::now().duration_since(UNIX_EPOCH).ok());
        more.into()
    }

    /// Whether a datagram of that batch has waited for too long.
    pub(super) fn is_late(&self, datagram: &Datagram<'_>) -> bool {
        let waited = self.now.zip(datagram.arrived).and_then(|(now, at)| now.checked_sub(at));
        waited.is_some_and(|waited| waited > WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::sys::want_losses;

    #[test]
    fn past_its_capacity_a_socket_s_oldest_questions_are_late_before_they_are_read() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        want_losses(server.as_fd()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let mut inbox = Inbox::new();
        let mut backlog = Backlog::default();
        // More than any buffer has room for; the next one tells of it.
        for _ in 0..100_000 {
            client.send(&[7; 64]).unwrap();
        }
        while inbox.receive(server.as_fd()).unwrap() > 0 {
            assert!(!inbox.datagrams().any(|datagram| backlog.is_late(&datagram)));
        }
        client.send(b"after").unwrap();
        inbox.receive(server.as_fd()).unwrap();
        assert!(backlog.note(&inbox, &server, Instant::now()) > 0);
        // The kernel begins to note arrivals in a work of its own; until then they are as late as they are read.
        let is_noted = |inbox: &mut Inbox| {
            client.send(b"probe").unwrap();
            let sent = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            assert_eq!(inbox.receive(server.as_fd()).unwrap(), 1);
            inbox.datagrams().all(|datagram| datagram.arrived.is_some_and(|at| at <= sent))
        };
        while !is_noted(&mut inbox) {
            thread::yield_now();
        }
        client.send(b"old").unwrap();
        // Time itself is what is waited for.
        thread::park_timeout(WAIT_MAX * 2);
        client.send(b"new").unwrap();
        assert_eq!(inbox.receive(server.as_fd()).unwrap(), 2);
        let received = Instant::now();
        assert_eq!(backlog.note(&inbox, &server, received), 0);
        let old = inbox.datagrams().next().unwrap();
        assert!(old.bytes == b"old" && backlog.is_late(&old));
        // Without losses for a while nothing is.
        backlog.note(&inbox, &server, received + CALM);
        assert!(!inbox.datagrams().any(|datagram| backlog.is_late(&datagram)));
    }

    #[test]
    fn what_has_waited_is_late_only_while_there_are_losses() {
        let datagram = |arrived| Datagram { bytes: &[], cut: false, route: None, arrived };
        let at = Duration::from_secs;
        let calm = Backlog::default();
        assert!(!calm.is_late(&datagram(Some(at(1)))));
        let full = Backlog { now: Some(at(100)), ..Backlog::default() };
        assert!(full.is_late(&datagram(Some(at(99)))));
        assert!(!full.is_late(&datagram(Some(at(100) - WAIT_MAX))));
        // From before times were asked for, and by a clock that was set back.
        assert!(!full.is_late(&datagram(None)));
        assert!(!full.is_late(&datagram(Some(at(101)))));
    }
}
