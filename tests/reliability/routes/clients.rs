//! Clients that ask at a fixed rate, over connections they never give up.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
    header::{CONTENT_TYPE, HOST, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    ASKED, GRPC_STREAMS, HTTP, HTTPS, REQUESTS_PER_S, WEBSOCKETS, objects,
    seen::{Seen, What},
    streams,
    upstreams::{BODY_BYTES, LETTER, LETTERS},
};

/// An answer that takes longer is none.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Of HTTP/1.
const CONNECTIONS: u32 = 32;
/// Of HTTP/2: so many, with so many clients each.
const CONNECTIONS2: u32 = 4;
const CLIENTS_PER_CONNECTION2: u32 = 8;
const HANDSHAKES_PER_S: u32 = 20;
const CALLS_PER_S: u32 = 50;

pub(super) type Sender2 = http2::SendRequest<Full<Bytes>>;
type Outcome<T> = Result<T, String>;

/// Everything that is asked while changes are made.
pub(super) struct Asking {
    trust: Arc<ClientConfig>,
}

/// Believes certificates of this authority, and speaks HTTP/2 if it may; every handshake is a full one.
pub(super) fn trusting(authority: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("the provider's");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

impl Asking {
    pub(super) fn new(trust: Arc<ClientConfig>) -> Self {
        Self { trust }
    }

    /// Opens all connections and begins.
    pub(super) async fn start(self, seen: Seen) {
        let half = REQUESTS_PER_S / 2;
        for n in 0..CONNECTIONS {
            let sender = plain().await.expect("a connection");
            seen.run(kept(seen.clone(), sender, at(half / CONNECTIONS), n as usize));
        }
        for n in 0..CONNECTIONS2 {
            let host = n as usize;
            let sender = encrypted(&self.trust, host).await.expect("a connection");
            for _ in 0..CLIENTS_PER_CONNECTION2 {
                let every = at(half / CONNECTIONS2 / CLIENTS_PER_CONNECTION2);
                seen.run(streamed(seen.clone(), sender.clone(), every, host));
            }
        }
        seen.run(handshakes(seen.clone(), self.trust.clone(), at(HANDSHAKES_PER_S)));
        for n in 0..WEBSOCKETS {
            streams::converse(&seen, &self.trust, n % ASKED, n % 2 == 0).await;
        }
        for host in 0..GRPC_STREAMS {
            streams::call(&seen, &self.trust, host % ASKED).await;
        }
        let sender = encrypted(&self.trust, 0).await.expect("a connection");
        seen.run(calls(seen.clone(), sender, at(CALLS_PER_S)));
    }
}

/// Who answers for a host, who is called, and the certificate that is shown.
pub(super) async fn found(
    trust: Arc<ClientConfig>,
    host: usize,
) -> Option<(u8, u8, CertificateDer<'static>)> {
    let (mut sender, certificate) = shaken(&trust, host).await.ok()?;
    let web = answered(sender.send_request(of2(host, "/"))).await.ok()?;
    let call = called(&mut sender, host).await.ok()?;
    Some((web, call, certificate))
}

fn at(per_s: u32) -> Interval {
    let mut interval = interval(Duration::from_secs(1) / per_s);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Each connection asks all hosts in turn.
async fn kept(seen: Seen, sender: Sender1, mut every: Interval, first: usize) {
    let mut sender = sender;
    for n in first.. {
        every.tick().await;
        if seen.is_over() {
            return;
        }
        let request = Request::get("/").header(HOST, objects::host(n % ASKED));
        let request = request.body(Full::default()).expect("a request");
        let outcome = match sender.ready().await {
            Ok(()) => answered(sender.send_request(request)).await,
            Err(error) => Err(format!("a kept connection: {error:?}")),
        };
        let is_good = outcome.is_ok();
        seen.count(What::Kept, outcome.map(Some));
        if !is_good {
            match plain().await {
                Ok(anew) => sender = anew,
                Err(error) => seen.count(What::Kept, Err(error)),
            }
        }
    }
}

type Sender1 = http1::SendRequest<Full<Bytes>>;

async fn streamed(seen: Seen, mut sender: Sender2, mut every: Interval, host: usize) {
    loop {
        every.tick().await;
        if seen.is_over() {
            return;
        }
        let outcome = answered(sender.send_request(of2(host, "/"))).await;
        seen.count(What::Streams, outcome.map(Some));
    }
}

async fn handshakes(seen: Seen, trust: Arc<ClientConfig>, mut every: Interval) {
    for n in 0.. {
        every.tick().await;
        if seen.is_over() {
            return;
        }
        let host = n % ASKED;
        let outcome = match encrypted(&trust, host).await {
            Ok(mut sender) => answered(sender.send_request(of2(host, "/"))).await,
            Err(error) => Err(error),
        };
        seen.count(What::Handshakes, outcome.map(Some));
    }
}

async fn calls(seen: Seen, mut sender: Sender2, mut every: Interval) {
    loop {
        every.tick().await;
        if seen.is_over() {
            return;
        }
        let outcome = called(&mut sender, 0).await;
        seen.count(What::Calls, outcome.map(Some));
    }
}

/// One call of one message: the same one comes back, and a status of 0 behind it.
async fn called(sender: &mut Sender2, host: usize) -> Outcome<u8> {
    let message = Bytes::from_static(&streams::MESSAGE);
    let request = Request::post(format!("https://{}/echo.Echo/Say", objects::host(host)))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(message.clone()))
        .expect("a request");
    let calling = async {
        let response = sender.send_request(request).await.map_err(|e| format!("a call: {e:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("an answer: {error:?}"))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let is_whole = head.status == 200
            && trailers.get("grpc-status").is_some_and(|status| status == "0")
            && body.to_bytes() == message;
        let letter = head.headers.get(LETTER).and_then(|letter| letter.as_bytes().first().copied());
        let letter = letter.filter(|_| is_whole);
        letter.ok_or_else(|| format!("a call: {head:?}, {trailers:?}"))
    };
    timeout(PATIENCE, calling).await.unwrap_or_else(|_| Err("a call: no answer".to_owned()))
}

/// The letter of whoever answered, which is all that is in the body.
async fn answered(sent: impl Future<Output = hyper::Result<Response<Incoming>>>) -> Outcome<u8> {
    let answering = async {
        let response = sent.await.map_err(|error| format!("a request: {error:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("an answer: {error:?}"))?;
        let body = body.to_bytes();
        let letter = LETTERS
            .into_iter()
            .find(|letter| body.len() == BODY_BYTES && body.iter().all(|byte| byte == letter));
        let letter = letter.filter(|_| head.status == 200);
        letter.ok_or_else(|| format!("{head:?} {}", String::from_utf8_lossy(&body)))
    };
    timeout(PATIENCE, answering).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

fn of2(host: usize, path: &str) -> Request<Full<Bytes>> {
    let uri = format!("https://{}{path}", objects::host(host));
    Request::get(uri).body(Full::default()).expect("a request")
}

async fn plain() -> Outcome<Sender1> {
    let stream = connected(HTTP).await?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn encrypted(trust: &Arc<ClientConfig>, host: usize) -> Outcome<Sender2> {
    shaken(trust, host).await.map(|(sender, _)| sender)
}

async fn shaken(
    trust: &Arc<ClientConfig>,
    host: usize,
) -> Outcome<(Sender2, CertificateDer<'static>)> {
    let stream = tls(trust.clone(), host).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let shown = shown.ok_or("no certificate")?.into_owned();
    Ok((h2(stream).await?, shown))
}

pub(super) async fn h2<S, B>(stream: S) -> Outcome<http2::SendRequest<B>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: hyper::body::Body<Data = Bytes, Error: std::error::Error + Send + Sync>
        + Send
        + Unpin
        + 'static,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

pub(super) async fn tls(trust: Arc<ClientConfig>, host: usize) -> Outcome<TlsStream<TcpStream>> {
    let name = ServerName::try_from(objects::host(host)).expect("a name");
    let connecting = TlsConnector::from(trust).connect(name, connected(HTTPS).await?);
    let connected = timeout(PATIENCE, connecting).await.map_err(|_| "no handshake".to_owned())?;
    connected.map_err(|error| format!("a handshake: {error}"))
}

pub(super) async fn connected(address: std::net::SocketAddr) -> Outcome<TcpStream> {
    let connecting = timeout(PATIENCE, TcpStream::connect(address)).await;
    let stream = connecting.map_err(|_| "no connection".to_owned())?;
    let stream = stream.map_err(|error| format!("a connection: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}
