//! TLS towards clients.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{self, Ticketer},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use super::{certificates::Resolver, client_auth::Asking, signatures::Signatures};
use crate::error::IngressError;

/// Shared by all threads: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, stateless resumption. `asks`:
/// clients for a certificate.
pub(crate) fn server_config(
    resolver: Arc<Resolver>,
    asks: bool,
) -> Result<Arc<ServerConfig>, IngressError> {
    let tls_error = |error: rustls::Error| IngressError::Tls(error.to_string());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let asking = asks.then(|| Arc::new(Asking(Signatures::by(provider.clone()))));
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(tls_error)?;
    let builder = match asking {
        Some(asking) => builder.with_client_cert_verifier(asking),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets instead of a table shared by all threads behind one lock.
    config.ticketer = Ticketer::new().map_err(tls_error)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}
