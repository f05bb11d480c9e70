//! Entries of `ca.crt`, and whom they vouch for.
//!
//! Of nearly every certificate webpki says that. It reads none but of version 3, and takes none of an
//! authority (`CA:TRUE`) for somebody's own; OpenSSL takes both: those of version 1 are what
//! `openssl x509 -req` writes without extensions (ingress-nginx, docs/examples/auth/client-certs), and
//! `openssl req -x509` writes `CA:TRUE` into what is meant for one server and named as its own authority.

use std::sync::Arc;

use fairlead_state::model::Secret;
use rustls::{CertificateError, ExtendedKeyPurpose, RootCertStore, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate, extensions::KeyUsage, parse_x509_certificate, x509::X509Version,
};

use super::{revoked::Lists, signatures::Signatures};

const AUTHORITY_ENTRY: &str = "ca.crt";

/// The authorities of a Secret.
#[derive(Debug)]
pub(super) struct Authorities {
    /// For webpki.
    pub(super) roots: Arc<RootCertStore>,
    entries: Vec<CertificateDer<'static>>,
    signatures: Signatures,
}

impl Authorities {
    /// Reads them. A reason says where, never what.
    pub(super) fn of(secret: &Secret, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let entry = secret.data.get(AUTHORITY_ENTRY);
        let bytes =
            entry.ok_or_else(|| format!("Secret {} has no entry {AUTHORITY_ENTRY}", secret.key))?;
        let damaged = || format!("Secret {}: {AUTHORITY_ENTRY} is damaged", secret.key);
        let entries: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        let entries = entries.map_err(|_| damaged())?;
        let mut roots = RootCertStore::empty();
        for entry in &entries {
            roots.add(entry.clone()).map_err(|_| damaged())?;
        }
        if entries.is_empty() {
            return Err(format!("Secret {}: {AUTHORITY_ENTRY} holds no certificate", secret.key));
        }
        let signatures = Signatures::by(provider);
        Ok(Self { roots: Arc::new(roots), entries, signatures })
    }

    /// Whether one of them vouches for somebody's own certificate; `None`: that is for webpki to say.
    ///
    /// One that is an entry itself, and its own authority, needs no signature. One of version 1 must be
    /// signed by an entry: webpki says of no authority in between whether it is good.
    pub(super) fn judge(
        &self,
        der: &[u8],
        purpose: &ExtendedKeyPurpose,
        lists: Option<&Lists>,
        now: UnixTime,
    ) -> Option<Result<(), CertificateError>> {
        let Ok(([], certificate)) = parse_x509_certificate(der) else { return None };
        let is_entry = is_own_authority(&certificate)
            && self.entries.iter().any(|entry| entry.as_ref() == der);
        // Extensions of a version that has none are nobody's to judge: webpki refuses them.
        let is_old =
            certificate.version().0 < X509Version::V3.0 && certificate.extensions().is_empty();
        if !is_entry && !is_old {
            return None;
        }
        let issuer =
            if is_entry { Some(der) } else { self.issuer((der, &certificate), purpose, now) };
        Some(self.check((&certificate, issuer), purpose, lists, now))
    }

    /// Whether any of them, or of those in between, is for some names alone; or cannot be read.
    pub(super) fn limit_names(&self, between: &[CertificateDer<'_>]) -> bool {
        let is_free = |der: &CertificateDer<'_>| {
            parse_x509_certificate(der)
                .is_ok_and(|(_, authority)| matches!(authority.name_constraints(), Ok(None)))
        };
        !self.entries.iter().chain(between).all(is_free)
    }

    fn check(
        &self,
        (certificate, issuer): (&X509Certificate<'_>, Option<&[u8]>),
        purpose: &ExtendedKeyPurpose,
        lists: Option<&Lists>,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        check_dates(certificate, now)?;
        let issuer = issuer.ok_or(CertificateError::UnknownIssuer)?;
        if !is_meant_for(certificate, purpose) {
            return Err(CertificateError::InvalidPurpose);
        }
        lists.map_or(Ok(()), |lists| lists.check(certificate, issuer, now, &self.signatures))
    }

    /// The entry that signed it.
    fn issuer(
        &self,
        (der, certificate): (&[u8], &X509Certificate<'_>),
        purpose: &ExtendedKeyPurpose,
        now: UnixTime,
    ) -> Option<&[u8]> {
        // RFC 5280 4.1.1.2: by which algorithm it is signed is part of what is signed.
        if certificate.signature_algorithm != certificate.tbs_certificate.signature {
            return None;
        }
        let mut entries = self.entries.iter().map(|entry| &**entry);
        entries.find(|entry| {
            let is_named = parse_x509_certificate(entry).is_ok_and(|(_, authority)| {
                authority.subject().as_raw() == certificate.issuer().as_raw()
                    && may_sign(&authority, purpose)
                    && check_dates(&authority, now).is_ok()
            });
            is_named && self.signatures.is_signed(der, entry)
        })
    }
}

fn check_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (validity, now_seconds) = (certificate.validity(), i128::from(now.as_secs()));
    if now_seconds < i128::from(validity.not_before.timestamp()) {
        return Err(CertificateError::NotValidYet);
    }
    if now_seconds > i128::from(validity.not_after.timestamp()) {
        return Err(CertificateError::Expired);
    }
    Ok(())
}

fn is_own_authority(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// Whether it is an authority's, by OpenSSL's X509_check_ca, and one of such certificates. One that is for some names alone vouches for
/// no certificate whose names are not where it says so (RFC 5280 4.2.1.10: alternative ones).
fn may_sign(authority: &X509Certificate<'_>, purpose: &ExtendedKeyPurpose) -> bool {
    let (Ok(constraints), Ok(usage), Ok(None)) =
        (authority.basic_constraints(), authority.key_usage(), authority.name_constraints())
    else {
        return false;
    };
    let is_authority = match constraints {
        Some(constraints) => constraints.value.ca,
        None if authority.version() == X509Version::V3 => usage.is_some(),
        None => is_own_authority(authority),
    };
    is_authority
        && usage.is_none_or(|usage| usage.value.key_cert_sign())
        && is_extended_to(authority, purpose)
}

/// OpenSSL, check_purpose_ssl_client and check_purpose_ssl_server.
fn is_meant_for(certificate: &X509Certificate<'_>, purpose: &ExtendedKeyPurpose) -> bool {
    let Ok(usage) = certificate.key_usage() else { return false };
    let is_server = *purpose == ExtendedKeyPurpose::ServerAuth;
    let serves = |usage: &KeyUsage| {
        usage.digital_signature()
            || usage.key_agreement()
            || (is_server && usage.key_encipherment())
    };
    is_extended_to(certificate, purpose) && usage.is_none_or(|usage| serves(usage.value))
}

/// OpenSSL, xku_reject: an authority's extended usage binds those it signs.
fn is_extended_to(certificate: &X509Certificate<'_>, purpose: &ExtendedKeyPurpose) -> bool {
    let Ok(extended) = certificate.extended_key_usage() else { return false };
    extended.is_none_or(|extended| match purpose {
        ExtendedKeyPurpose::ServerAuth => extended.value.server_auth,
        ExtendedKeyPurpose::ClientAuth => extended.value.client_auth,
        _ => false,
    })
}

#[cfg(test)]
mod tests;
