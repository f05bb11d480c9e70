//! TLS towards clients.

use std::sync::Arc;

use rustls::{
    CipherSuite, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ResolvesServerCert},
    version::{TLS12, TLS13},
};

use super::{
    certificates::{OnlyKnown, Resolver},
    client_auth::Asking,
    signatures::Signatures,
    tickets::Rotation,
};
use crate::{config::TlsSettings, error::IngressError};

/// The cheapest, and enough for everybody. Of TLS 1.2's they come first by ingress-nginx, too
/// (ssl-ciphers); TLS 1.3's are in OpenSSL's order there, AES-256 first. Our order counts, not clients'
/// (ssl_prefer_server_ciphers).
const FIRST: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// A ticket is for one resumption (RFC 8446 C.4), which brings the next: whoever had so many connections
/// at once has as many tickets. nginx and HAProxy send a second one with full handshakes (OpenSSL), for
/// clients that will have more connections than before; those pay with a full handshake once.
const TICKETS: usize = 1;

/// What handshakes go by.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    pub(crate) settings: TlsSettings,
    pub(crate) plain: Arc<ServerConfig>,
    /// The same, asking clients for a certificate.
    pub(crate) asking: Arc<ServerConfig>,
}

impl Handshakes {
    /// Shared by all threads: HTTP/2 before HTTP/1.1, stateless resumption.
    ///
    /// # Errors
    /// There is no randomness, or no version is left.
    pub(crate) fn new(
        resolver: &Arc<Resolver>,
        settings: TlsSettings,
    ) -> Result<Self, IngressError> {
        let plain = server_config(resolver, settings, false)?;
        let asking = server_config(resolver, settings, true)?;
        Ok(Self { settings, plain: Arc::new(plain), asking: Arc::new(asking) })
    }
}

fn server_config(
    resolver: &Arc<Resolver>,
    settings: TlsSettings,
    asks: bool,
) -> Result<ServerConfig, IngressError> {
    let tls_error = |error: rustls::Error| IngressError::Tls(error.to_string());
    let provider = Arc::new(provider());
    let asking = asks.then(|| Arc::new(Asking(Signatures::by(provider.clone()))));
    let versions: &[&'static SupportedProtocolVersion] = match (settings.tls12, settings.tls13) {
        (true, false) => &[&TLS12],
        (false, true) => &[&TLS13],
        _ => &[&TLS13, &TLS12],
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(tls_error)?;
    let builder = match asking {
        Some(asking) => builder.with_client_cert_verifier(asking),
        None => builder.with_no_client_auth(),
    };
    let resolver: Arc<dyn ResolvesServerCert> = match settings.rejects_unknown {
        true => Arc::new(OnlyKnown(resolver.clone())),
        false => resolver.clone(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.ignore_client_order = true;
    config.alpn_protocols = match settings.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    // Tickets instead of a table shared by all threads behind one lock.
    if settings.tickets {
        config.ticketer = Arc::new(Rotation::new().map_err(tls_error)?);
    }
    config.send_tls13_tickets = TICKETS;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !FIRST.contains(&suite.suite()));
    provider
}
