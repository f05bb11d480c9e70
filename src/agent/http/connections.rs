//! Connections of a small server. Some of these ports are open to all pods and beyond: whoever holds connections
//! must not keep a probe from its answer.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, pending},
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{body::Body as _, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::AbortHandle,
    time::sleep,
};

use super::Site;

/// A scraper or kubelet needs one; more than this is somebody else.
const CONNECTIONS_MAX: usize = 64;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// With the answer read to its end: scrapers wait for 10 s, this program's own commands for so long.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Request line and fields together; hyper takes no less.
const HEAD_BYTES_MAX: usize = 8192;
/// Out of descriptors: the connection stays in the backlog until one is free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Who connects; on a Unix socket all are the same.
type Peer = Option<IpAddr>;

/// Where connections come from.
pub(in crate::agent) trait Accept: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, peer) = self.accept().await?;
        Ok((stream, Some(peer.ip().to_canonical())))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        Ok((self.accept().await?.0, None))
    }
}

/// Answers whoever comes by what `site_of` has for the connection, which is closed where that is nothing. Connections end with it.
pub(in crate::agent) async fn accept<A: Accept, S: Site>(
    listener: &A,
    site_of: impl Fn(&A::Stream) -> Option<S>,
) {
    let mut open = Open::default();
    loop {
        let Ok((stream, peer)) = listener.next().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        if let Some(site) = site_of(&stream) {
            open.take(peer, converse(stream, site, CONNECTION_TIME_MAX));
        }
    }
}

/// The connections of a listener, the oldest first.
#[derive(Debug, Default)]
struct Open(Vec<(Peer, AbortHandle)>);

impl Open {
    /// There is always room for one more.
    fn take(&mut self, peer: Peer, connection: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() >= CONNECTIONS_MAX
            && let Some(at) = in_the_way(self.0.iter().map(|(peer, _)| *peer))
        {
            self.0.remove(at).1.abort();
        }
        self.0.push((peer, tokio::spawn(connection).abort_handle()));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, task)| task.abort());
    }
}

/// The oldest of whoever has most: a flood from one address ends nobody's connections but its own.
fn in_the_way(mut peers: impl Iterator<Item = Peer> + Clone) -> Option<usize> {
    let mut counts: BTreeMap<Peer, usize> = BTreeMap::new();
    for peer in peers.clone() {
        *counts.entry(peer).or_default() += 1;
    }
    let most = counts.values().max().copied();
    peers.position(|peer| counts.get(&peer).copied() == most)
}

/// One request and its answer.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    site: impl Site,
    time_max: Duration,
) {
    let is_endless = Arc::new(AtomicBool::new(false));
    let told = is_endless.clone();
    let service = service_fn(move |request| {
        let (site, told) = (site.clone(), told.clone());
        async move {
            let response = site.answer(request).await;
            // What is followed has no length, and takes the time it takes; how many follow, sites bound.
            told.store(response.body().size_hint().exact().is_none(), Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    // Those who ask do so every few seconds, about as long as hyper waits for the next request: it would meet the close.
    connection.max_buf_size(HEAD_BYTES_MAX).keep_alive(false);
    // hyper has no time-out for whoever does not read.
    let over = async {
        sleep(time_max).await;
        if is_endless.load(Relaxed) {
            pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        // A client that hangs up is no event of ours.
        _ = connection.serve_connection(TokioIo::new(stream), service) => {}
        () = over => {}
    }
}

#[cfg(test)]
pub(in crate::agent) mod tests {
    use std::net::SocketAddr;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use hyper::{
        Request, Response,
        body::{Frame, Incoming},
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::timeout,
    };
    use tokio_util::sync::CancellationToken;

    use super::{
        super::{Body, serve},
        *,
    };

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// Twice as many connections as there is room for, held by one address: some say nothing, some ask again and again and read nothing.
    pub(in crate::agent) async fn besiege(at: SocketAddr) -> Vec<TcpStream> {
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(TcpStream::connect(at).await.unwrap());
            let mut unread = TcpStream::connect(at).await.unwrap();
            // It may have been ended meanwhile.
            drop(unread.write_all(&REQUEST.repeat(100)).await);
            held.push(unread);
        }
        held
    }

    /// What a probe is answered, unless that takes as long as others may take to ask.
    pub(in crate::agent) async fn probe(at: SocketAddr) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let patience = HEADER_READ_TIMEOUT - Duration::from_secs(1);
        timeout(patience, asked).await.expect("an answer in time")
    }

    /// One answer for all.
    #[derive(Clone)]
    struct Always(Bytes);

    impl Site for Always {
        async fn answer(&self, _: Request<Incoming>) -> Response<Body> {
            Response::new(Full::from(self.0.clone()).boxed_unsync())
        }
    }

    /// A line now, and another one later.
    #[derive(Clone)]
    struct Followed;

    impl Site for Followed {
        async fn answer(&self, _: Request<Incoming>) -> Response<Body> {
            let lines = futures::stream::unfold(0, |n| async move {
                if n > 0 {
                    sleep(Duration::from_millis(10)).await;
                }
                let line = Frame::data(Bytes::from_static(b"line\n"));
                (n < 2).then_some((Ok::<_, Infallible>(line), n + 1))
            });
            Response::new(StreamBody::new(lines).boxed_unsync())
        }
    }

    /// Any pod could have cluster DNS started anew, and a node taken out of its balancer.
    #[tokio::test]
    async fn attack_connections_that_are_held_keep_no_probe_from_its_answer() {
        // More than both ends of a connection hold of it unread.
        let large = Bytes::from(vec![b'x'; 16 << 20]);
        let cancel = CancellationToken::new();
        let _ends = cancel.clone().drop_guard();
        let small = Always(Bytes::from_static(b"well"));
        for (site, held_by) in [(small, "silence"), (Always(large), "answers")] {
            let at = serve("test", ([127, 0, 0, 1], 0).into(), site, cancel.clone()).await.unwrap();
            let _held = besiege(at).await;
            let answer = probe(at).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{held_by}: {answer:.80}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer:.300}");
        }
    }

    #[test]
    fn who_has_most_connections_loses_his_oldest() {
        let [probe, pod, other] = [1, 2, 3].map(|n| Some(IpAddr::from([192, 0, 2, n])));
        for (peers, expected) in [
            (&[][..], None),
            (&[None, None], Some(0)),
            (&[probe, pod, pod], Some(1)),
            (&[pod, probe, other, other, pod], Some(0)),
            (&[probe, other, pod, other], Some(1)),
            (&[probe, pod, other], Some(0)),
        ] {
            assert_eq!(in_the_way(peers.iter().copied()), expected, "{peers:?}");
        }
    }

    #[tokio::test]
    async fn who_reads_no_answer_is_hung_up_on_and_who_follows_is_not() {
        let (mut client, server) = duplex(128);
        client.write_all(REQUEST).await.unwrap();
        let site = Always(Bytes::from(vec![b'x'; 4096]));
        converse(server, site, Duration::ZERO).await;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.len() <= 128, "what was under way");

        let (mut client, server) = duplex(128);
        client.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        let reading = client.read_to_string(&mut answer);
        let ((), read) = tokio::join!(converse(server, Followed, Duration::ZERO), reading);
        read.unwrap();
        assert_eq!(answer.matches("line\n").count(), 2, "{answer}");
    }
}
