//! One request and its answer, or how it failed.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::bail;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UdpSocket, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    question,
    target::{Scheme, Target},
};

/// From connect to the end of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often something not yet there is asked for.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Larger answers to a datagram are cut.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// Whom to call and how.
pub(crate) struct Caller {
    /// As given.
    pub(crate) target: Target,
    /// Where its host is; `None`: looked up for each connection.
    pub(crate) address: Option<SocketAddr>,
    /// For HTTPS.
    pub(crate) tls: Option<TlsConnector>,
    /// The only good status.
    pub(crate) expect: u16,
    /// What a datagram says.
    pub(crate) send: String,
}

impl Caller {
    async fn address(&self) -> Result<SocketAddr, Failure> {
        if let Some(address) = self.address {
            return Ok(address);
        }
        let failed = |detail| Failure { kind: "lookup", detail, broken: false };
        let Target { host, port, .. } = &self.target;
        let found = lookup_host((host.as_str(), *port)).await;
        let first = found.map_err(|error| failed(error.to_string()))?.next();
        first.ok_or_else(|| failed(format!("{host} has no address")))
    }
}

/// A good answer.
pub(crate) struct Answer {
    /// HTTP status, 0 for UDP.
    pub(crate) status: u16,
    /// `Location`, of a redirect.
    pub(crate) location: Option<String>,
    /// All of it.
    pub(crate) body: Bytes,
    /// The server closes the connection now (`Connection: close`).
    pub(crate) last: bool,
}

/// How a request failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// One word: refused, reset, timeout, closed, unreachable, tls, status, lookup, nxdomain,
    /// nodata, rcode, other.
    pub(crate) kind: &'static str,
    /// The rest.
    pub(crate) detail: String,
    /// The connection had been established.
    pub(crate) broken: bool,
}

impl Failure {
    fn connecting(error: &io::Error) -> Self {
        Self { kind: kind_of(error), detail: error.to_string(), broken: false }
    }

    fn talking(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut kind = "closed";
        let mut detail = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            detail = format!("{detail}: {inner}");
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                kind = kind_of(io);
            }
            cause = inner.source();
        }
        Self { kind, detail, broken: true }
    }

    fn timeout(broken: bool) -> Self {
        Self { kind: "timeout", detail: format!("no answer for {REQUEST_TIMEOUT:?}"), broken }
    }
}

fn kind_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::UnexpectedEof => "closed",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        _ => "other",
    }
}

/// An open HTTP connection.
pub(crate) type Sender = http1::SendRequest<Empty<Bytes>>;

/// A connection (or datagram) of its own for one request.
pub(crate) async fn once(caller: &Caller) -> Result<Answer, Failure> {
    let call = async {
        match caller.target.scheme {
            Scheme::Udp => datagram(caller).await,
            Scheme::Dns => question::ask(caller).await,
            Scheme::Http | Scheme::Https => {
                let mut sender = connect(caller).await?;
                exchange(caller, &mut sender, "close").await
            }
        }
    };
    timeout(REQUEST_TIMEOUT, call).await.unwrap_or_else(|_| Err(Failure::timeout(false)))
}

/// Opens a connection that stays open, in no longer than a request may take.
pub(crate) async fn open(caller: &Caller) -> Result<Sender, Failure> {
    let connecting = timeout(REQUEST_TIMEOUT, connect(caller)).await;
    connecting.unwrap_or_else(|_| Err(Failure::timeout(false)))
}

/// One request of several on a connection.
pub(crate) async fn again(caller: &Caller, sender: &mut Sender) -> Result<Answer, Failure> {
    let call = exchange(caller, sender, "keep-alive");
    timeout(REQUEST_TIMEOUT, call).await.unwrap_or_else(|_| Err(Failure::timeout(true)))
}

async fn connect(caller: &Caller) -> Result<Sender, Failure> {
    let address = caller.address().await?;
    let stream = TcpStream::connect(address).await.map_err(|error| Failure::connecting(&error))?;
    // A small request must not wait for the acknowledgement of an earlier one.
    stream.set_nodelay(true).map_err(|error| Failure::connecting(&error))?;
    let Some(tls) = &caller.tls else { return handshake(stream).await };
    let name = super::tls::server_name(&caller.target.host).map_err(|error| Failure {
        kind: "tls",
        detail: error.to_string(),
        broken: false,
    })?;
    let stream = tls.connect(name, stream).await.map_err(|error| Failure {
        kind: "tls",
        detail: error.to_string(),
        broken: false,
    })?;
    handshake(stream).await
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
) -> Result<Sender, Failure> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| Failure::talking(&error))?;
    // Its error reaches the request, which reports it.
    tokio::task::spawn_local(async { drop(connection.await) });
    Ok(sender)
}

async fn exchange(
    caller: &Caller,
    sender: &mut Sender,
    connection: &'static str,
) -> Result<Answer, Failure> {
    let request = Request::get(caller.target.path.as_str())
        .header(header::HOST, caller.target.authority.as_str())
        .header(header::CONNECTION, connection)
        .body(Empty::new())
        .map_err(|error| Failure { kind: "other", detail: error.to_string(), broken: false })?;
    sender.ready().await.map_err(|error| Failure::talking(&error))?;
    let response = sender.send_request(request).await.map_err(|error| Failure::talking(&error))?;
    let status = response.status().as_u16();
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let last = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    let body = response.into_body().collect().await.map_err(|error| Failure::talking(&error))?;
    if status != caller.expect {
        return Err(Failure {
            kind: "status",
            detail: format!("status {status} instead of {}", caller.expect),
            broken: false,
        });
    }
    Ok(Answer { status, location, body: body.to_bytes(), last })
}

async fn datagram(caller: &Caller) -> Result<Answer, Failure> {
    let body = talk(caller, caller.send.as_bytes()).await?;
    Ok(Answer { status: 0, location: None, body, last: true })
}

/// One datagram there and one back, on a connected socket of its own.
pub(super) async fn talk(caller: &Caller, said: &[u8]) -> Result<Bytes, Failure> {
    let failed = |error: io::Error| Failure::connecting(&error);
    let address = caller.address().await?;
    let any: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    socket.send(said).await.map_err(failed)?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let length = socket.recv(&mut buffer).await.map_err(failed)?;
    buffer.truncate(length);
    Ok(buffer.into())
}

/// Asks until there is a good answer.
pub(crate) async fn until_good(caller: &Caller, patience: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let Err(failure) = once(caller).await else { return Ok(()) };
        if started.elapsed() > patience {
            let whom = &caller.target.authority;
            bail!("no good answer from {whom} for {patience:?}: {}", failure.detail);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}
