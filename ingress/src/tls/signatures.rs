//! Signatures of handshakes, also by verifiers that take any certificate: whoever shows one must have
//! its key all the same. And those within certificates and lists of them.
//!
//! Of a signer's certificate the key alone is looked at. webpki reads none but of version 3, and those
//! of version 1 are what `openssl x509 -req` writes without extensions.

use std::{borrow::Cow, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls13_signature_with_raw_key},
};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_parser::{
    asn1_rs::{Any, FromDer},
    parse_x509_certificate,
};

/// Checks them by a provider's algorithms.
#[derive(Debug)]
pub(super) struct Signatures(Arc<CryptoProvider>);

/// A certificate's key.
pub(super) struct PublicKey<'a> {
    /// SubjectPublicKeyInfo (RFC 5280 4.1.2.7), in DER.
    pub(super) info: &'a [u8],
    /// What of it says which kind of key it is, and the key.
    algorithm: &'a [u8],
    bits: Cow<'a, [u8]>,
}

/// A Certificate or a CertificateList (RFC 5280 4.1, 5.1): three parts, the first of which is signed.
struct Signed<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl Signatures {
    pub(super) fn by(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }

    /// Whatever algorithm of the scheme fits the key: TLS 1.2 names a hash, and no curve (RFC 5246 7.4.1.4.1).
    pub(super) fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = PublicKey::of(certificate)?;
        let mapping = self.0.signature_verification_algorithms.mapping;
        let (_, algorithms) = mapping
            .iter()
            .find(|(scheme, _)| *scheme == signature.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let mut fitting = algorithms
            .iter()
            .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key.algorithm);
        let is_valid = fitting.any(|algorithm| {
            algorithm.verify_signature(&key.bits, message, signature.signature()).is_ok()
        });
        match is_valid {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    pub(super) fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let info = SubjectPublicKeyInfoDer::from(PublicKey::of(certificate)?.info);
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &info, signature, algorithms)
    }

    /// Whether the key of the certificate `by` signed a certificate, or a list of those taken back.
    pub(super) fn is_signed(&self, der: &[u8], by: &[u8]) -> bool {
        let (Some(signed), Some(key)) = (Signed::read(der), PublicKey::read(by)) else {
            return false;
        };
        let mut fitting = self.0.signature_verification_algorithms.all.iter().filter(|algorithm| {
            algorithm.signature_alg_id().as_ref() == signed.algorithm
                && algorithm.public_key_alg_id().as_ref() == key.algorithm
        });
        fitting.any(|algorithm| {
            algorithm.verify_signature(&key.bits, signed.message, signed.signature).is_ok()
        })
    }

    pub(super) fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl<'a> PublicKey<'a> {
    pub(super) fn of(certificate: &'a CertificateDer<'_>) -> Result<Self, Error> {
        Self::read(certificate).ok_or(CertificateError::BadEncoding.into())
    }

    fn read(certificate: &'a [u8]) -> Option<Self> {
        let ([], certificate) = parse_x509_certificate(certificate).ok()? else { return None };
        let key = certificate.tbs_certificate.subject_pki;
        let (_, sequence) = Any::from_der(key.raw).ok()?;
        let (_, algorithm) = Any::from_der(sequence.data).ok()?;
        let bits = key.subject_public_key.data;
        Some(Self { info: key.raw, algorithm: algorithm.data, bits })
    }
}

impl<'a> Signed<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let (_, whole) = Any::from_der(der).ok()?;
        let (rest, _) = Any::from_der(whole.data).ok()?;
        let message = whole.data.get(..whole.data.len() - rest.len())?;
        let (rest, algorithm) = Any::from_der(rest).ok()?;
        let (_, bits) = Any::from_der(rest).ok()?;
        // Of a signature all bits of all bytes count.
        let (0, signature) = bits.data.split_first()? else { return None };
        Some(Self { message, algorithm: algorithm.data, signature })
    }
}
