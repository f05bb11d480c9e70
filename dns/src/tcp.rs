//! DNS over TCP (RFC 7766): length-prefixed, several queries at a time, replies in the order they
//! are ready.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use fairlead_handover::Group;
use futures::{FutureExt, poll};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy, sink},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    answer::{Outcome, Plain, at_once, rotation},
    clients::{Rate, Seat, Seats},
    counters::{Answered, Counters, DropReason, nanoseconds},
    panics::caught,
    policy::{Asking, Policy},
    slow::{Asked, Place, SlowPath},
    wire::{
        question::{Question, Shape},
        reply::failure,
        room::with_room,
    },
    zone::Zone,
};

/// Connections at one time, all addresses together.
pub(crate) const CONNECTIONS_MAX: usize = 1000;
/// Connections of one client at one time: a fifth of all.
pub(crate) const CONNECTIONS_EACH_MAX: usize = 200;
/// A connection without a complete query for so long is closed (RFC 7766 §6.2.3), and one that
/// takes no replies.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is read from once the server ends: a client that has more to ask does so at once.
const DRAINING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long what still comes is thrown away after that. A socket closed with something unread in it resets its
/// connection (RFC 2525 §2.17), and the replies on their way may be lost with it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a listener that ends still takes connections whose handshake had begun.
const HANDSHAKE_PATIENCE: Duration = Duration::from_millis(200);
/// Largest query, in bytes; nothing we answer needs more.
const QUERY_BYTES_MAX: usize = 4096;
/// Replies of one connection that may wait to be written; with so many nothing more is read.
const PIPELINE_MAX: usize = 32;
/// The same in bytes, lengths included: the largest reply fits. What a client that asks and does not read holds
/// is at most this, and one reply that waits for room; of all connections together some 128 MiB. Besides, each
/// question that is in the slow path already may have a reply (its places bound them).
const PIPELINE_BYTES_MAX: usize = 2 + u16::MAX as usize;
/// Pause after an accept that failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection needs.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Which server blocks are asked through this listener.
    pub(crate) group: usize,
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) zone: Arc<ArcSwap<Zone>>,
    pub(crate) slow: SlowPath,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tasks: TaskTracker,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) clients: Arc<Seats>,
    /// Of each client, by UDP and TCP together; `None`: as many questions as it likes.
    pub(crate) rate: Option<Arc<Rate>>,
    pub(crate) cancel: CancellationToken,
}

/// A connection's replies on their way out.
#[derive(Clone, Debug)]
struct Replies {
    queue: mpsc::Sender<Framed>,
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
}

/// A reply with its length in front, and the room it takes until it is written.
#[derive(Debug)]
struct Framed {
    message: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Server {
    /// Accepts until cancelled, and then what had been begun.
    pub(crate) async fn run(self, listener: TcpListener) {
        let accepting = async {
            loop {
                self.accept(&listener).await;
            }
        };
        self.cancel.run_until_cancelled(accepting).await;
        if let Ok(address) = listener.local_addr() {
            Group::single(address).leave(&listener);
        }
        let finishing = async {
            loop {
                self.accept(&listener).await;
            }
        };
        // An accepted connection is what the wait is for; the last moment's are taken as well.
        let _ = timeout(HANDSHAKE_PATIENCE, finishing).await;
        while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
            self.take(stream);
        }
    }

    async fn accept(&self, listener: &TcpListener) {
        match listener.accept().await {
            Ok((stream, _)) => self.take(stream),
            Err(error) => {
                tracing::debug!("DNS: accept failed: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn take(&self, stream: TcpStream) {
        // Gone already.
        let Ok(client) = stream.peer_addr() else { return };
        let Some(seat) = self.clients.seat(client.ip()) else {
            return self.counters.dropped(DropReason::ClientConnections, 1);
        };
        match self.connections.clone().try_acquire_owned() {
            Ok(permit) => drop(self.tasks.spawn(self.clone().serve(stream, (permit, seat)))),
            Err(_) => self.counters.dropped(DropReason::TcpConnections, 1),
        }
    }

    async fn serve(self, stream: TcpStream, place: (OwnedSemaphorePermit, Seat)) {
        // Replies are whole messages in one write: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let (mut reader, writer) = stream.into_split();
        let (replies, to_write) = queue();
        let counters = self.counters.clone();
        let writing = self.tasks.spawn(async move {
            write_replies(writer, to_write, &counters).await;
            drop(place);
        });
        // Ends when either side does: the client closed or idles, or takes no more replies.
        let _ = caught(&self.counters, self.read_queries(&mut reader, replies)).await;
        let _ = writing.await;
        if self.cancel.is_cancelled() {
            let _ = timeout(LINGER_TIMEOUT, copy(&mut reader, &mut sink())).await;
        }
    }

    async fn read_queries(&self, reader: &mut OwnedReadHalf, replies: Replies) -> io::Result<()> {
        let mut question = Question::new();
        // However busy it is: a client that asks without a pause has another server, and would be cut off.
        let mut drained = pin!(async {
            self.cancel.cancelled().await;
            sleep(DRAINING_TIMEOUT).await;
        });
        loop {
            let query = tokio::select! {
                // A client that stopped reading ends the writer; then reading more is work for
                // nobody.
                () = replies.queue.closed() => return Ok(()),
                () = &mut drained => return Ok(()),
                () = sleep(IDLE_TIMEOUT) => return Ok(()),
                query = read_query(reader) => query.inspect_err(|error| {
                    if error.kind() == io::ErrorKind::InvalidData {
                        self.counters.dropped(DropReason::Oversized, 1);
                    }
                })?,
            };
            self.counters.tcp_queries.fetch_add(1, Ordering::Relaxed);
            let source = reader.peer_addr()?;
            // By UDP it would get no reply either; the connection is its own affair.
            if self.rate.as_ref().is_some_and(|rate| !rate.admits(source.ip(), Instant::now())) {
                self.counters.dropped(DropReason::ClientRate, 1);
                continue;
            }
            match self.at_once(&query, source, &mut question) {
                Next::Reply(reply) => {
                    if replies.put(reply).await.is_none() {
                        return Ok(());
                    }
                }
                Next::Slow => {
                    // Their replies would have nowhere to go.
                    if replies.ready().await.is_none() {
                        return Ok(());
                    }
                    let Some(place) = self.slow.place(source.ip(), &self.counters) else {
                        // A client that has a connection waits for a reply on it, and asks nobody else.
                        let Some(reply) = failure(&query) else { return Ok(()) };
                        if replies.put(with_length(&reply)).await.is_none() {
                            return Ok(());
                        }
                        continue;
                    };
                    let local = reader.local_addr().ok().map(|own| own.ip());
                    self.answer_slowly(query, (source, local), place, replies.clone());
                }
                Next::Close => return Ok(()),
            }
        }
    }

    fn at_once(&self, query: &[u8], source: SocketAddr, question: &mut Question) -> Next {
        match question.read(query) {
            Shape::Drop(reason) => {
                self.counters.dropped(reason, 1);
                return Next::Close;
            }
            Shape::Odd => return Next::Slow,
            Shape::Plain => {}
        }
        // The client's id is random, and most connections carry one query.
        let id = query.first_chunk().copied().map_or(0, u16::from_be_bytes);
        let (policy, zone) = (self.policy.load(), self.zone.load());
        let asking = Asking { question, query, source, tcp: true };
        let Some(site) = policy.site(self.group, asking) else { return Next::Slow };
        let book = site.ledger.book(self.counters.slot);
        let begun = Instant::now();
        with_room(|buffer| {
            let plain = Plain { asking, limit: buffer.len(), rotation: rotation(id.into()), book };
            let outcome = at_once(site, &zone, plain, buffer);
            let (Outcome::Reply(made) | Outcome::Refresh(made)) = outcome else {
                return Next::Slow;
            };
            if matches!(outcome, Outcome::Refresh(_)) {
                self.slow.refresh(self.group, asking, &self.counters);
            }
            if let Some(book) = book {
                let dnssec_ok = question.edns.is_some_and(|edns| edns.dnssec_ok);
                book.answered(Answered {
                    qtype: question.qtype,
                    dnssec_ok,
                    query_bytes: query.len(),
                    by: made.by,
                    code: made.code.into(),
                    reply_bytes: made.bytes,
                });
                book.took(nanoseconds(begun.elapsed()), 1);
            }
            Next::Reply(with_length(buffer.get(..made.bytes).unwrap_or_default()))
        })
    }

    fn answer_slowly(
        &self,
        query: Vec<u8>,
        (source, local): (SocketAddr, Option<IpAddr>),
        place: Place,
        replies: Replies,
    ) {
        let (slow, counters, group) = (self.slow.clone(), self.counters.clone(), self.group);
        self.tasks.spawn(async move {
            let asked = Asked::new(&query, source, true, group).at(local);
            let Some(reply) = slow.reply(asked, &place, &counters).await else { return };
            let framed = with_length(&reply);
            drop(reply);
            let mut putting = pin!(replies.put(framed));
            // A client that takes no replies is waited for as an upstream is that gives none.
            if poll!(&mut putting).is_pending() {
                let _ = place.wait(putting, &counters).await;
            }
        });
    }
}

/// The next message of a connection.
///
/// # Errors
/// The connection ended; [`io::ErrorKind::InvalidData`]: the message is larger than any query.
pub(crate) async fn read_query(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::from(reader.read_u16().await?);
    if length > QUERY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut query = vec![0; length];
    reader.read_exact(&mut query).await?;
    Ok(query)
}

/// What a message on a connection leads to.
enum Next {
    Reply(Vec<u8>),
    Slow,
    Close,
}

/// The message behind the two bytes of its length, in no more memory than that takes.
fn with_length(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(0);
    [&length.to_be_bytes(), message].concat()
}

/// Room for the replies of a connection.
fn queue() -> (Replies, mpsc::Receiver<Framed>) {
    let (queue, to_write) = mpsc::channel(PIPELINE_MAX);
    (Replies { queue, room: Arc::new(Semaphore::new(PIPELINE_BYTES_MAX)) }, to_write)
}

impl Replies {
    /// Waits until no reply waits for room; `None`: the connection is gone.
    async fn ready(&self) -> Option<()> {
        // Behind all that wait already, however little it is.
        tokio::select! {
            room = self.room.acquire() => drop(room.ok()?),
            () = self.queue.closed() => return None,
        }
        self.queue.reserve().await.ok().map(drop)
    }

    /// Waits until there is room; `None`: the connection is gone.
    async fn put(&self, message: Vec<u8>) -> Option<()> {
        // What it holds, which may be more than it says.
        let bytes = u32::try_from(message.capacity().min(PIPELINE_BYTES_MAX)).ok()?;
        let room = tokio::select! {
            room = self.room.clone().acquire_many_owned(bytes) => room.ok()?,
            () = self.queue.closed() => return None,
        };
        self.queue.send(Framed { message, _room: room }).await.ok()
    }
}

/// Writes until nobody can send replies any more, or the client does not take them.
async fn write_replies(
    mut writer: OwnedWriteHalf,
    mut replies: mpsc::Receiver<Framed>,
    counters: &Counters,
) {
    while let Some(reply) = replies.recv().await {
        match timeout(IDLE_TIMEOUT, writer.write_all(&reply.message)).await {
            Ok(Ok(())) => {}
            // The client is gone.
            Ok(Err(_)) => return,
            Err(_) => {
                return counters.dropped(DropReason::NotTaken, 1 + replies.len() as u64);
            }
        }
    }
    let _ = writer.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::{
        op::{Edns, Message, Query, ResponseCode},
        rr::{Name, RecordType},
    };

    use super::*;
    use crate::{
        config::DnsConfig,
        counters::{Registry, Way},
        server::origin,
    };

    /// It got nothing: the client waited on its connection until it gave up.
    #[tokio::test]
    async fn a_question_that_gets_no_place_is_answered_with_a_failure() {
        let (policy, tasks) = (Arc::<ArcSwap<Policy>>::default(), TaskTracker::new());
        let zone = Zone::unsynced(origin(&DnsConfig::default()).unwrap(), 1);
        let zone = Arc::new(ArcSwap::from_pointee(zone));
        let runtime = tokio::runtime::Handle::current();
        let server = Server {
            group: 0,
            policy: policy.clone(),
            zone: zone.clone(),
            slow: SlowPath::new(runtime, tasks.clone(), policy, zone),
            counters: Registry::default().add(Way { tcp: true, ipv6: false }, None),
            tasks,
            connections: Arc::new(Semaphore::new(1)),
            clients: Seats::new(1),
            rate: None,
            cancel: CancellationToken::new(),
        };
        let place = || server.slow.place(Ipv4Addr::LOCALHOST.into(), &server.counters);
        let taken: Vec<_> = std::iter::from_fn(place).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        server.take(listener.accept().await.unwrap().0);
        let mut asked = Message::query();
        asked.metadata.recursion_desired = true;
        asked.queries.push(Query::query(Name::from_ascii("wWw.example.").unwrap(), RecordType::A));
        asked.edns = Some(Edns::new());
        let query = asked.to_vec().unwrap();
        // The second is no question of the fast path's, and read no further than its header.
        for (query, questions) in [(query.clone(), 1), (query[..14].to_vec(), 0)] {
            client.write_all(&with_length(&query)).await.unwrap();
            let mut reply = vec![0; client.read_u16().await.unwrap().into()];
            client.read_exact(&mut reply).await.unwrap();
            let reply = Message::from_vec(&reply).unwrap();
            assert_eq!(reply.metadata.id, asked.metadata.id);
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{reply}");
            assert_eq!(reply.queries, asked.queries[..questions], "{reply}");
        }
        drop(taken);
    }

    /// Replies between 2 and 64 KiB each kept the 64 KiB they had been made in, 32 of them a connection.
    #[test]
    fn replies_that_wait_hold_no_more_than_they_are_counted_for() {
        for bytes in [0, 1, 2047, 2048, 2049, 4096, usize::from(u16::MAX)] {
            let framed = with_length(&vec![7; bytes]);
            assert_eq!((framed.len(), framed.capacity()), (2 + bytes, 2 + bytes));
            assert_eq!(framed.get(..2).unwrap(), u16::try_from(bytes).unwrap().to_be_bytes());
        }
        let (replies, _to_write) = queue();
        let small = || Vec::from([0; 2 + 2049]);
        let put = |message| replies.put(message).now_or_never().is_some();
        assert!((0..31).all(|_| put(small())), "31 of them have room");
        assert!(!put(small()));
        let (replies, _to_write) = queue();
        let mut roomy = Vec::with_capacity(PIPELINE_BYTES_MAX);
        roomy.extend_from_slice(&[0; 14]);
        assert!(replies.put(roomy).now_or_never().is_some());
        assert!(replies.put(vec![0; 14]).now_or_never().is_none(), "the room is all taken");
    }

    /// A slot was enough: a client that read nothing had as many large replies made as the slow path has places.
    #[test]
    fn while_a_reply_waits_for_room_no_slow_question_is_read() {
        let (replies, mut to_write) = queue();
        let large = || vec![0; PIPELINE_BYTES_MAX / 2 + 1];
        assert!(replies.put(large()).now_or_never().is_some());
        assert!(replies.ready().now_or_never().is_some(), "there is room for small ones");
        let mut waiting = pin!(replies.put(large()));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(replies.ready().now_or_never().is_none());
        drop(to_write.try_recv().expect("the first reply"));
        assert_eq!(waiting.now_or_never(), Some(Some(())));
        assert!(replies.ready().now_or_never().is_some());
        drop(to_write);
        assert_eq!(replies.ready().now_or_never(), Some(None), "the connection is gone");
    }
}
