//! A client that makes a new TLS connection for every request and never resumes a session.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, Stream,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Full handshakes with one request each.
pub fn run(address: SocketAddr, host: &'static str, count: usize) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    for _ in 0..count {
        let name = ServerName::try_from(host).expect("a DNS name");
        let mut session = ClientConnection::new(config.clone(), name).expect("client");
        let mut socket = TcpStream::connect(address).expect("connect");
        request(&mut Stream::new(&mut session, &mut socket), host).expect("request");
    }
}

/// Whether a plain request is answered with 200.
pub fn get(address: SocketAddr, host: &str) -> bool {
    let Ok(mut socket) = TcpStream::connect(address) else { return false };
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time");
    request(&mut socket, host).is_ok()
}

fn request(stream: &mut (impl Read + Write), host: &str) -> std::io::Result<()> {
    write!(stream, "GET /small HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut reply = vec![];
    let mut chunk = [0; 4096];
    while !reply.ends_with(&[b'x'; 128]) {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Err(std::io::Error::other(String::from_utf8_lossy(&reply).into_owned()));
        }
        reply.extend_from_slice(&chunk[..n]);
    }
    Ok(())
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
