//! UDP: datagrams of one client go to one endpoint, and what that one answers goes back.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::UdpSocket,
    task::{AbortHandle, spawn_local},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    clients::{self, Room},
    datagrams::{Datagrams, Way},
};
use crate::routes::{Endpoint, Pick, Stream};

/// A client that sends nothing and is sent nothing so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// Where a datagram is read to.
type Page = Rc<RefCell<Vec<u8>>>;
/// Of one service, whatever address they ask.
pub(super) type Clients = Rc<RefCell<clients::Clients<Way, Served>>>;
pub(super) type Everybody = clients::Everybody<Way, Served>;

/// A client, for as long as it has a place among the others.
pub(super) struct Served {
    client: Rc<Client>,
    /// Has the rest of it: its socket is closed.
    answering: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// A client and its endpoint.
struct Client {
    socket: UdpSocket,
    endpoint: Arc<Endpoint>,
    used: Cell<Instant>,
}

/// The way back to a client.
struct Back {
    to: Way,
    socket: Rc<Datagrams>,
    clients: Clients,
    page: Page,
    shared: Rc<Shared>,
}

pub(super) async fn serve(
    shared: Rc<Shared>,
    socket: Datagrams,
    stream: Rc<RefCell<Stream>>,
    clients: Clients,
) {
    let socket = Rc::new(socket);
    // One for all: each client with its own would be a gigabyte.
    let answers: Page = Rc::new(RefCell::new(vec![0; DATAGRAM_BYTES_MAX]));
    // A socket that nobody reads any more would still be sent its share of datagrams by the kernel.
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    let mut turn = 0usize;
    loop {
        let Ok((length, from)) = socket.receive(&mut datagram).await else { continue };
        let known = clients.borrow().get(&from).map(|served| served.client.clone());
        // An endpoint that went is not sent to any more.
        let known = known.filter(|client| !client.endpoint.is_gone());
        let client = match known {
            Some(client) => client,
            None => {
                turn = turn.wrapping_add(1);
                clients.borrow_mut().remove(&from);
                let endpoint = stream.borrow().upstream.choose(Pick::Turn(turn), &[]);
                let Some(Ok(client)) = endpoint.map(Client::new) else {
                    shared.counters.streams_failed.add();
                    continue;
                };
                // Only now: nobody makes room for a client whose endpoint cannot be reached.
                make_room(&shared, &clients);
                shared.counters.streams.add();
                shared.counters.streams_ended.add();
                let client = Rc::new(client);
                let back = Back {
                    to: from,
                    socket: socket.clone(),
                    clients: clients.clone(),
                    page: answers.clone(),
                    shared: shared.clone(),
                };
                let answering = answer(client.clone(), back);
                let answering = spawn_local(end.clone().run_until_cancelled_owned(answering));
                let answering = answering.abort_handle();
                clients.borrow_mut().put(from, Served { client: client.clone(), answering });
                client
            }
        };
        clients.borrow_mut().hear(&from);
        client.used.set(Instant::now());
        let sent = client.socket.try_send(datagram.get(..length).unwrap_or_default());
        if sent.is_err() {
            shared.counters.streams_failed.add();
        }
    }
}

/// For one more.
fn make_room(shared: &Shared, clients: &Clients) {
    let limits = &shared.config.load().limits;
    let room =
        Room { per_service_max: limits.udp_clients_per_service_max, max: limits.udp_clients_max };
    if shared.udp.make_room(clients, room).is_some() {
        shared.counters.streams_displaced.add();
    }
}

impl Client {
    fn new(endpoint: Arc<Endpoint>) -> io::Result<Self> {
        let address = endpoint.address();
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, endpoint, used: Cell::new(Instant::now()) })
    }
}

/// Sends back what comes, until nothing does.
async fn answer(client: Rc<Client>, back: Back) {
    let Back { to, socket, clients, page, shared } = back;
    loop {
        match timeout(IDLE, client.socket.readable()).await {
            Ok(Ok(())) => {
                let mut datagram = page.borrow_mut();
                match client.socket.try_recv(&mut datagram) {
                    Ok(length) => {
                        client.used.set(Instant::now());
                        clients.borrow_mut().hear(&to);
                        let datagram = datagram.get(..length).unwrap_or_default();
                        if socket.answer(datagram, to).is_err() {
                            shared.counters.streams_failed.add();
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // Refused (ICMP): the endpoint may be back for the next datagram.
                    Err(_) => break,
                }
            }
            Ok(Err(_)) => break,
            Err(_) if client.used.get().elapsed() >= IDLE => break,
            Err(_) => {}
        }
        if client.endpoint.is_gone() {
            break;
        }
    }
    let mut clients = clients.borrow_mut();
    // Another one may have taken its place.
    if clients.get(&to).is_some_and(|current| Rc::ptr_eq(&current.client, &client)) {
        clients.remove(&to);
    }
}
