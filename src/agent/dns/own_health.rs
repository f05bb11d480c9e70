//! `health` asks itself each second, as CoreDNS's does: a process that has too much to do, or that the
//! kernel lets wait, answers itself late.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use fairlead_dns::{Histogram, HistogramReport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

/// Upper bounds of the time an answer takes, in nanoseconds: CoreDNS's, 0.25 ms to 2.5 s.
pub(super) const BOUNDS: [u64; 5] = [250_000, 2_500_000, 25_000_000, 250_000_000, 2_500_000_000];
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3);
/// What takes longer on one machine is said.
const SLOW: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: u64 = 1024;

/// What has come of asking since the start.
#[derive(Debug, Default)]
pub(super) struct OwnHealth {
    took: Histogram<{ BOUNDS.len() }>,
    failures: AtomicU64,
    /// It was said that something is wrong: once, until it is well again.
    is_said: AtomicBool,
}

impl OwnHealth {
    /// Asks for as long as this is awaited.
    pub(super) async fn follow(&self, served: SocketAddr) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.ask(served).await;
        }
    }

    async fn ask(&self, served: SocketAddr) {
        let begun = Instant::now();
        let asked = timeout(TIMEOUT, answer(served)).await;
        let answered = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let took = begun.elapsed();
        self.count(took);
        let is_well = answered.is_ok() && took <= SLOW;
        let was_well = !self.is_said.swap(!is_well, Relaxed);
        if let Err(error) = answered {
            self.failures.fetch_add(1, Relaxed);
            if was_well {
                tracing::warn!(%served, %error, "Corefile: health does not answer itself");
            }
        } else if was_well && !is_well {
            tracing::warn!(%served, ?took, "Corefile: health answers itself late");
        } else if is_well && !was_well {
            tracing::info!(%served, "Corefile: health answers itself in time again");
        }
    }

    fn count(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.took.observe(&BOUNDS, nanoseconds);
    }

    /// Times by [`BOUNDS`], of failures too, and failures.
    pub(super) fn report(&self) -> (HistogramReport, u64) {
        let mut took = HistogramReport::default();
        self.took.add_to(&mut took);
        (took, self.failures.load(Relaxed))
    }
}

/// Asks once, by a connection of its own: that it is accepted is a part of what is asked.
async fn answer(served: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(&reached_at(served)[..]).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {served}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![];
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("{:?} instead of 200", String::from_utf8_lossy(line))))
}

/// Where a server of this machine is reached, to be tried in turn: one that listens on `[::]` takes IPv4,
/// too, and there may be no IPv6 address.
fn reached_at(served: SocketAddr) -> Vec<SocketAddr> {
    let loopback = |ip: IpAddr| SocketAddr::new(ip, served.port());
    match served.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![loopback(Ipv4Addr::LOCALHOST.into())],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![loopback(Ipv6Addr::LOCALHOST.into()), loopback(Ipv4Addr::LOCALHOST.into())]
        }
        _ => vec![served],
    }
}

#[cfg(test)]
mod tests {
    use hyper::{StatusCode, Uri};
    use tokio::net::TcpSocket;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::agent::http;

    #[test]
    fn times_are_counted_by_coredns_s_bounds() {
        let own = OwnHealth::default();
        assert_eq!(own.report().0.counts, [0; BOUNDS.len() + 1], "told before the first question");
        for nanoseconds in [0, 250_000, 250_001, 2_500_000_000, 2_500_000_001] {
            own.count(Duration::from_nanos(nanoseconds));
        }
        let (took, failures) = own.report();
        assert_eq!(took.counts, [2, 1, 0, 0, 1, 1]);
        assert_eq!((took.sum, failures), (5_000_500_002, 0));
    }

    #[test]
    fn a_server_of_all_addresses_is_reached_at_the_loopback_address() {
        let cases: [(&str, &[&str]); 4] = [
            ("0.0.0.0:8080", &["127.0.0.1:8080"]),
            ("[::]:8080", &["[::1]:8080", "127.0.0.1:8080"]),
            ("192.0.2.1:8080", &["192.0.2.1:8080"]),
            ("[2001:db8::1]:8080", &["[2001:db8::1]:8080"]),
        ];
        for (served, wanted) in cases {
            let found: Vec<_> =
                reached_at(served.parse().unwrap()).iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted, "{served}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_of_its_own_is_a_failure() {
        let cancel = CancellationToken::new();
        let _ends = cancel.clone().drop_guard();
        let serve = async |status: StatusCode| {
            let pages = http::Texts::new(move |uri: &Uri| {
                (uri.path() == "/health").then(|| (status, "OK".to_owned()))
            });
            http::serve("test", ([0, 0, 0, 0], 0).into(), pages, cancel.clone()).await.unwrap()
        };
        let good = serve(StatusCode::OK).await;
        let bad = serve(StatusCode::SERVICE_UNAVAILABLE).await;
        // Bound, so that nobody else listens there either.
        let held = TcpSocket::new_v4().unwrap();
        held.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let closed = held.local_addr().unwrap();
        let own = OwnHealth::default();
        for (at, failures, is_said) in
            [(good, 0, false), (bad, 1, true), (closed, 2, true), (good, 2, false)]
        {
            own.ask(at).await;
            assert_eq!(own.report().1, failures, "{at}");
            assert_eq!(own.is_said.load(Relaxed), is_said, "{at}");
        }
        assert_eq!(own.report().0.counts.iter().sum::<u64>(), 4);
    }
}
