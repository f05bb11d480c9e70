//! Upstreams that do not answer are left out until they do again, as CoreDNS's `health_check`.
//!
//! Nothing is probed while questions are answered. One that fails or takes long begins the probing,
//! which ends when every upstream has answered.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures::future::join_all;
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::{UpstreamPool, Wishes, manner::Manner, question::Question};
use crate::{
    cache::Flavour,
    corefile::{HealthCheck, Transport},
    wire::UDP_REPLY_BYTES_MAX,
};

/// Longest wait for the answer to a probe, as CoreDNS.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Probes all upstreams until each has answered; ends with the pool.
pub(super) async fn watch(pool: Weak<UpstreamPool>) {
    let mut fails: HashMap<SocketAddr, u32> = HashMap::new();
    loop {
        let Some(alive) = pool.upgrade() else { return };
        let (servers, check) = (alive.all(), alive.check.clone());
        let probes = servers.iter().map(|server| probe(&alive.manner, *server, &check));
        let answers = join_all(probes).await;
        drop(alive);
        for (server, answered) in servers.iter().zip(answers) {
            match answered {
                Ok(()) => {
                    fails.remove(server);
                }
                Err(_) => {
                    *fails.entry(*server).or_default() += 1;
                    if let Some(alive) = pool.upgrade() {
                        alive.note_failed_probe(*server);
                    }
                }
            }
        }
        // A file may name others by now.
        fails.retain(|server, _| servers.contains(server));
        let Some(alive) = pool.upgrade() else { return };
        let is_down =
            |server: &SocketAddr| fails.get(server).is_some_and(|count| *count > check.max_fails);
        alive.leave_out(servers.into_iter().filter(is_down).collect());
        if fails.is_empty() {
            alive.probing.store(false, Relaxed);
            return;
        }
        drop(alive);
        sleep(check.interval).await;
    }
}

/// Asks for the name servers of the check's domain; any answer is one.
async fn probe(manner: &Manner, server: SocketAddr, check: &HealthCheck) -> io::Result<()> {
    let recursion_desired = check.recursion_desired;
    let mut message = Message::query();
    message.metadata.recursion_desired = recursion_desired;
    let name = Name::from_ascii(&check.domain).unwrap_or_else(|_| Name::root());
    message.queries.push(Query::query(name.clone(), RecordType::NS));
    let id = message.metadata.id.to_be_bytes();
    let query = message.to_vec().map_err(io::Error::other)?;
    let flavour = Flavour::default();
    let wishes = Wishes { recursion_desired, authentic_data: false, flavour };
    let question = Question { name, qtype: RecordType::NS, wishes, random_case: false };
    let asking = async {
        match manner.transport {
            _ if manner.is_tls(&server) => by_tls(manner, server, &question).await,
            Transport::Plain => by_udp(server, &query, id).await,
            Transport::Tcp => by_tcp(server, &query, id).await,
        }
    };
    timeout(PROBE_TIMEOUT, asking).await?
}

async fn by_udp(server: SocketAddr, query: &[u8], id: [u8; 2]) -> io::Result<()> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = [0; UDP_REPLY_BYTES_MAX];
    loop {
        // What is no answer to this is waited past, as for questions of clients.
        let received = socket.recv(&mut reply).await?;
        if received >= 2 && reply.starts_with(&id) {
            return Ok(());
        }
    }
}

async fn by_tls(manner: &Manner, server: SocketAddr, question: &Question) -> io::Result<()> {
    let upstream = manner.upstream(server).map_err(io::Error::other)?;
    let answered = upstream.ask(question).await.map(drop);
    answered.ok_or_else(|| io::ErrorKind::NotConnected.into())
}

async fn by_tcp(server: SocketAddr, query: &[u8], id: [u8; 2]) -> io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await?;
    if reply.ends_with(&id) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

impl UpstreamPool {
    fn note_failed_probe(&self, server: SocketAddr) {
        let failed = &self.counts.failed_probes;
        *failed.lock().unwrap_or_else(PoisonError::into_inner).entry(server).or_default() += 1;
    }

    /// Begins probing, unless it is under way or can change nothing.
    pub(super) fn suspect(self: &Arc<Self>) {
        let matters = self.check.max_fails > 0 && (self.check.fail_fast || self.all().len() > 1);
        if matters && !self.probing.swap(true, Relaxed) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }
}
