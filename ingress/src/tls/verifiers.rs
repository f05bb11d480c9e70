//! Whose certificates are taken of endpoints.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use fairlead_state::Key;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, ExtendedKeyPurpose, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::{authorities::Authorities, signatures::Signatures};
use crate::host::HostPattern;

/// ingress-nginx's default: encrypted, to whoever is there. Signatures are checked all the same.
#[derive(Debug)]
pub(super) struct Anybody(pub(super) Signatures);

impl ServerCertVerifier for Anybody {
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}

/// Whom the authorities vouch for, by the name that is expected (`proxy-ssl-verify: "on"`).
#[derive(Debug)]
pub(super) struct Named {
    authorities: Authorities,
    algorithms: WebPkiSupportedAlgorithms,
    signatures: Signatures,
    /// Whose endpoints they are.
    service: Key,
    /// The log has it why one is not taken. Once is enough: each request would say it again.
    is_told: AtomicBool,
}

impl Named {
    pub(super) fn new(
        authorities: Authorities,
        provider: Arc<CryptoProvider>,
        service: Key,
    ) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        let signatures = Signatures::by(provider);
        Self { authorities, algorithms, signatures, service, is_told: AtomicBool::new(false) }
    }

    fn check(
        &self,
        der: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        match self.authorities.judge(der, &ExtendedKeyPurpose::ServerAuth, None, now) {
            Some(judged) => judged?,
            None => verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(der)?,
                &self.authorities.roots,
                between,
                now,
                self.algorithms.all,
            )?,
        }
        // An authority for some names alone says nothing of common ones to webpki.
        if is_called(der, name) && !self.authorities.limit_names(between) {
            return Ok(());
        }
        // What it does not read has no other names.
        let certificate =
            ParsedCertificate::try_from(der).map_err(|_| CertificateError::NotValidForName)?;
        verify_server_name(&certificate, name)
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        der: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(der, between, name, now).inspect_err(|error| {
            if !self.is_told.swap(true, Relaxed) {
                tracing::warn!(
                    service = %self.service,
                    name = %name.to_str(),
                    "an endpoint's certificate is not taken, its requests are answered 502: {error}"
                );
            }
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

/// Whether its subject's common name is the one expected, which counts where there is no alternative DNS
/// name (OpenSSL, X509_check_host, by which nginx goes).
fn is_called(der: &[u8], name: &ServerName<'_>) -> bool {
    let Ok((_, certificate)) = parse_x509_certificate(der) else { return false };
    let has_alternative = match certificate.subject_alternative_name() {
        Ok(None) => false,
        Ok(Some(names)) => {
            let mut names = names.value.general_names.iter();
            names.any(|name| matches!(name, GeneralName::DNSName(_)))
        }
        Err(_) => true,
    };
    let mut common =
        certificate.subject().iter_common_name().filter_map(|common| common.as_str().ok());
    !has_alternative && common.any(|common| covers(common, name))
}

fn covers(common: &str, name: &ServerName<'_>) -> bool {
    let wanted = name.to_str();
    if common.eq_ignore_ascii_case(&wanted) {
        return true;
    }
    // OpenSSL, valid_star: a wildcard of a top-level domain is none.
    let wildcard = HostPattern::parse(common)
        .ok()
        .filter(|pattern| matches!(pattern, HostPattern::Wildcard(suffix) if suffix.contains('.')));
    let exact = match name {
        ServerName::DnsName(_) => HostPattern::parse(&wanted).ok(),
        _ => None,
    };
    exact.zip(wildcard).is_some_and(|(exact, wildcard)| wildcard.covers(&exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenSSL's X509_check_host.
    #[test]
    fn a_common_name_is_for_itself_or_for_one_label_of_a_domain() {
        for (common, name, expected) in [
            ("web.default.svc", "web.default.svc", true),
            ("WEB.default.svc", "web.DEFAULT.svc", true),
            ("other.default.svc", "web.default.svc", false),
            ("*.default.svc", "web.default.svc", true),
            ("*.svc", "web.svc", false),
            ("*.default.svc", "a.web.default.svc", false),
            ("*.default.svc", "default.svc", false),
            ("*", "web", false),
            ("", "web", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("*.0.2.1", "192.0.2.1", false),
        ] {
            let wanted = ServerName::try_from(name).unwrap();
            assert_eq!(covers(common, &wanted), expected, "{common} for {name}");
        }
    }
}
