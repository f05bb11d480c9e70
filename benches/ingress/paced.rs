//! Load at a fixed rate, whatever the answers do: a wait counts from when its request was due.
//!
//! A thread for each connection, because its timer is exact to microseconds where a runtime's is to a millisecond.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{client, table};

/// Requests a second over so many connections.
#[derive(Clone, Copy)]
pub struct Pace {
    pub per_s: u32,
    pub connections: u32,
}

/// What came of it.
#[derive(Default)]
pub struct Seen {
    /// In microseconds.
    pub waits: Vec<f64>,
    pub failures: Vec<String>,
}

/// Tells what goes on beside something to end with it, also if that fails: its threads are waited for.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Pace {
    /// Asks these hosts in turn until it is told to end.
    pub fn run(self, address: SocketAddr, hosts: &[usize], ended: &AtomicBool) -> Seen {
        let every = Duration::from_secs(1) / self.per_s;
        let begun = Instant::now();
        let all = Mutex::new(Seen::default());
        thread::scope(|scope| {
            for place in 0..self.connections {
                let all = &all;
                let first = begun + every * place;
                scope.spawn(move || {
                    let mut seen = one(address, hosts, (first, every * self.connections), ended);
                    let mut all = all.lock().unwrap();
                    all.waits.append(&mut seen.waits);
                    all.failures.append(&mut seen.failures);
                });
            }
        });
        all.into_inner().unwrap()
    }
}

fn one(
    address: SocketAddr,
    hosts: &[usize],
    (first, every): (Instant, Duration),
    ended: &AtomicBool,
) -> Seen {
    // The kernel may be late by 50 us otherwise.
    nix::sys::prctl::set_timerslack(1).unwrap();
    let requests: Vec<_> =
        hosts.iter().map(|host| client::request(&table::host(*host), "/small")).collect();
    let mut seen = Seen::default();
    let mut kept = None;
    let mut due = first;
    for request in requests.iter().cycle() {
        sleep_until(due);
        if ended.load(Relaxed) {
            break;
        }
        let mut asked = || {
            // One that the proxy ended in between is no failure.
            let open = kept.take().filter(|kept: &client::Connection<_>| !kept.is_closed());
            let mut connection = open.map_or_else(|| client::connect(address), Ok)?;
            let reply = connection.send(request)?;
            kept = (!reply.is_last).then_some(connection);
            Ok::<_, std::io::Error>(reply)
        };
        match asked() {
            Ok(reply) if reply.is_good() => seen.waits.push(due.elapsed().as_secs_f64() * 1e6),
            Ok(reply) => seen.failures.push(format!("{reply:?}")),
            Err(error) => seen.failures.push(error.to_string()),
        }
        due += every;
    }
    seen
}

pub fn sleep_until(due: Instant) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}

pub fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration);
}
