//! TLS to upstreams (RFC 7858): whom to believe, and what to show.

use std::{fmt::Display, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{corefile::TlsOptions, error::DnsError};

/// Reads the files.
pub(super) fn config(options: &TlsOptions) -> Result<ClientConfig, DnsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| DnsError::Forwarding(Box::new(error)))?
        .with_root_certificates(authorities(options.authorities.as_deref())?);
    let Some((certificate, key)) = &options.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| bad(key, error))
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, DnsError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| bad(file, error))?;
            }
        }
        // Machines have some that nobody can read; the others count.
        None => {
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() { Err(DnsError::NoAuthorities) } else { Ok(roots) }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, DnsError> {
    let all = CertificateDer::pem_file_iter(file).map_err(|error| bad(file, error))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|error| bad(file, error))?;
    if all.is_empty() { Err(bad(file, "no certificate is in it")) } else { Ok(all) }
}

fn bad(file: &Path, why: impl Display) -> DnsError {
    DnsError::TlsFile { file: file.to_owned(), why: why.to_string() }
}
