//! Certificates that are taken back (`ca.crl` beside `ca.crt`).

use fairlead_state::model::Secret;
use rustls::CertificateError;
use rustls_pki_types::{CertificateRevocationListDer, UnixTime, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{IssuingDistributionPoint, ParsedExtension},
    oid_registry::{OID_X509_EXT_DELTA_CRL_INDICATOR, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT},
    parse_x509_crl,
    revocation_list::CertificateRevocationList,
};

use super::signatures::Signatures;

const REVOKED_ENTRY: &str = "ca.crl";

/// The lists of a Secret.
#[derive(Debug)]
pub(super) struct Lists(Vec<CertificateRevocationListDer<'static>>);

impl Lists {
    /// `None`: there are none. What cannot be read of them is an error: it could have been the line that
    /// keeps somebody out.
    pub(super) fn of(secret: &Secret) -> Result<Option<Self>, String> {
        // As ingress-nginx: an empty entry is none.
        let Some(entry) = secret.data.get(REVOKED_ENTRY).filter(|entry| !entry.is_empty()) else {
            return Ok(None);
        };
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(entry).collect();
        let lists =
            lists.map_err(|_| format!("Secret {}: {REVOKED_ENTRY} is damaged", secret.key))?;
        if lists.is_empty() {
            return Err(format!("Secret {}: {REVOKED_ENTRY} holds no list", secret.key));
        }
        match lists.iter().find_map(|list| unserved(list)) {
            Some(kind) => Err(unusable(secret, kind)),
            None => Ok(Some(Self(lists))),
        }
    }

    /// As they are, for webpki.
    pub(super) fn all(&self) -> impl Iterator<Item = CertificateRevocationListDer<'static>> {
        self.0.iter().cloned()
    }

    /// Whether a certificate is still good by the lists of whoever has the certificate `issuer`. As webpki
    /// and OpenSSL: one of them must be for it, and not out of date.
    pub(super) fn check(
        &self,
        certificate: &X509Certificate<'_>,
        issuer: &[u8],
        now: UnixTime,
        signatures: &Signatures,
    ) -> Result<(), CertificateError> {
        let mut is_known = false;
        for der in self.0.iter().filter(|der| signatures.is_signed(der, issuer)) {
            let Ok((_, list)) = parse_x509_crl(der) else { continue };
            if list.issuer().as_raw() != certificate.issuer().as_raw()
                || !is_for(&list, certificate)
            {
                continue;
            }
            let mut revoked = list.iter_revoked_certificates();
            if revoked.any(|entry| *entry.serial() == certificate.tbs_certificate.serial) {
                return Err(CertificateError::Revoked);
            }
            is_known |= list
                .next_update()
                .is_some_and(|end| i128::from(now.as_secs()) < i128::from(end.timestamp()));
        }
        if is_known { Ok(()) } else { Err(CertificateError::UnknownRevocationStatus) }
    }
}

/// Whether it is about such certificates: OpenSSL, crl_crldp_check, of one that names no place of a list.
fn is_for(list: &CertificateRevocationList<'_>, certificate: &X509Certificate<'_>) -> bool {
    let includes = |point: &IssuingDistributionPoint<'_>| match certificate.is_ca() {
        _ if point.distribution_point.is_some() || point.only_contains_attribute_certs => false,
        true => !point.only_contains_user_certs,
        false => !point.only_contains_ca_certs,
    };
    list.extensions().iter().all(|extension| match extension.parsed_extension() {
        ParsedExtension::IssuingDistributionPoint(point) => includes(point),
        // One that cannot be read limits it no less.
        _ => extension.oid != OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
    })
}

/// Whole lists of kinds that the verifier does not take. Some it would call damaged, and an indirect one
/// it would keep to let nobody in by.
fn unserved(list: &[u8]) -> Option<&'static str> {
    let (_, list) = parse_x509_crl(list).ok()?;
    if list.version().is_none() {
        return Some("of version 1 (RFC 5280 wants 2)");
    }
    if list.next_update().is_none() {
        return Some("without nextUpdate (RFC 5280 wants one)");
    }
    list.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        _ if extension.oid == OID_X509_EXT_DELTA_CRL_INDICATOR => Some("a delta list"),
        ParsedExtension::IssuingDistributionPoint(point) if point.indirect_crl => {
            Some("an indirect list")
        }
        ParsedExtension::IssuingDistributionPoint(point) if point.only_some_reasons.is_some() => {
            Some("of some reasons alone")
        }
        _ => None,
    })
}

/// That a list of a Secret is of no use, and why.
pub(super) fn unusable(secret: &Secret, what: &str) -> String {
    format!("Secret {}: {REVOKED_ENTRY} cannot be used: a list is {what}", secret.key)
}
