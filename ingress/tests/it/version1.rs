//! Certificates as they were before X.509 had extensions.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, SigningKey};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::asn1_rs::{Any, FromDer};

use crate::support::objects::Authority;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// Version and extensions of a TBSCertificate (RFC 5280 4.1).
const LATER: [u8; 2] = [0xa0, 0xa3];

/// The same certificate, of version 1. What its authority signed is another one, which matters where
/// the authority does.
pub(crate) fn version_1(certificate: &str) -> String {
    pem(&stripped(certificate))
}

/// Certificate and key as of [`Authority::sign`], of version 1: as `openssl x509 -req` without extensions.
pub(crate) fn sign_version_1(
    authority: &Authority,
    params: &CertificateParams,
) -> (String, String) {
    let (certificate, key) = authority.sign(params);
    let mut whole = stripped(&certificate);
    let signature = authority.key().sign(&whole[0]).unwrap();
    whole[2] = element(BIT_STRING, &[&[0], &signature[..]].concat());
    (pem(&whole), key)
}

/// The parts of a certificate (RFC 5280 4.1), the first of them of version 1.
fn stripped(certificate: &str) -> Vec<Vec<u8>> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let mut whole = parts(&certificate);
    let mut signed = parts(&whole[0]);
    signed.retain(|part| !LATER.contains(&part[0]));
    whole[0] = element(SEQUENCE, &signed.concat());
    whole
}

fn pem(parts: &[Vec<u8>]) -> String {
    let text = STANDARD.encode(element(SEQUENCE, &parts.concat()));
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// What a sequence holds, each in DER.
fn parts(sequence: &[u8]) -> Vec<Vec<u8>> {
    let (_, sequence) = Any::from_der(sequence).unwrap();
    let mut left = sequence.data;
    let mut parts = Vec::new();
    while !left.is_empty() {
        let (rest, _) = Any::from_der(left).unwrap();
        parts.push(left[..left.len() - rest.len()].to_vec());
        left = rest;
    }
    parts
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match length {
        [0, low] if low < 0x80 => vec![tag, low],
        [0, low] => vec![tag, 0x81, low],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}
