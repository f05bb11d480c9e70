//! From PEM to a certificate with its key. A reason says where, never what.

use std::sync::Arc;

use fairlead_state::model::Secret;
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::signatures::PublicKey;

pub(super) const CERTIFICATE_ENTRY: &str = "tls.crt";
pub(super) const KEY_ENTRY: &str = "tls.key";

/// The certificate of a Secret (`kubernetes.io/tls`: entries `tls.crt` and `tls.key`).
pub(super) fn secret(secret: &Secret) -> Result<Arc<CertifiedKey>, String> {
    let entry = |name: &str| {
        secret.data.get(name).ok_or_else(|| format!("Secret {} has no entry {name}", secret.key))
    };
    certified_key(entry(CERTIFICATE_ENTRY)?, entry(KEY_ENTRY)?)
        .map_err(|reason| format!("Secret {}: {reason}", secret.key))
}

/// A chain and its private key, checked to belong together.
pub(super) fn certified_key(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{CERTIFICATE_ENTRY} is not PEM: {error}"))?;
    let Some(leaf) = chain.first() else {
        return Err(format!("{CERTIFICATE_ENTRY} holds no certificate"));
    };
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| format!("{KEY_ENTRY} holds no private key in PEM (PKCS#8, PKCS#1 or SEC1)"))?;
    let provider = aws_lc_rs::default_provider();
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| format!("{KEY_ENTRY} cannot be used: unsupported or damaged"))?;
    // Not by CertifiedKey::from_der, which reads certificates of version 3 alone.
    let public = PublicKey::of(leaf)
        .map_err(|error| format!("{CERTIFICATE_ENTRY} cannot be used: {error}"))?
        .info;
    if key.public_key().is_some_and(|own| own.as_ref() != public) {
        return Err(format!("{KEY_ENTRY} is not the key of {CERTIFICATE_ENTRY}"));
    }
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
