//! A client of HTTP/1.1 that knows only what the benchmark's upstreams answer, over TCP or TLS 1.3.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, kx_group::X25519},
    pki_types::{CertificateDer, ServerName},
};

use crate::origin::SMALL;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that is kept from request to request.
pub struct Connection<S> {
    pub stream: S,
    bytes: Vec<u8>,
}

/// What is wanted to know of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub status: u16,
    /// Which upstream answered, if the body is what upstreams answer.
    pub letter: Option<u8>,
    /// The connection ends with it.
    pub is_last: bool,
}

impl Reply {
    pub fn is_good(self) -> bool {
        self.status == 200 && self.letter.is_some()
    }
}

pub fn connect(address: SocketAddr) -> io::Result<Connection<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(Connection { stream, bytes: vec![] })
}

impl Connection<TcpStream> {
    /// Whether the other side has ended it since the last answer.
    pub fn is_closed(&self) -> bool {
        let waiting = || -> io::Result<bool> {
            self.stream.set_nonblocking(true)?;
            let read = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            Ok(matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
        };
        !waiting().unwrap_or(false)
    }
}

impl<S: Read + Write> Connection<S> {
    pub fn get(&mut self, host: &str) -> io::Result<Reply> {
        self.send(&request(host, "/small"))
    }

    /// Sends a request and reads its answer to the end.
    pub fn send(&mut self, request: &[u8]) -> io::Result<Reply> {
        self.stream.write_all(request)?;
        self.bytes.clear();
        let mut chunk = [0; 4096];
        loop {
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.bytes.extend_from_slice(&chunk[..n]);
            if let Some(reply) = parse(&self.bytes)? {
                return Ok(reply);
            }
        }
    }

    /// Of the last answer.
    pub fn body(&self) -> &[u8] {
        head(&self.bytes).and_then(|head| self.bytes.get(head + 4..)).unwrap_or_default()
    }
}

pub fn request(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// How long it is, without the empty line.
fn head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|end| end == b"\r\n\r\n")
}

/// `None` until it is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<Reply>> {
    let Some(head) = head(bytes) else { return Ok(None) };
    let strange = || io::Error::other(String::from_utf8_lossy(bytes).into_owned());
    let text = std::str::from_utf8(&bytes[..head]).map_err(|_| strange())?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let field = |wanted: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let length = field("content-length").and_then(|length| length.parse::<usize>().ok());
    let (Some(status), Some(length)) = (status, length) else { return Err(strange()) };
    let is_last = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let body = &bytes[head + 4..];
    if body.len() < length {
        return Ok(None);
    }
    let is_small = |letter: &u8| body.len() == SMALL && body.iter().all(|byte| byte == letter);
    let letter = body.first().copied().filter(is_small);
    Ok(Some(Reply { status, letter, is_last }))
}

/// TLS 1.3 with the suite and group that everybody has, every handshake a full one.
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Believes servers whose certificate is of this authority.
    pub fn trusting(authority: &CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).expect("a certificate");
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![X25519];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider's version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    pub fn connect(
        &self,
        address: SocketAddr,
        host: &str,
    ) -> io::Result<Connection<StreamOwned<ClientConnection, TcpStream>>> {
        let name = ServerName::try_from(host.to_owned()).expect("a DNS name");
        let session = ClientConnection::new(self.0.clone(), name).expect("client");
        let Connection { stream, bytes } = connect(address)?;
        Ok(Connection { stream: StreamOwned::new(session, stream), bytes })
    }
}
